"""Draws: what is refused, what is doubted, what passes unchanged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributions import constraints

from amfvi.draws import Draws
from amfvi.errors import AmfviWarning, InputError, UsageError


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(300, 3))


@pytest.mark.parametrize("make", [np.asarray, torch.tensor, np.ndarray.tolist, np.asfortranarray])
def test_arrays_tensors_and_lists_are_the_same_draws(x, make):
    draws = Draws.of(make(x))
    assert draws.values.dtype == torch.float64
    assert np.array_equal(draws.values.numpy(), x)
    assert draws.names == ("x1", "x2", "x3")
    assert len(draws) == 300
    assert draws.dim == 3


def test_draws_are_a_copy(x):
    draws = Draws.of(x)
    x[0, 0] = 99
    assert float(draws.values[0, 0]) != 99


def test_one_parameter_may_be_a_flat_array(x):
    assert Draws.of(x[:, 0]).dim == 1


def test_chains_are_unfolded_in_order(x):
    draws = Draws.of(x.reshape(3, 100, 3), chains=True)
    assert np.array_equal(draws.values.numpy(), x)
    assert draws.chain.tolist() == [0] * 100 + [1] * 100 + [2] * 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x + 1j, "dtype complex128"),
        (lambda x: x.astype(str), "dtype <U"),
        (lambda x: x.astype(object), "dtype object"),
        (lambda x: x > 0, "dtype bool"),
        (lambda x: [[1.0, 2.0], [3.0]], "rectangular"),
        (lambda x: x.reshape(3, 100, 3), "say chains=True"),
        (lambda x: x.reshape(3, 10, 10, 3), "must be n × d"),
        (lambda x: x[:, :0], "no columns"),
        (lambda x: x[:0], "0 rows"),
        (lambda x: x[:1], "1 row of draws, need at least 20"),
        (lambda x: np.column_stack([x, np.full(300, 7.5)]), r"column 'x4' is constant \(7.5\)"),
    ],
)
def test_impossible_draws_are_refused(x, change, message):
    with pytest.raises(InputError, match=message):
        Draws.of(change(x))


def test_nonfinite_rows_are_counted_located_and_dropped_on_request(x):
    x[[4, 9], [0, 2]] = np.nan, np.inf
    with pytest.raises(InputError, match=r"2 of 300 rows hold NaN or infinity \(first at row 4, 9"):
        Draws.of(x)
    draws = Draws.of(x, nonfinite="drop")
    assert (len(draws), draws.n_dropped) == (298, 2)
    with pytest.raises(UsageError, match="'error' or 'drop'"):
        Draws.of(x, nonfinite="ignore")


def test_draws_outside_their_bounds_are_located(x):
    x[:, 1] = np.abs(x[:, 1])
    x[7, 1] = -0.5
    with pytest.raises(InputError, match=r"1 draws of 'x2' .* the first is -0.5 at row 7"):
        Draws.of(x, support={"x2": constraints.positive})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: np.concatenate([x, x[:40]]), "40 of 340 rows repeat"),
        (lambda x: np.column_stack([x, np.arange(300.0)]), "'x4' holds integers only"),
        (lambda x: np.column_stack([x, x[:, 0] * 2 + 1e-9 * x[:, 1]]), "'x1' and 'x4'.*1.000000"),
        (lambda x: x[:100], "100 draws of 3 parameters are few; 150 would do"),
    ],
)
def test_suspicious_draws_warn(x, change, message):
    with pytest.warns(AmfviWarning, match=message):
        Draws.of(change(x))


def test_heavy_tails_warn_and_normal_tails_do_not():
    generator = np.random.default_rng(1)
    Draws.of(generator.normal(size=(5000, 2)))
    with pytest.warns(AmfviWarning, match="'x2' has heavy tails"):
        Draws.of(np.column_stack([generator.normal(size=5000), generator.standard_cauchy(5000)]))


def test_a_far_outlier_warns(x):
    x[5, 1] = 1e4
    with pytest.warns(AmfviWarning, match="'x2' has a value over 50 interquartile"):
        Draws.of(np.concatenate([x, np.random.default_rng(2).normal(size=(3000, 3))]))


def test_names_must_fit(x):
    with pytest.raises(UsageError, match="2 names given for 3 columns"):
        Draws.of(x, names=["a", "b"])
    with pytest.raises(InputError, match="two columns are called 'a'"):
        Draws.of(x, names=["a", "b", "a"])
    with pytest.raises(UsageError, match="chain= must have 300 entries"):
        Draws.of(x, chain=[1, 2])
