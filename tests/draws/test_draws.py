"""Draws: what is refused, what is warned of, what passes unchanged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributions import constraints

from amfvi.draws.draws import Draws
from amfvi.errors import AmfviWarning, InputError, UsageError


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(300, 3))


@pytest.mark.parametrize("make", [np.asarray, torch.tensor, np.ndarray.tolist, np.asfortranarray])
def test_arrays_tensors_and_lists_are_the_same_draws(x, make):
    draws = Draws.from_array(make(x))
    assert draws.values.dtype == torch.float64
    assert np.array_equal(draws.values.numpy(), x)
    assert draws.names == ("x1", "x2", "x3")
    assert len(draws) == 300
    assert draws.dim == 3


def test_draws_are_a_copy(x):
    draws = Draws.from_array(x)
    x[0, 0] = 99
    assert float(draws.values[0, 0]) != 99


def test_one_parameter_may_be_a_flat_array(x):
    assert Draws.from_array(x[:, 0]).dim == 1


def test_chains_are_unfolded_in_order(x):
    draws = Draws.from_array(x.reshape(3, 100, 3), chains=True)
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
        (lambda x: x.reshape(3, 100, 3), "pass chains=True"),
        (lambda x: x.reshape(3, 10, 10, 3), "must be n × d"),
        (lambda x: x[:, :0], "no columns"),
        (lambda x: x[:0], "0 rows"),
        (lambda x: x[:1], "1 row of draws, need at least 20"),
        (lambda x: np.column_stack([x, np.full(300, 7.5)]), r"column 'x4' is constant \(7.5\)"),
    ],
)
def test_impossible_draws_are_refused(x, change, message):
    with pytest.raises(InputError, match=message):
        Draws.from_array(change(x))


def test_nonfinite_rows_are_counted_located_and_omitted_on_request(x):
    x[[4, 9], [0, 2]] = np.nan, np.inf
    with pytest.raises(InputError, match=r"2 of 300 rows hold NaN or infinity \(first at row 4, 9"):
        Draws.from_array(x)
    draws = Draws.from_array(x, nan_policy="omit")
    assert (len(draws), draws.n_omitted) == (298, 2)
    with pytest.raises(UsageError, match="'raise' or 'omit'"):
        Draws.from_array(x, nan_policy="ignore")


def test_draws_outside_their_bounds_are_located(x):
    x[:, 1] = np.abs(x[:, 1])
    x[7, 1] = -0.5
    with pytest.raises(InputError, match=r"1 draws of 'x2' .* the first is -0.5 at row 7"):
        Draws.from_array(x, constraints={"x2": constraints.positive})


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
        Draws.from_array(change(x))


def test_heavy_tails_warn_and_normal_tails_do_not():
    generator = np.random.default_rng(1)
    Draws.from_array(generator.normal(size=(5000, 2)))
    with pytest.warns(AmfviWarning, match="'x2' has heavy tails"):
        Draws.from_array(
            np.column_stack([generator.normal(size=5000), generator.standard_cauchy(5000)])
        )


def test_a_far_outlier_warns(x):
    x[5, 1] = 1e4
    with pytest.warns(AmfviWarning, match="'x2' has a value over 50 interquartile"):
        Draws.from_array(np.concatenate([x, np.random.default_rng(2).normal(size=(3000, 3))]))


def test_names_must_fit(x):
    with pytest.raises(UsageError, match="2 names given for 3 columns"):
        Draws.from_array(x, names=["a", "b"])
    with pytest.raises(InputError, match="two columns are called 'a'"):
        Draws.from_array(x, names=["a", "b", "a"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"chain_ids": [1, 2]}, "chain_ids must have 300 entries"),
        ({"chains": True}, "chains=True needs a chains × draws × d array, found 2 dimensions"),
    ],
)
def test_arguments_must_fit(x, arguments, message):
    with pytest.raises(UsageError, match=message):
        Draws.from_array(x, **arguments)


def test_chains_are_given_once(x):
    with pytest.raises(UsageError, match="chain_ids= or chains=True, not both"):
        Draws.from_array(x.reshape(3, 100, 3), chains=True, chain_ids=np.zeros(300))


def test_rows_are_numbered_as_they_were_given(x):
    """Messages count the rows of weight zero and those with NaN that are left out."""
    weights = np.ones(300)
    weights[:10] = 0
    x[20, 0] = np.nan
    with pytest.raises(InputError, match="first at row 20"):
        Draws.from_array(x, sample_weight=weights)
    x[:, 1] = np.abs(x[:, 1])
    x[50, 1] = -1
    with pytest.raises(InputError, match="the first is -1 at row 50"):
        Draws.from_array(
            x, sample_weight=weights, nan_policy="omit", constraints={"x2": constraints.positive}
        )


def test_vectors_outside_their_constraint_are_located(x):
    p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    p[5] = [0.5, 0.6, 0.1]
    simplex = {("x1", "x2", "x3"): constraints.simplex}
    with pytest.raises(InputError, match=r"1 draws of x1, x2, x3 violate the simplex.* at row 5"):
        Draws.from_array(p, constraints=simplex)


@pytest.mark.filterwarnings("ignore:columns .* hold integers")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_tensors_of_every_real_dtype(x, dtype):
    tensor = torch.from_numpy(100 * x).to(dtype)
    assert torch.equal(Draws.from_array(tensor).values, tensor.double())


def test_what_is_masked_is_missing(x):
    masked = np.ma.masked_greater(x, 2.0)
    with pytest.raises(InputError, match="rows hold NaN or infinity"):
        Draws.from_array(masked)
    draws = Draws.from_array(masked, nan_policy="omit")
    assert draws.n_omitted == int((x > 2).any(axis=1).sum()) > 0
    assert float(draws.values.max()) <= 2.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": [1, 2, 3]}, "names must be a list of texts"),
        ({"names": "abc"}, "names must be a list of texts, found 'abc'"),
        ({"constraints": 5}, "constraints= must be a mapping from names, or one constraint"),
        ({"constraints": "positive"}, "constraints= must be a mapping from names, or one"),
        ({"constraints": [None, None, ("a", 1)]}, "bounds must be numbers or None"),
    ],
)
def test_arguments_of_a_wrong_type_are_named(x, arguments, message):
    with pytest.raises(UsageError, match=message):
        Draws.from_array(x, **arguments)


def test_weights_may_be_as_large_as_numbers_are(x):
    weights = np.random.default_rng(1).random(len(x))
    huge, plain = (Draws.from_array(x, sample_weight=weights * unit) for unit in (1e308, 1.0))
    assert torch.allclose(huge.sample_weight, plain.sample_weight)
