"""Densities that cannot be integrated are refused; hard ones that can are not."""

from __future__ import annotations

import math

import pytest
import torch

from amfvi.density.budget import Budget
from amfvi.density.log_density import LogDensity
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.sampler.integrability import NotIntegrableError, require_decay
from amfvi.sampler.runs import sample_posterior
from amfvi.targets import get

pytestmark = pytest.mark.usefixtures("global_state_untouched")


def one_grows(growth):
    """Only the first parameter's density grows; the others are standard normal."""
    return lambda x: growth(x[:, 0]) - 0.5 * x[:, 1:].square().sum(dim=1)


IMPROPER = {
    "forgotten minus": (lambda x: 0.5 * x.square().sum(dim=1), 1, {}),
    "forgotten minus, d = 10": (lambda x: 0.5 * x.square().sum(dim=1), 10, {}),
    "forgotten minus, in a box": (lambda x: 0.5 * x.square().sum(dim=1), 2, {"box": (-1, 1)}),
    "forgotten minus, without gradients": (
        lambda x: 0.5 * (torch.as_tensor(x) ** 2).sum(dim=1).numpy(), 2, {},
    ),
    "wide": (lambda x: 0.5 * (x / 100).square().sum(dim=1), 2, {}),
    "narrow": (lambda x: 0.5 * (x * 1000).square().sum(dim=1), 2, {}),
    "five squares": (lambda x: 5 * x.square().sum(dim=1), 1, {}),
    "absolute value": (lambda x: x.abs().sum(dim=1), 1, {}),
    "logarithm": (lambda x: x.abs().log1p().sum(dim=1), 1, {}),
    "a banana upside down": (lambda x: -get("banana").log_density(x), 2, {}),
    "a gamma upside down": (lambda x: x[:, 0] - x[:, 0].log(), 1, {"constraints": [(0, None)]}),
    "one exponential of three": (one_grows(torch.exp), 3, {}),
    "one square of three": (one_grows(lambda x: 0.5 * x.square()), 3, {}),
    "one line of three": (one_grows(lambda x: x), 3, {}),
    "one flat of three": (one_grows(lambda x: 0 * x), 3, {}),
    "flat": (lambda x: 0 * x.sum(dim=1), 1, {}),
}  # fmt: skip


SLOWER = (
    "forgotten minus, in a box", "wide", "logarithm", "five squares", "one square of three",
    "one exponential of three", "forgotten minus, d = 10", "absolute value",
)  # fmt: skip
"""Those that are left out of the fast suite, as others are of their kind."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOWER else ()) for name in IMPROPER],
)
def test_a_density_that_does_not_fall_off_is_refused_and_soon(name):
    function, dim, options = IMPROPER[name]
    density = UnconstrainedDensity(LogDensity(function, dim, **options))
    with pytest.raises(NotIntegrableError, match=r"does not fall off .* is the sign") as error:
        sample_posterior(density, 4000, seed=0)
    assert "\n" not in str(error.value)
    assert density.budget.spent < 40_000  # the original went on for ever


def named(name):
    target = get(name)
    options = {"names": target.names, "constraints": target.constraints, "box": target.box}
    return target.log_density, target.dim, options


def gaussian(dim, center=0.0, **options):
    """Scales from a thousandth to a thousand."""
    scales = torch.logspace(-3, 3, dim, dtype=torch.float64)
    return lambda x: -0.5 * ((x - center * scales) / scales).square().sum(dim=1), dim, options


def student_t(freedom, dim):
    return lambda x: -(freedom + dim) / 2 * (1 + x.square().sum(dim=1) / freedom).log(), dim, {}


HARD_TARGETS = (
    "banana", "rings", "clusters", "funnel", "student_t", "forty_modes", "many_well",
)  # fmt: skip

PROPER = {
    **{name: named(name) for name in HARD_TARGETS},
    **{f"gaussian, d = {dim}": gaussian(dim) for dim in (1, 2, 5, 20, 50)},
    "gaussian off center": gaussian(5, center=20.0),
    "gaussian of a box": gaussian(2, center=0.3, box=(-5e3, 5e3)),
    "gaussian far wider than the reference": (
        lambda x: -0.5 * (x / 1e5).square().sum(dim=1), 1, {},
    ),
    "cauchy": student_t(1.0, 1),
    "cauchy, d = 5": (lambda x: -x.square().log1p().sum(dim=1), 5, {}),
    "student t, heavier than cauchy": student_t(0.5, 1),
    "laplace": (lambda x: -x.abs().sum(dim=1), 10, {}),
    "half-cauchy": (lambda x: -x.square().log1p().sum(dim=1), 2, {"constraints": [(0, None)] * 2}),
    "gamma of small shape": (
        lambda x: (-0.99 * x.log() - 0.01 * x).sum(dim=1), 1, {"constraints": [(0, None)]},
    ),
    "beta of small shapes": (
        lambda x: -0.5 * (x.log() + (1 - x).log()).sum(dim=1), 2, {"constraints": [(0, 1)] * 2},
    ),
    "uniform with walls": (
        lambda x: torch.where(x.square().sum(dim=1) < 1, 0.0, -math.inf), 2, {"box": (-2, 2)},
    ),
}  # fmt: skip


COSTLY = (
    "rings", "forty_modes", "gaussian, d = 20", "gaussian, d = 50", "laplace", "gaussian of a box",
    "cauchy, d = 5", "student_t",
)  # fmt: skip
"""Those that are left out of the fast suite."""


@pytest.mark.parametrize("max_evaluations", [30_000, pytest.param(600_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in COSTLY else ()) for name in PROPER],
)
def test_a_hard_density_that_can_be_integrated_is_not_refused(name, max_evaluations):
    function, dim, options = PROPER[name]
    budget = Budget(max_evaluations=max_evaluations)
    density = UnconstrainedDensity(LogDensity(function, dim, **options), budget=budget)
    sample = sample_posterior(density, 2000, seed=0)
    assert bool(sample.x.isfinite().all())


def test_a_density_is_not_asked_far_out_where_it_falls_off():
    """At absurd points a sound function may take for ever, or fail."""
    farthest = [0.0]

    def function(x):
        farthest[0] = max(farthest[0], float(x.abs().max()))
        return -x.square().sum(dim=1)

    density = UnconstrainedDensity(LogDensity(function, 3))
    points = torch.eye(3, dtype=torch.float64)
    spent = density.budget.spent
    require_decay(density, points, density.log_prob(points))
    assert farthest[0] <= 4.0
    assert density.budget.spent - spent <= 3 + 2 * (2 * 3 + 1)


def test_an_error_of_a_sound_density_is_not_taken_for_growth():
    """NaN somewhere is reported as such."""
    density = LogDensity(lambda x: torch.where(x[:, 0] > 2, math.nan, -x.square().sum(dim=1)), 2)
    with pytest.raises(ValueError, match="the log density is nan at x1 = ") as error:
        sample_posterior(UnconstrainedDensity(density), 1000, seed=0)
    assert not isinstance(error.value, NotIntegrableError)


def test_a_density_may_fail_where_floating_point_numbers_do():
    """A local scale in λ² that underflows to 0 is a fault of the point, not of the density."""

    def horseshoe(x):
        coefficient, local, overall = x.T
        scale = local * overall
        prior = -0.5 * (coefficient / scale).square() - scale.log()
        tails = -local.square().log1p() - overall.square().log1p()
        return prior + tails - 0.5 * (coefficient - 1).square()

    points = torch.full((1, 3), 1e-200, dtype=torch.float64)
    assert not bool(horseshoe(0 * points).isfinite())
    constraints = {"local": (0, None), "overall": (0, None)}
    log_density = LogDensity(horseshoe, 3, names=("b", "local", "overall"), constraints=constraints)
    density = UnconstrainedDensity(log_density, budget=Budget(max_evaluations=15_000))
    with pytest.raises(ValueError, match="the log density is nan"):
        density.log_prob(torch.tensor([[0.0, -2000.0, -2000.0]], dtype=torch.float64))
    sample = sample_posterior(density, 2000, seed=0)
    assert sample.n_temperatures >= 1
    assert bool(sample.x.isfinite().all())


def test_draws_at_a_bound_are_counted():
    """p(x) ∝ 1/x near 0 has infinite mass there, of which numbers hold only a part."""
    improper = LogDensity(lambda x: -(x.log() + x).sum(dim=1), 1, constraints=[(0, None)])
    assert sample_posterior(UnconstrainedDensity(improper), 2000, seed=0).unresolved_share > 0.001
    proper = LogDensity(lambda x: -x.sum(dim=1), 1, constraints=[(0, None)])
    assert sample_posterior(UnconstrainedDensity(proper), 2000, seed=0).unresolved_share == 0


def flat_scale(x):
    """One group with a flat prior on its scale: the mass per doubling of tau is the same."""
    mu, theta, tau = x.unbind(dim=1)
    return (
        -0.5 * (mu / 3) ** 2
        - 0.5 * ((theta - mu) / tau) ** 2
        - tau.log()
        - 0.5 * (0.5 - theta) ** 2
    )


def flat_scale_marginal(x):
    """The same without theta; NaN once the square of tau overflows."""
    mu, tau = x.unbind(dim=1)
    variance = 1 + tau**2
    return -0.5 * (mu / 3) ** 2 - 0.5 * (mu - 0.5) ** 2 / variance - 0.5 * variance.log()


IMPROPER_SCALES = {
    "with nan at the end": (
        lambda x: flat_scale(x) + x[:, 2] ** 2 - x[:, 2] ** 2, 3,
    ),
    "with zero at the end": (
        lambda x: torch.where(x[:, 2] < 1e154, flat_scale(x), -math.inf), 3,
    ),
    "marginal": (flat_scale_marginal, 2),
    "marginal in single precision": (lambda x: flat_scale_marginal(x.float()), 2),
    "reciprocal": (lambda x: -0.5 * x[:, 0] ** 2 - x[:, 1].log() - (x[:, 1] < 1) * 1 / x[:, 1], 2),
}  # fmt: skip


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "with zero at the end" else pytest.mark.slow)
        for name in IMPROPER_SCALES
    ],
)
def test_a_scale_whose_mass_goes_on_to_the_end_of_the_numbers_is_refused(name, seed):
    function, dim = IMPROPER_SCALES[name]
    scale = f"x{dim}"
    density = UnconstrainedDensity(LogDensity(function, dim, constraints={scale: (0, None)}))
    with pytest.raises(NotIntegrableError, match="is every prior proper"):
        sample_posterior(density, 4000, seed=seed)


@pytest.mark.parametrize(
    "curvature", [0.01, *(pytest.param(c, marks=pytest.mark.slow) for c in (0.1, 1.0))]
)
def test_a_forgotten_minus_in_one_of_ten_is_refused_however_slow_the_growth(curvature):
    density = UnconstrainedDensity(
        LogDensity(
            lambda x: 0.5 * curvature * x[:, 0] ** 2 - 0.5 * x[:, 1:].square().sum(dim=1), 10
        )
    )
    with pytest.raises(NotIntegrableError, match="does not fall off"):
        sample_posterior(density, 4000, seed=0)
