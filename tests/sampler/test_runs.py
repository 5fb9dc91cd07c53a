"""The sampler as a whole: its draws follow the density and its evidence is right."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from amfvi.density.budget import Budget, OutOfBudgetError
from amfvi.density.log_density import LogDensity
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.errors import InputError
from amfvi.sampler.runs import sample_posterior
from amfvi.targets import get

pytestmark = pytest.mark.usefixtures("global_state_untouched")


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]
)
@pytest.mark.parametrize("name", ["banana", "two_moons", "clusters", "linear_regression"])
def test_evidence_within_its_error(name, seed, unconstrained):
    density = unconstrained(name)
    sample = sample_posterior(density, 4000, seed=seed)
    assert abs(sample.log_z.mean - get(name).log_z) < 5 * sample.log_z.se
    assert sample.log_z.se < 0.08
    assert density.budget.spent < 40_000


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["banana", "bimodal", "rings"])
@pytest.mark.parametrize("gradients", [True, False])
def test_draws_follow_the_density(name, seed, gradients, unconstrained, without_gradient, seeded):
    """Marginal quantiles, by Kolmogorov and Smirnov with a third of the draws as effective."""
    density = unconstrained(name) if gradients else without_gradient(name)
    assert density.differentiable == gradients
    sample = sample_posterior(density, 6000, seed=seed)
    truth = get(name).sample(20_000, seeded(seed + 10))
    for column, exact in zip(sample.x.T, truth.T, strict=True):
        distance = stats.ks_2samp(column.numpy(), exact.numpy()).statistic
        assert stats.kstwo.sf(distance, 1500) > 1e-4


def test_forty_modes_are_all_found_from_their_box(unconstrained):
    sample = sample_posterior(unconstrained("forty_modes"), 8000, seed=0)
    nearest = torch.cdist(sample.x, get("forty_modes").centers).argmin(dim=1)
    share = torch.bincount(nearest, minlength=40) / len(nearest)
    assert float(-(share * share.log()).sum()) / math.log(40) > 0.95


def test_a_density_that_is_zero_everywhere_is_an_error():
    density = LogDensity(lambda x: torch.full((len(x),), -math.inf), 2)
    with pytest.raises(
        InputError, match=r"-inf at all 1024 points tried; give box=, or a LogDensity"
    ):
        sample_posterior(UnconstrainedDensity(density), 1000, seed=0)
    boxed = LogDensity(lambda x: torch.full((len(x),), -math.inf), 2, box=(0, 1))
    with pytest.raises(InputError, match=r"-inf at all 2000 points tried; widen"):
        sample_posterior(UnconstrainedDensity(boxed), 1000, seed=0)


def test_a_density_with_walls_keeps_to_them():
    """−∞ outside a disc: a third of the box is forbidden, the evidence is the disc's."""
    density = LogDensity(
        lambda x: torch.where(x.square().sum(dim=1) < 1, 0.0, -math.inf), 2, box=(-1, 1)
    )
    sample = sample_posterior(UnconstrainedDensity(density), 4000, seed=0)
    assert float(sample.x.square().sum(dim=1).max()) < 1
    assert sample.log_z.mean == pytest.approx(math.log(math.pi), abs=0.1)


def test_one_parameter():
    density = LogDensity(lambda x: -0.5 * (x[:, 0] - 3).square(), 1)
    sample = sample_posterior(UnconstrainedDensity(density), 3000, seed=0)
    assert sample.log_z.mean == pytest.approx(0.5 * math.log(2 * math.pi), abs=0.08)
    assert stats.kstwo.sf(stats.kstest(sample.x[:, 0].numpy() - 3, "norm").statistic, 800) > 1e-4


@pytest.mark.slow
def test_a_budget_that_ends_between_the_runs_leaves_one_run(unconstrained):
    whole = unconstrained("two_moons")
    sample_posterior(whole, 4000, seed=0)
    one_run = (whole.budget.spent + 2_000) // 2  # reference and first run, not the second
    density = unconstrained("two_moons", budget=Budget(max_evaluations=one_run + 2_000))
    sample = sample_posterior(density, 4000, seed=0)
    assert sample.stopped_by is not None
    assert sample.sample_weight is None  # the complete run alone is returned
    assert sample.run.unique().tolist() == [0]
    assert math.isnan(sample.max_mean_discrepancy_in_sd)


def test_a_budget_too_small_for_a_single_draw_is_raised(unconstrained):
    with pytest.raises(OutOfBudgetError, match="max_evaluations=100"):
        sample_posterior(unconstrained("banana", budget=Budget(100)), 1000, seed=0)


def test_draws_of_streams_and_seeds_differ(unconstrained):
    def first_draws(**options):
        return sample_posterior(unconstrained("banana"), 500, **options).x[:50]

    draws = first_draws(seed=0)
    assert torch.equal(draws, first_draws(seed=0))
    assert not torch.equal(draws, first_draws(seed=1))
    assert not torch.equal(draws, first_draws(seed=0, stream_name="second look"))
