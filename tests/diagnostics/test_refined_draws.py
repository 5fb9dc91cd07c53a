"""Chains from a mixture's draws are exact where the mixture is not."""

from __future__ import annotations

import pytest
import torch

import amfvi
from amfvi.errors import UsageError
from amfvi.experts import GMM, MAF
from amfvi.mixture import Mixture
from amfvi.posterior import Posterior
from amfvi.sampler.latent_walk import LatentChains

pytestmark = pytest.mark.usefixtures("global_state_untouched")


def seeded(number):
    return torch.Generator().manual_seed(number)


def banana(x):
    """x₁ ~ N(0, 1), x₂ | x₁ ~ N(x₁², .3²)."""
    return -0.5 * (x[:, 0].square() + ((x[:, 1] - x[:, 0].square()) / 0.3).square())


def normals(n, scale, seed=0):
    return scale * torch.randn(n, 2, generator=seeded(seed), dtype=torch.float64)


def as_posterior(expert, density):
    return Posterior.from_mixture(Mixture({"only": expert}, [1.0]), log_density=density)


DIFFERENTIABLE = amfvi.LogDensity(banana, 2)
OPAQUE = amfvi.LogDensity(lambda x: banana(torch.from_numpy(x)).numpy(), 2)


@pytest.mark.parametrize(
    ("density", "steps"),
    [(DIFFERENTIABLE, 250), pytest.param(OPAQUE, 1200, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_moments_are_right_from_a_mixture_that_is_not(density, steps, seed):
    z = normals(2000, 1.0)
    short = torch.stack([0.8 * z[:, 0], (0.8 * z[:, 0]).square() + 0.4 * z[:, 1]], dim=1)
    posterior = as_posterior(MAF(max_steps=400).fit(short, folds=2), density)
    plain = posterior.sample((20_000,), seeded(seed))
    assert float(plain[:, 1].std()) < 0.8 * 2.09**0.5
    refined = posterior.refine(steps=steps, seed=seed)
    x = refined.flat
    assert refined.x.shape == (64, steps - steps // 4, 2)
    assert float(x[:, 0].mean()) == pytest.approx(0.0, abs=0.08)
    assert float(x[:, 1].mean()) == pytest.approx(1.0, abs=0.1)
    assert float(x[:, 0].std()) == pytest.approx(1.0, rel=0.05)
    assert float(x[:, 1].std()) == pytest.approx(2.09**0.5, rel=0.08)
    assert 0 < refined.independence_acceptance < 1
    assert 0 < refined.local_acceptance < 1
    assert refined.ess.min() > 500
    assert refined.rhat.max() < 1.02
    assert refined.n_evaluations > 64 * steps


def two_modes(x):
    """.8 N((−4, 0), 1) + .2 N((4, 0), 1)."""
    centers = torch.tensor([[-4.0, 0.0], [4.0, 0.0]], dtype=x.dtype)
    squared = (x[:, None] - centers).square().sum(dim=2)
    return torch.logsumexp(-0.5 * squared + torch.tensor([0.8, 0.2]).log(), dim=1)


def half_and_half():
    side = torch.where(torch.rand(2000, generator=seeded(5)) < 0.5, -4.0, 4.0)
    draws = normals(2000, 1.0, seed=1)
    draws[:, 0] += side
    return GMM(max_components=2).fit(draws)


def share_right(refined):
    return float((refined.flat[:, 0] > 0).double().mean())


def test_the_shares_of_modes_are_those_of_the_posterior():
    posterior = as_posterior(half_and_half(), amfvi.LogDensity(two_modes, 2))
    refined = posterior.refine(steps=200, seed=0)
    assert share_right(refined) == pytest.approx(0.2, abs=0.03)
    assert float((posterior.sample((5000,), seeded(0))[:, 0] > 0).double().mean()) > 0.45


def test_a_step_that_forgets_the_proposal_is_caught(monkeypatch):
    """Planted: independence steps accepted by the density alone, not by its ratio to q."""
    right = LatentChains.accept

    def wrong(state, proposed, log_ratio, generator):
        return right(state, proposed, (proposed.log_p - state.log_p).sign() + 1, generator)

    posterior = as_posterior(half_and_half(), amfvi.LogDensity(two_modes, 2))
    monkeypatch.setattr(LatentChains, "accept", staticmethod(wrong))
    assert abs(share_right(posterior.refine(steps=200, seed=0)) - 0.2) > 0.03


@pytest.mark.slow
def test_constraints_hold_and_seeds_repeat():
    from torch.distributions import constraints

    gamma = amfvi.LogDensity(
        lambda x: 2 * x[:, 0].log() - x[:, 0], 1, names=["rate"],
        constraints={"rate": constraints.positive},
    )  # fmt: skip
    posterior = amfvi.fit(gamma, experts="gmm", folds=2, n_draws=1000)
    first, again = (posterior.refine(steps=100, seed=3) for _ in range(2))
    assert torch.equal(first.x, again.x)
    assert bool((first.x > 0).all())
    assert float(first.flat.mean()) == pytest.approx(3.0, abs=0.15)


def test_what_cannot_be_refined():
    draws = normals(500, 1.0)
    with pytest.raises(UsageError, match="with_log_density"):
        amfvi.fit(draws, experts="gmm").refine()
    posterior = as_posterior(MAF(layers=1, max_steps=25).fit(draws, folds=1), DIFFERENTIABLE)
    with pytest.raises(UsageError, match="at least 40 steps"):
        posterior.refine(steps=10)
    with pytest.raises(UsageError, match="has 1 parameters, the posterior 2"):
        posterior.refine(amfvi.LogDensity(lambda x: -(x**2).sum(dim=1), 1))
