"""Runs beside each other: evidence, scores and means."""

from __future__ import annotations

import math

import pytest

from amfvi.cli.report import read_contents
from amfvi.report.comparison import MAX_SHARED, compare
from amfvi.report.contents import RunContents


def run(path, log_z=None, means=(), verdict="trust"):
    density = None
    if log_z is not None:
        density = {"verdict": verdict, "log_z": log_z, "log_z_se": 0.3, "khat": 0.1, "ess": 5.0,
                   "n_draws": 10, "n_evaluations": 7}  # fmt: skip
    parameters = {name: {"mean": mean, "sd": 2.0} for name, mean in means}
    return RunContents(
        path=path, config={}, metrics={"density": density, "experts": {}}, parameters=parameters
    )


def test_bayes_factors_and_their_errors():
    found = compare([run("a", -10.0), run("b", -8.0), run("c")])
    rows = {row[0]: row[1:] for row in found.rows}
    assert rows["log Bayes factor"] == ("0", f"2.000 ± {math.hypot(0.3, 0.3):.3f}", "–")
    assert rows["Bayes factor"] == ("1", f"{math.exp(2):.3g}", "–")
    assert found.records[1]["log_bayes_factor"] == pytest.approx(2)
    assert "same data" in found.notes[0]


def test_an_evidence_that_is_not_to_be_trusted_is_named():
    found = compare([run("a", 0.0), run("b", 1.0, verdict="do not trust")])
    assert any("Not to be trusted" in note and "b" in note for note in found.notes)


def test_differences_of_means_are_in_sd_of_the_first_run():
    found = compare([run("a", means=[("x", 1.0), ("y", 0.0)]), run("b", means=[("x", 2.0)])])
    rows = {row[0]: row[1:] for row in found.rows}
    assert rows["mean of x, in sd"] == ("0", "+0.500")
    assert "mean of y, in sd" not in rows
    assert found.records[1]["mean_shift_in_sd"] == {"x": 0.5}


def test_of_many_parameters_those_that_differ_most_are_shown():
    names = [f"t{i}" for i in range(50)]
    first = run("a", means=[(name, 0.0) for name in names])
    second = run("b", means=[(name, float(i)) for i, name in enumerate(names)])
    shown = [row[0] for row in compare([first, second]).rows if row[0].startswith("mean of")]
    assert len(shown) == MAX_SHARED
    assert "mean of t49, in sd" in shown


def test_all_kinds_of_runs_can_be_compared(runs):
    kinds = ("draws", "density", "both", "pairs", "untrusted")
    found = compare([read_contents(runs / kind, figures=False) for kind in kinds])
    assert all(len(row) == len(kinds) + 1 for row in found.rows)
    page = found.to_html()
    assert page.count("<h1>") == 1
    assert "http" not in page.replace("http-equiv", "")
