"""Chains where a variance comes from: they go on where a mixture ends before its posterior does."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

import amfvi
from amfvi.density.budget import Budget, OutOfBudgetError
from amfvi.density.log_density import LogDensity
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.diagnostics.comparison import importance_sample
from amfvi.diagnostics.outskirts import (
    N_CHAINS,
    N_MORE_CHAINS,
    N_STEPS,
    _log_bridge,
    measure_outside,
)
from amfvi.diagnostics.thresholds import MAX_OUTSIDE, NOTABLE_OUTSIDE
from amfvi.sampler.outer_chains import OuterChains, _LocalProposal


def bend(z1):
    return 0.5 * (z1**2 - 4)


def ridge(n, cut, seed, width=0.5):
    """Draws of z₁ ~ N(0, 2²) within ``cut`` sds, z₂ = bend(z₁) + noise, and z₃."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(4 * n, 3, generator=generator, dtype=torch.float64)
    z = z[z[:, 0].abs() < cut][:n]
    z1 = 2 * z[:, 0]
    return torch.stack([z1, bend(z1) + width * z[:, 1], z[:, 2]], dim=1)


def density_of(width=0.5, **options):
    def log_density(x):
        noise = (x[:, 1] - bend(x[:, 0])) / width
        return -0.5 * ((x[:, 0] / 2).square() + noise.square() + x[:, 2].square())

    return UnconstrainedDensity(LogDensity(log_density, 3), **options)


def outside(width, cut, seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", amfvi.AmfviWarning)
        mixture = amfvi.fit(ridge(3000, cut, seed, width), experts="gmm", folds=2)
    generator = torch.Generator().manual_seed(seed)
    weighted = importance_sample(mixture, density_of(width), 5000, generator)
    return measure_outside(mixture, density_of(width), weighted, generator)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("width", [0.3, 0.5, 1.0])
def test_a_ridge_that_is_cut_off_is_noticed(width, seed):
    """At 1.2 standard deviations, which leaves out a fifth of the mass."""
    assert outside(width, 1.2, seed) > MAX_OUTSIDE


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("width", [0.5, 1.0])
def test_a_whole_ridge_is_not_left(width, seed):
    """Gaussians that are fitted to 3,000 draws are thin at its ends, but not by much."""
    assert outside(width, 10.0, seed) < MAX_OUTSIDE


def test_it_takes_no_more_evaluations_than_there_are():
    mixture = amfvi.fit(ridge(1000, 10.0, 0), experts="gmm", folds=2)
    generator = torch.Generator().manual_seed(0)
    weighted = importance_sample(mixture, density_of(), 500, generator)
    short = density_of(budget=Budget(max_evaluations=500))
    with pytest.raises(OutOfBudgetError):
        measure_outside(mixture, short, weighted, generator)
    assert short.budget.spent <= 500


def spent_and_found(width, reach, max_evaluations=None):
    """Evaluations and share for a ridge whose draws reach so far."""
    mixture = amfvi.fit(ridge(3000, reach, 0, width), experts="gmm", folds=2)
    generator = torch.Generator().manual_seed(0)
    weighted = importance_sample(mixture, density_of(width), 2000, generator)
    density = density_of(width, budget=Budget(max_evaluations=max_evaluations))
    found = measure_outside(mixture, density, weighted, generator)
    return density.budget.spent, found


def test_more_chains_look_where_the_first_find_something():
    few, nothing = spent_and_found(1.0, 10.0)
    many, something = spent_and_found(1.0, 1.0)
    assert few <= N_CHAINS * (N_STEPS + 1)
    assert many > few + N_MORE_CHAINS * N_STEPS / 2
    assert nothing < NOTABLE_OUTSIDE < something
    # With evaluations for the first look alone, that one stands.
    spent, of_first = spent_and_found(1.0, 1.0, max_evaluations=few + 50)
    assert spent <= few + 50
    assert of_first > NOTABLE_OUTSIDE


def stretched(x):
    """z₁ ~ N(0, 1), z₂ | z₁ ~ N(z₁³, .5²)."""
    return -0.5 * (x[:, 0].square() + ((x[:, 1] - x[:, 0] ** 3) / 0.5).square())


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 2))])
def test_a_cubic_ridge_that_is_cut_off_is_noticed(seed):
    """Draws that lack what is beyond 1.5 sds of z₁: 13% of the mass, nearly all variance of z₂."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(6000, 2, generator=generator, dtype=torch.float64)
    draws = torch.stack([z[:, 0], z[:, 0] ** 3 + 0.5 * z[:, 1]], dim=1)
    density = UnconstrainedDensity(LogDensity(stretched, 2))
    found = {}
    for name, kept in (("whole", z[:, 0].abs() < 10), ("cut", z[:, 0].abs() < 1.5)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", amfvi.AmfviWarning)
            mixture = amfvi.fit(draws[kept], experts="gmm", folds=2)
        weighted = importance_sample(mixture, density, 5000, generator)
        found[name] = measure_outside(mixture, density, weighted, generator)
    assert found["cut"] > MAX_OUTSIDE
    assert found["whole"] < found["cut"]


def test_a_covariance_that_rounding_has_spoiled_is_replaced_by_its_axes():
    """Draws of which some are 1e200 apart: no Cholesky factor, but a step nonetheless."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(100, 2, generator=generator, dtype=torch.float64)
    y[::7] *= 1e200
    factor = _LocalProposal(y, torch.ones(2).double()).factor(y)
    assert bool(factor.isfinite().all())
    assert bool((factor.diagonal(dim1=1, dim2=2) > 0).all())


def test_a_bridge_tells_what_one_side_lacks():
    """q is p cut off at its 60% quantile, so that its integral of r² is less by what is beyond."""
    generator = torch.Generator().manual_seed(0)
    of_q = 0.6 * torch.rand(20_000, generator=generator).double()
    of_p = torch.rand(20_000, generator=generator).double()
    chosen = of_p[torch.multinomial(of_p**2, 5_000, True, generator=generator)]
    log_ratio = torch.full_like(of_q, 0.6).log()  # 1 over 1 / 0.6
    of_states = torch.where(chosen < 0.6, torch.tensor(0.6).log(), torch.inf)
    ratio = math.exp(_log_bridge(of_q**2, log_ratio, of_states))
    assert ratio == pytest.approx((1 / 3) / (0.6**2 / 3), rel=0.05)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_chains_far_out_stay_there_and_go_beyond_the_draws(seed):
    generator = torch.Generator().manual_seed(seed)
    draws = ridge(3000, 2.0, seed)
    chains = OuterChains(density_of(), draws, torch.ones(len(draws)).double(), share=0.1)
    states = torch.cat([state for state, _ in chains.walk(60, generator)])
    assert bool(chains.is_outer(states).all())
    assert int(chains.is_outer(draws).sum()) < 0.1 * len(draws)
    assert float(states[:, 0].abs().max()) > 1.1 * float(draws[:, 0].abs().max())


@pytest.mark.parametrize("reach", [1.0, 10.0])
def test_one_dimension(reach):
    """The median of the draws is one of them, at no distance from the center."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5001, 1, generator=generator, dtype=torch.float64)
    density = UnconstrainedDensity(LogDensity(lambda x: -0.5 * x.square().sum(1), 1))
    mixture = amfvi.fit(x[x[:, 0].abs() < reach], experts="gmm", folds=2)
    weighted = importance_sample(mixture, density, 5001, generator)
    assert 0 <= measure_outside(mixture, density, weighted, generator) < MAX_OUTSIDE
