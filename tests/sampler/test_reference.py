"""The reference distribution and the modes that it is made from."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import MultivariateNormal

from amfvi.density.log_density import LogDensity
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.errors import InputError
from amfvi.sampler.modes import Mode, find_modes
from amfvi.sampler.reference import find_reference, reference_from_density
from amfvi.sampler.tempering import temper

pytestmark = pytest.mark.usefixtures("global_state_untouched")


def test_modes_are_found_where_only_a_narrow_basin_leads(unconstrained, seeded):
    reference = find_reference(unconstrained("clusters"), seeded(0))
    assert reference.description == "3 modes of the density"
    assert not reference.near_posterior


def test_a_mode_has_the_covariance_of_its_curvature():
    covariance = torch.tensor([[1e-6, 9e-4], [9e-4, 1.0]], dtype=torch.float64)
    gaussian = MultivariateNormal(torch.tensor([0.02, -60.0]).double(), covariance)
    for differentiable in (True, False):
        function = gaussian.log_prob
        if not differentiable:
            function = lambda x: gaussian.log_prob(torch.as_tensor(x)).numpy()  # noqa: E731
        density = UnconstrainedDensity(LogDensity(function, 2))
        points = gaussian.mean + torch.tensor([[1e-3, 1.0], [0.0, -1.0]])
        (mode,) = find_modes(density, points)
        assert torch.allclose(mode.covariance, covariance, rtol=0.05, atol=1e-12)
        assert mode.log_mass == pytest.approx(0, abs=0.05)


def test_known_modes_are_kept_and_not_found_twice():
    density = UnconstrainedDensity(
        LogDensity(lambda x: torch.logaddexp(-8 * (x[:, 0] - 4) ** 2, -8 * (x[:, 0] + 4) ** 2), 1)
    )
    right = find_modes(density, torch.tensor([[3.9]]).double())
    assert [round(float(mode.point)) for mode in right] == [4]
    both = find_modes(density, torch.tensor([[4.1], [-4.1]]).double(), right)
    assert sorted(round(float(mode.point)) for mode in both) == [-4, 4]


def test_a_reference_of_a_prior_or_a_box_is_normalized(seeded):
    prior = torch.distributions.Gamma(torch.full((2,), 3.0).double(), torch.ones(2).double())
    for options in ({"prior": prior}, {"box": (1.0, 4.0), "constraints": [(0, None)] * 2}):
        density = LogDensity(lambda x: -x.sum(dim=1), 2, **options)
        reference = find_reference(UnconstrainedDensity(density), seeded(0))
        assert reference.sample(4000, seeded(1)).shape == (4000, 2)
        axis = torch.linspace(-8, 5, 1300, dtype=torch.float64)
        values = reference.log_prob(torch.cartesian_prod(axis, axis)).exp()
        mass = float(values.sum() * (axis[1] - axis[0]) ** 2)
        assert mass == pytest.approx(1, abs=0.02)  # of an edge on a grid


def mode_at(point, sd):
    return Mode(
        point=torch.tensor([point], dtype=torch.float64),
        log_density=0.0,
        covariance=torch.tensor([[sd**2]], dtype=torch.float64),
    )


def test_a_fitted_density_without_further_modes_is_the_reference_itself():
    fit = torch.distributions.Normal(0.0, 1.0)
    reference = reference_from_density(
        lambda y: fit.log_prob(y[:, 0]),
        lambda n, generator: torch.randn(n, 1, generator=generator, dtype=torch.float64),
        description="the fitted mixture",
    )
    assert reference.description == "the fitted mixture"
    assert reference.near_posterior
    assert float(reference.log_prob(torch.ones(1, 1))) == float(fit.log_prob(torch.ones(1)))


def test_half_of_a_fitted_reference_lies_around_modes_it_lacks(seeded):
    fit = torch.distributions.Normal(torch.zeros(1).double(), 1.0)
    reference = reference_from_density(
        lambda y: fit.log_prob(y[:, 0]),
        lambda n, generator: torch.randn(n, 1, generator=generator, dtype=torch.float64),
        description="the fitted mixture",
        modes=[mode_at(40.0, 0.5), mode_at(80.0, 0.5)],
    )
    assert reference.description == "the fitted mixture and 2 modes of the density"
    assert reference.near_posterior
    axis = torch.linspace(-20, 100, 60_001, dtype=torch.float64)[:, None]
    mass = reference.log_prob(axis).exp() * float(axis[1] - axis[0])
    assert float(mass.sum()) == pytest.approx(1, abs=1e-6)
    assert float(mass[axis[:, 0] > 20].sum()) == pytest.approx(0.5, abs=1e-6)
    draws = reference.sample(4000, seeded(0))[:, 0]
    for low, high, share in ((-20, 20, 0.5), (20, 60, 0.25), (60, 100, 0.25)):
        n_inside = int(((draws > low) & (draws < high)).sum())
        assert stats.binomtest(n_inside, 4000, share).pvalue > 1e-4


@pytest.mark.parametrize("power", [1, 3, 60])
def test_a_reference_of_any_tail_is_tempered_to_a_product_of_cauchys(power, seeded):
    """Draws of a fitted heavy tail may be so large that their squares overflow."""
    exponential = torch.distributions.Exponential(torch.ones((), dtype=torch.float64))

    def log_prob(y):  # log(1 + |y|) / power is exponential, on either side
        logarithm = y.abs().log1p()
        each = exponential.log_prob(logarithm / power) - math.log(2 * power) - logarithm
        return each.sum(dim=1)

    def sample(n, generator):
        uniform = torch.rand(n, 5, generator=generator, dtype=torch.float64).clamp(min=1e-300)
        sign = 2 * torch.randint(2, (n, 5), generator=generator) - 1
        return sign * torch.expm1(-power * uniform.log())

    if power == 60:
        assert float(sample(4000, seeded(0)).abs().max()) > 1e160
    density = UnconstrainedDensity(LogDensity(lambda x: -x.square().log1p().sum(dim=1), 5))
    reference = reference_from_density(log_prob, sample, description="the fitted mixture")
    run = temper(reference, density, n_particles=2000, n_draws=2000, generator=seeded(0))
    assert run.stopped_by is None
    assert bool(run.y.isfinite().all())
    if power < 60:
        assert run.log_z == pytest.approx(5 * math.log(math.pi), abs=5 * run.log_z_se)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_density_without_gradients_that_is_zero_in_half_of_space_warns_of_nothing(seed):
    """Differences of −∞ leaked numpy's warnings, which the suite takes for errors."""

    def half_normal(x):
        x = np.asarray(x)
        return np.where(x[:, 0] > 0, -0.5 * np.square(x).sum(axis=1), -np.inf)

    density = UnconstrainedDensity(LogDensity(half_normal, 2))
    reference = find_reference(density, torch.Generator().manual_seed(seed))
    assert bool(reference.log_prob(torch.ones(1, 2).double()).isfinite().all())


def funnel_of_heavy_tails(x):
    """Where x₂ = x₃ = 0 it rises without end as x₁ falls, to 0 · exp(855) = NaN."""
    squares = (x[:, 1:].square() * torch.exp(-x[:, :1])).sum(dim=1)
    return -3 * torch.log1p(x[:, 0].square() / 5) - 0.5 * squares - x[:, 0]


def test_a_search_goes_uphill_to_where_exponentials_overflow(seeded):
    density = UnconstrainedDensity(LogDensity(funnel_of_heavy_tails, 3))
    reference = find_reference(density, seeded(0))
    assert bool(reference.log_prob(torch.zeros(1, 3).double()).isfinite())


def test_a_nan_within_the_reach_of_exponentials_is_an_error(seeded):
    """Uphill at 300, where no start is: what a search meets there counts."""
    density = UnconstrainedDensity(
        LogDensity(lambda x: torch.where(x[:, 0] > 300, math.nan, x[:, 0]), 1)
    )
    with pytest.raises(InputError, match="the log density is nan at x1 = 3"):
        find_reference(density, seeded(0))
