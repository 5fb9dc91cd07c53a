"""How many draws chains are worth: ArviZ agrees, independent draws never warn."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import stats

from amfvi.draws.draws import Draws
from amfvi.draws.mixing import assess_mixing
from amfvi.errors import AmfviWarning

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import arviz


def autoregression(n, rho, d, seed):
    """Normal draws with correlation ρ from row to row, (n, d)."""
    random = np.random.default_rng(seed)
    noise = random.normal(size=(n, d))
    x = np.empty((n, d))
    x[0] = noise[0]
    for row in range(1, n):
        x[row] = rho * x[row - 1] + np.sqrt(1 - rho**2) * noise[row]
    return x


def several(rho, seed, chains=4, n=500, d=2):
    return np.stack([autoregression(n, rho, d, 100 * seed + c) for c in range(chains)])


@pytest.mark.parametrize("rho", [-0.3, 0.0, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("chains", [1, 4])
def test_sizes_and_rhat_are_those_of_arviz(rho, chains):
    x = several(rho, seed=1, chains=chains)
    mixing = assess_mixing(x.reshape(-1, 2), np.repeat(np.arange(chains), 500))
    for column in range(2):
        size = float(arviz.ess(x[:, :, column], method="bulk"))
        assert mixing.ess[column] == pytest.approx(min(size, 500 * chains), rel=0.05)
        if chains > 1:
            rhat = float(arviz.rhat(x[:, :, column], method="rank"))
            assert mixing.rhat[column] == pytest.approx(rhat, abs=0.002)


@pytest.mark.parametrize("rho", [0.9, 0.99, 0.999])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("d", [1, 3])
def test_a_slow_chain_warns(rho, seed, d):
    with pytest.warns(AmfviWarning, match=r"2000 draws are worth about \d+ .*run the chain longer"):
        Draws.from_array(autoregression(2000, rho, d, seed))


def heavy_tailed(x):
    return np.tan(np.pi * (stats.norm.cdf(x) - 0.5))


def two_modes(x):
    return np.where(x > 0, 100.0, 0.0)[:, :1] + np.random.default_rng(0).normal(size=(len(x), 1))


@pytest.mark.filterwarnings("ignore:column.* heavy tails", "ignore:.* rows repeat")
@pytest.mark.parametrize("change", [
    lambda x: np.column_stack([np.random.default_rng(0).normal(size=(2000, 4)), x]),
    heavy_tailed,
    two_modes,
    lambda x: 1.7e9 + 1e-3 * x,
    lambda x: np.round(10 * x) / 7,
    lambda x: np.exp(20 * x),
])  # fmt: skip
def test_slow_chains_of_every_kind_warn(change):
    with pytest.warns(AmfviWarning, match="effective sample size"):
        Draws.from_array(change(autoregression(2000, 0.995, 2, seed=5)))


def test_weights_do_not_hide_a_slow_chain():
    weights = np.random.default_rng(0).exponential(size=2000)
    with pytest.warns(AmfviWarning, match="2000 draws are worth about"):
        Draws.from_array(autoregression(2000, 0.99, 2, seed=0), sample_weight=weights)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("rho", [0.99, 0.999])
def test_several_slow_chains_warn_with_and_without_their_numbers(known, rho):
    x = several(rho, seed=3)
    with pytest.warns(AmfviWarning, match="effective sample size"):
        Draws.from_array(x if known else x.reshape(-1, 2), chains=known)


@pytest.mark.parametrize("chains", [3, 20])
def test_chains_whose_draws_are_given_in_turn_warn(chains):
    """As samplers with many walkers write them: no row resembles the one before."""
    x = several(0.99, seed=4, chains=chains, n=3000 // chains).swapaxes(0, 1)
    with pytest.warns(AmfviWarning, match=f"seem to be from {chains} chains in turn"):
        Draws.from_array(x.reshape(-1, 2))


def test_sorted_rows_and_rows_in_blocks_are_to_be_shuffled():
    x = np.random.default_rng(0).normal(size=(1000, 2))
    for rows in (np.argsort(x[:, 1]), np.argsort(-x[:, 1])):
        with pytest.warns(AmfviWarning, match="sorted by 'x2'; shuffle them"):
            Draws.from_array(x[rows])
    with pytest.warns(AmfviWarning, match="shuffle the rows"):
        Draws.from_array(np.concatenate([x, x + 10]))


@pytest.mark.parametrize(("n_stuck", "n"), [(500, 500), (500, 100), (100, 500), (12, 12)])
@pytest.mark.filterwarnings("ignore:.* are few")
def test_chains_in_different_modes_disagree(n_stuck, n):
    random = np.random.default_rng(0)
    x = random.normal(size=(3 * n + n_stuck, 2))
    x[3 * n :, 0] += 9
    ids = np.repeat([4, 7, 9, 11], [n, n, n, n_stuck])
    with pytest.warns(AmfviWarning, match="split-R̂ of 'x1' is .*; they are in different modes"):
        Draws.from_array(x, chain_ids=ids)


def test_chains_of_different_widths_disagree():
    x = np.random.default_rng(0).normal(size=(4, 500, 1)) * np.array([1, 1, 1, 0.1])[:, None, None]
    with pytest.warns(AmfviWarning, match="chains disagree: split-R̂ of 'x1' is"):
        Draws.from_array(x, chains=True)


@pytest.mark.filterwarnings("ignore:.* are few", "ignore:column.* heavy tails")
@pytest.mark.parametrize("n", [20, 50, 200, 2000])
@pytest.mark.parametrize("d", [1, 5])
@pytest.mark.parametrize("chains", [1, 2, 5])
def test_independent_draws_do_not_warn(n, d, chains):
    for seed in range(20):
        random = np.random.default_rng(seed)
        x = random.normal(size=(n, d)) if seed % 2 else random.standard_t(2, size=(n, d))
        Draws.from_array(x, chain_ids=np.arange(n) * chains // n)


@pytest.mark.parametrize("seed", range(5))
def test_chains_that_are_good_enough_do_not_warn(seed):
    Draws.from_array(autoregression(2000, 0.5, 2, seed))
    Draws.from_array(several(0.5, seed), chains=True)
    Draws.from_array(several(-0.5, seed), chains=True)
    Draws.from_array(autoregression(40_000, 0.9, 2, seed)[::40])
    Draws.from_array(autoregression(100_000, 0.9, 2, seed))


def test_chains_of_one_row_say_nothing():
    Draws.from_array(np.random.default_rng(0).normal(size=(300, 2)), chain_ids=np.arange(300))


def test_a_column_that_counts_the_rows_is_not_taken_for_a_chain():
    x = np.column_stack([np.random.default_rng(0).normal(size=300), np.arange(300.0)])
    with pytest.warns(AmfviWarning, match="'x2' holds integers only"):
        Draws.from_array(x)
