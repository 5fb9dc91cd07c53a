"""The defensive component: it bounds importance weights, and changes nothing else."""

from __future__ import annotations

import math

import pytest
import torch

import amfvi
from amfvi.constraints.constraints import Constraints
from amfvi.constraints.transform import UnconstrainingTransform
from amfvi.density.budget import Budget
from amfvi.density.log_density import LogDensity
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.diagnostics import defensive
from amfvi.diagnostics.defensive import (
    DEFENSIVE,
    defensive_only,
    ensure_reliable_weights,
    fit_defensive_component,
    with_defensive_component,
    with_heavy_tails,
)
from amfvi.diagnostics.thresholds import MAX_DEFENSIVE_FREEDOM
from amfvi.experts import GMM, Folds
from amfvi.mixture import Mixture
from amfvi.posterior import Posterior
from amfvi.targets import get

CHANGED = ("_experts", "_weights")
"""The parts of a mixture that a defensive component, or a device, may change."""


@pytest.mark.filterwarnings("ignore:column .* has heavy tails")
def test_a_defensive_component_bounds_the_weights_of_light_tails():
    """A Gaussian in place of a Student-t, with a Student-t of weight .05 beside it."""
    student = get("student_t")
    generator = torch.Generator().manual_seed(0)
    draws = student.sample(4000, generator)
    light = amfvi.fit(draws, experts=[GMM(max_components=1)], folds=2, seed=0)
    fitted = fit_defensive_component(light.summary.split.folds, seed=0, device=light.device)
    component = with_heavy_tails(fitted, MAX_DEFENSIVE_FREEDOM)
    defended = with_defensive_component(light, component, 0.05)
    x = student.sample(50_000, generator)
    largest = [float((student.log_prob(x) - q.log_prob(x)).max()) for q in (light, defended)]
    assert largest[0] > 20
    assert largest[1] < 5
    assert list(defended.experts) == ["gmm", DEFENSIVE]
    assert defended.weights.tolist() == pytest.approx([0.95, 0.05])
    alone = defensive_only(light, component)
    expected = torch.logaddexp(
        math.log(0.95) + light.log_prob(x), math.log(0.05) + alone.log_prob(x)
    )
    assert torch.allclose(defended.log_prob(x), expected)


@pytest.fixture
def posterior(fitted):
    """A posterior of which every field differs from its default."""
    experts = {kind: fitted(kind, 2)[0] for kind in ("gmm", "tmm")}
    constraints = Constraints((0.0, -math.inf), (math.inf, math.inf))
    mixture = Mixture(
        experts, [0.4, 0.6], transform=UnconstrainingTransform(constraints, (2.0, math.inf)),
        names=("tau", "mu"), scale=[1.5, 2.0],
    )  # fmt: skip
    fit = amfvi.fit("bimodal", experts=["gmm"], n_draws=200)
    density = LogDensity(lambda x: -x.sum(dim=1), 2)
    return Posterior.from_mixture(
        mixture, summary=fit.summary, diagnostics=object(), log_density=density
    )


@pytest.mark.parametrize("copy", ["to a device", "with a component", "the component alone"])
def test_a_copy_of_a_mixture_keeps_every_field(posterior, copy):
    """Copies were built by hand, field by field, and names and scale were left out."""
    component = posterior.experts["tmm"]
    other = {
        "to a device": lambda: posterior.to("cpu"),
        "with a component": lambda: with_defensive_component(posterior, component, 0.1),
        "the component alone": lambda: defensive_only(posterior, component),
    }[copy]()
    assert type(other) is Posterior
    assert vars(other).keys() == vars(posterior).keys()
    for field, value in vars(posterior).items():
        assert field in CHANGED or getattr(other, field) is value, field
    assert other.names == ("tau", "mu")
    assert other.scale.tolist() == [1.5, 2.0]
    assert other.constraints == posterior.constraints
    assert other.transform == posterior.transform
    assert other.summary is posterior.summary
    assert other.diagnostics is posterior.diagnostics
    assert other.log_density is posterior.log_density
    assert posterior.weights.tolist() == [0.4, 0.6]  # the original is as it was
    assert list(posterior.experts) == ["gmm", "tmm"]


@pytest.fixture(scope="module")
def light_tails():
    """A Student-t density with five degrees of freedom, and a Gaussian fit of it."""
    density = LogDensity(lambda x: -3.5 * torch.log1p(x.square().sum(dim=1) / 5), 2)
    generator = torch.Generator().manual_seed(0)
    normals = torch.randn(3000, 2, generator=generator).double()
    chi2 = torch.randn(3000, 5, generator=generator).double().square().sum(dim=1, keepdim=True)
    draws = normals * (5 / chi2).sqrt()
    return density, amfvi.fit(draws, experts=[GMM(max_components=1)], folds=2, seed=0)


def test_unreliable_weights_are_made_reliable(light_tails, weighted):
    density, mixture = light_tails
    before = weighted(mixture, density, 5000)
    assert not before.reliable
    defended, after = ensure_reliable_weights(
        mixture, before, UnconstrainedDensity(density), mixture.summary.split, seed=0
    )
    assert DEFENSIVE in defended.experts
    assert after.reliable
    expected = math.log(2 * math.pi)
    assert abs(after.importance.log_z.mean - expected) < 4 * after.importance.log_z.se


def test_without_evaluations_weights_stay_as_they_are(light_tails, weighted):
    density, mixture = light_tails
    before = weighted(mixture, density, 5000)
    limited = UnconstrainedDensity(density, budget=Budget(max_evaluations=10))
    same, unchanged = ensure_reliable_weights(
        mixture, before, limited, mixture.summary.split, seed=0
    )
    assert same is mixture
    assert unchanged is before


@pytest.mark.parametrize("seed", [0, 1])
def test_a_component_without_a_variance_is_a_last_resort_where_tails_are_light(seed):
    """Of one degree of freedom a few plain draws ruin every mean and standard deviation."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(600, 2, generator=generator, dtype=torch.float64)
    cauchy = normal / torch.randn(600, 1, generator=generator, dtype=torch.float64).abs()
    fold = torch.arange(600) % 2
    light, heavy = (
        fit_defensive_component(Folds(draws, fold), seed=seed) for draws in (normal, cauchy)
    )
    assert min(defensive._choose_freedoms(light, is_last_resort=False)) > 2
    assert min(defensive._choose_freedoms(light, is_last_resort=True)) == 1
    assert min(defensive._choose_freedoms(heavy, is_last_resort=False)) == 1
