"""Selections, means over seeds, and the tables made of them."""

from __future__ import annotations

import csv
import doctest

import numpy as np
import pytest

from experiments.lab import tables
from experiments.lab.tables import (
    distinct,
    format_mean,
    markdown_table,
    mean_se,
    pivot,
    significant,
    values,
    write_csv,
)

ROWS = [
    {"target": target, "method": method, "seed": seed, "kl": kl + seed}
    for target, method, kl in (("b", "maf", 1.0), ("b", "gmm", 2.0), ("a", "maf", 5.0))
    for seed in (0, 1)
]


def test_values_are_those_of_the_rows_asked_for():
    assert values(ROWS, "kl", target="b", method="maf").tolist() == [1.0, 2.0]
    assert values(ROWS, "kl", seed=1).tolist() == [2.0, 3.0, 6.0]
    assert distinct(ROWS, "target") == ["b", "a"]


def test_standard_error_is_that_of_the_mean():
    x = np.random.default_rng(0).normal(size=(4000, 9))
    errors = [mean_se(row)[1] for row in x]
    assert np.mean(np.square(errors)) == pytest.approx(1 / 9, rel=0.02)
    assert np.isnan(mean_se(np.array([1.0]))[1])


def test_significant_is_two_standard_errors_from_zero():
    gains = {"won": np.array([3.0, 1.0]), "lost": np.array([-3.0, -2.9]), "even": np.array([3, -1])}
    assert significant(gains) == ([], ["lost"])
    gains["won"] = np.array([3.0, 1.1])
    assert significant(gains) == (["won"], ["lost"])


@pytest.mark.parametrize(
    ("x", "shown"),
    [([1.0, 2.0], "1.5 ± 0.5"), ([1.0], "1.0"), ([], ""), ([1.0, np.inf], "∞ in 1 of 2")],
)
def test_a_mean_as_it_is_shown(x, shown):
    assert format_mean(np.array(x), ".1f") == shown


def test_a_pivot_has_a_line_and_a_column_per_value():
    assert pivot(ROWS, "target", "method", "kl", ".1f") == [
        "| target | maf | gmm |",
        "|---|---|---|",
        "| b | 1.5 ± 0.5 | 2.5 ± 0.5 |",
        "| a | 5.5 ± 0.5 |  |",
    ]
    two = pivot(ROWS, ("target", "seed"), "method", "kl", ".0f")
    assert two[2] == "| b | 0 | 1 | 2 |"
    assert markdown_table(["x"], [[1]]) == ["| x |", "|---|", "| 1 |"]


def test_examples_are_true():
    outcome = doctest.testmod(tables)
    assert outcome.failed == 0
    assert outcome.attempted >= 8


def test_csv_has_the_columns_of_all_rows(tmp_path):
    write_csv(tmp_path / "x.csv", [{"a": 1}, {"a": 2, "b": "é,"}])
    with (tmp_path / "x.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [{"a": "1", "b": ""}, {"a": "2", "b": "é,"}]
