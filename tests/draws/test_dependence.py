"""Columns that others determine are named; correlated columns and other units are not."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch.distributions import LKJCholesky, constraints

from amfvi.draws.dependence import find_relations
from amfvi.draws.draws import Draws
from amfvi.errors import AmfviWarning, InputError

POSITIVE = [(0, None)] * 3


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(1000, 4))


def simplex(x):
    return np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)


def messages(values, **settings):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Draws.from_array(values, **settings)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    ("change", "settings", "subject"),
    [
        (lambda x: [x[:, 0], x[:, 1], x[:, 0] + x[:, 1]], {}, "'x1', 'x2' and 'x3' are linearly"),
        (
            lambda x: [x[:, 0], x[:, 1], x[:, 0] + x[:, 1] + 1e-9 * x[:, 2], x[:, 3]],
            {},
            "'x1', 'x2' and 'x3' are linearly",
        ),
        (lambda x: [x[:, 0], x[:, 1], 7 - 2 * x[:, 0]], {}, "'x1' and 'x3' are correlated at -1.0"),
        (
            lambda x: [1e8 * x[:, 0], 1e-8 * x[:, 1], x[:, 0] - x[:, 1]],
            {},
            "'x1', 'x2' and 'x3' are linearly",
        ),
        (lambda x: [1.7e9 + x[:, 0], x[:, 1], x[:, :2].sum(axis=1)], {}, "'x1', 'x2' and 'x3' are"),
        (lambda x: [*x.T, x.sum(axis=1)], {}, "'x1', 'x2', 'x3', 'x4' and 'x5' are linearly"),
        (lambda x: list(simplex(x).T), {}, "'x1', 'x2', 'x3' and 'x4' sum to 1, .* a simplex"),
        (
            lambda x: list(simplex(x).T),
            {"constraints": [(0, 1)] * 4},
            "'x1', 'x2', 'x3' and 'x4' sum to 1, .* a simplex",
        ),
        (
            lambda x: [*np.exp(x[:, :2].T), np.exp(1 - x[:, 0] - x[:, 1])],
            {"constraints": POSITIVE},
            "log 'x1', log 'x2' and log 'x3' are linearly",
        ),
        (lambda x: [x[:, 0], np.exp(0.3 * x[:, 0]), x[:, 1]], {}, "'x1' and log 'x2' are"),
        (
            lambda x: [*(1 / (1 + np.exp(-x[:, :2]))).T, 1 / (1 + np.exp(x[:, 0] + x[:, 1]))],
            {"constraints": [(0, 1)] * 3},
            "unconstrained 'x1', unconstrained 'x2' and unconstrained 'x3' are",
        ),
        (
            lambda x: [x[:, 0], x[:, 1], x[:, 0] + x[:, 1]],
            {"sample_weight": np.random.default_rng(1).exponential(size=1000)},
            "'x1', 'x2' and 'x3' are linearly",
        ),
    ],
)
def test_columns_that_others_determine_are_named(x, change, settings, subject):
    with pytest.warns(AmfviWarning, match=f"columns {subject}.* leave one of them out"):
        Draws.from_array(np.column_stack(change(x)), **settings)


@pytest.mark.parametrize(
    ("change", "settings"),
    [
        (lambda x: x, {}),
        (lambda x: x * [1e-8, 1e8, 1e-150, 1e150], {}),
        (lambda x: x + np.array([1.7e9, -1e12, 0, 1e6]), {}),
        (lambda x: np.exp(0.1 * x), {"constraints": [(0, None)] * 4}),
        (lambda x: np.exp(1e-4 * x), {}),
        (lambda x: np.column_stack([x[:, :2], x[:, :2].sum(axis=1) + 1e-3 * x[:, 2]]), {}),
        (lambda x: np.column_stack([x[:, 0], x[:, 0] + 0.015 * x[:, 1]]), {}),
        (lambda x: simplex(x)[:, :3], {}),
        (simplex, {"constraints": {("x1", "x2", "x3", "x4"): constraints.simplex}}),
        (lambda x: x @ np.linalg.cholesky(0.999 * np.ones((4, 4)) + 0.001 * np.eye(4)).T, {}),
    ],
)
def test_columns_that_are_merely_alike_are_not(x, change, settings):
    assert messages(change(x), **settings) == []


@pytest.mark.parametrize("seed", range(3))
def test_far_outliers_in_one_row_are_no_relation(seed):
    random = np.random.default_rng(seed)
    x = random.normal(size=(1000, 3))
    x[17] = 1e9
    assert find_relations(x) == []
    cauchy = random.normal(size=(100_000, 3)) / np.abs(random.normal(size=(100_000, 1)))
    assert find_relations(cauchy) == []


def test_a_pair_that_is_nearly_one_column_is_named(x):
    x[:, 3] = x[:, 0] + 0.005 * np.random.default_rng(1).normal(size=1000)
    with pytest.warns(AmfviWarning, match=r"'x1' and 'x4' are correlated at 0.99998\d; is one a"):
        Draws.from_array(x)


def test_many_relations_are_counted():
    random = np.random.default_rng(0)
    x = random.normal(size=(1000, 4)) @ random.normal(size=(4, 10))
    found = messages(x)
    assert len(found) == 4
    assert all("'x1', 'x2', 'x3', 'x4' and 'x" in message for message in found[:3])
    assert found[3] == "3 more columns are functions of others"


@pytest.mark.parametrize(("n", "d"), [(30, 40), (40, 40), (41, 40), (100, 40), (25, 9)])
def test_too_few_draws_for_their_dimension_are_an_error(n, d):
    x = np.random.default_rng(0).normal(size=(n, d))
    with pytest.raises(InputError, match=f"found {n} draws of {d} .* at least {3 * d}"):
        Draws.from_array(x)


def test_copies_of_too_few_draws_warn():
    x = np.random.default_rng(0).normal(size=(30, 40))
    found = " ".join(messages(np.tile(x, (20, 1))))
    assert "570 of 600 rows repeat" in found
    assert "are linearly dependent" in found


@pytest.mark.parametrize(("n", "d"), [(120, 40), (399, 40), (20, 2)])
def test_few_draws_for_their_dimension_warn(n, d):
    x = np.random.default_rng(0).normal(size=(n, d))
    assert messages(x) == [f"{n} draws of {d} parameters are few; {50 * d} would do"]


def test_entries_that_a_constraint_fixes_are_no_constant_columns():
    factors = LKJCholesky(3, torch.tensor(2.0, dtype=torch.float64)).sample((500,))
    names = [f"L[{i},{j}]" for i in range(3) for j in range(3)]
    matrices = {"L": constraints.corr_cholesky}
    assert messages(factors.reshape(500, 9), names=names, constraints=matrices) == []
    with pytest.raises(InputError, match="column 'x1' is constant"):
        Draws.from_array(factors.reshape(500, 9))


def test_numbers_too_large_for_fractions_are_not_taken_for_integers(x):
    assert messages(1e30 * x) == []
