"""Chains in latent space leave the posterior alone, whatever the flow was fitted to."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from scipy import stats
from torch.distributions import constraints

from amfvi.density.budget import Budget, OutOfBudgetError
from amfvi.density.log_density import LogDensity
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.experts import MAF
from amfvi.sampler.latent_walk import LEAPFROG_STEPS, walk_in_latent_space

pytestmark = pytest.mark.usefixtures("global_state_untouched")

CHAINS = 1_500
"""Independent chains: their last states are as many independent draws, if all is right."""

MOVES = {True: 10, False: 25}
"""Moves of each chain, with and without gradients."""

SMALL = MAF(layers=2, hidden_features=8, max_steps=200)


def to_banana(z):
    """From standard normals (n, 2) to a banana."""
    return torch.stack([z[:, 0], 0.5 * (z[:, 0] ** 2 - 1) + 0.5 * z[:, 1]], dim=1)


def from_banana(y):
    return torch.stack([y[:, 0], 2 * (y[:, 1] - 0.5 * (y[:, 0] ** 2 - 1))], dim=1)


# Standard normals to draws, and back; both maps have a constant Jacobian.
TARGETS = {"normal": (lambda z: z + 1, lambda y: y - 1), "banana": (to_banana, from_banana)}
FITTED_TO = {"its draws": 1.0, "narrow draws": 0.6}


@cache
def flow_of(name, spread):
    z = spread * torch.randn(1500, 2, generator=torch.Generator().manual_seed(3)).double()
    return SMALL.fit(TARGETS[name][0](z), folds=2)


def density_of(name, gradients=True, **options):
    def log_density(x):
        return -0.5 * TARGETS[name][1](torch.as_tensor(x)).square().sum(dim=1)

    function = log_density if gradients else lambda x: log_density(x).numpy()
    return UnconstrainedDensity(LogDensity(function, 2), **options)


def normals(seed, n=CHAINS):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed)).double()


def walk_from_exact_draws(name, fitted_to, gradients, seed, seeded):
    """Where chains from exact draws end, as standard normals, and where they began."""
    density, flow = density_of(name, gradients), flow_of(name, FITTED_TO[fitted_to])
    z = normals(seed)
    n = CHAINS * MOVES[gradients] * (LEAPFROG_STEPS if gradients else 1)
    walk = walk_in_latent_space(density, flow, TARGETS[name][0](z), n, seeded(seed + 10))
    return TARGETS[name][1](walk.last), z


def smallest_p_value(z):
    """Of standard normals (n, 2), each and by their distance from zero."""
    p_values = [stats.kstest(column.numpy(), "norm").pvalue for column in z.T]
    radius = stats.kstest(z.square().sum(dim=1).numpy(), stats.chi2(2).cdf).pvalue
    return min(*p_values, radius)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]
)
@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("fitted_to", FITTED_TO)
@pytest.mark.parametrize("name", TARGETS)
def test_chains_leave_the_posterior_alone_and_forget_their_start(
    name, fitted_to, gradients, seed, seeded
):
    last, start = walk_from_exact_draws(name, fitted_to, gradients, seed, seeded)
    assert smallest_p_value(last) > 1e-4
    assert float(last.mean(dim=0).abs().max()) < 4 / math.sqrt(CHAINS)
    assert float((last.std(dim=0) - 1).abs().max()) < 4 / math.sqrt(2 * CHAINS)
    for before, after in zip(start.T, last.T, strict=True):
        assert abs(float(torch.corrcoef(torch.stack([before, after]))[0, 1])) < 0.1


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("fitted_to", FITTED_TO)
def test_a_jacobian_of_the_wrong_sign_is_noticed(fitted_to, gradients, seeded, monkeypatch):
    """So that the test above can fail. Measured: below 1e-11."""
    family = type(flow_of("banana", FITTED_TO[fitted_to]))
    right = family.inverse
    monkeypatch.setattr(family, "inverse", lambda flow, u: (right(flow, u)[0], -right(flow, u)[1]))
    last, _ = walk_from_exact_draws("banana", fitted_to, gradients, 0, seeded)
    assert smallest_p_value(last) < 1e-8


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("gradients", [True, False])
def test_chains_from_the_middle_of_a_banana_reach_its_ends(gradients, seed, seeded):
    """With the flow of those draws: sd .54 and .64 before, measured .99 to 1.05 after."""
    start = to_banana(0.6 * normals(seed, 128))
    density = density_of("banana", gradients)
    walk = walk_in_latent_space(density, flow_of("banana", 0.6), start, 10_000, seeded(seed))
    assert float(start[:, 0].std()) < 0.7
    assert 0.85 < float(walk.y[:, 0].std()) < 1.15


@pytest.mark.parametrize("gradients", [True, False])
def test_states_come_with_their_log_density_and_the_last_quarter_of_the_budget(gradients, seeded):
    density, flow = density_of("banana", gradients), flow_of("banana", 1.0)
    walk = walk_in_latent_space(density, flow, to_banana(normals(0, 100)), 8000, seeded(0))
    moves = 8000 // 100 // (LEAPFROG_STEPS if gradients else 1)
    assert density.budget.spent == 8000 + 100
    assert walk.y.shape == (100 * (moves - moves // 4), 2)
    assert torch.equal(walk.last, walk.y[-100:])
    assert torch.allclose(walk.log_p, density.log_prob(walk.y))


def test_the_limit_of_evaluations_is_kept(seeded):
    density = density_of("banana", budget=Budget(max_evaluations=1000))
    with pytest.raises(OutOfBudgetError):
        walk_in_latent_space(
            density, flow_of("banana", 1.0), to_banana(normals(0, 100)), 8000, seeded(0)
        )
    assert density.budget.spent <= 1000


@pytest.mark.parametrize("gradients", [True, False])
def test_constraints_are_kept(gradients, seeded):
    """Gamma(3, 1) beside a Beta(2, 2): in their own parameters, chains are no different."""

    def log_density(x):
        x = torch.as_tensor(x)
        return 2 * x[:, 0].log() - x[:, 0] + x[:, 1].log() + torch.log1p(-x[:, 1])

    density = UnconstrainedDensity(
        LogDensity(
            log_density if gradients else lambda x: log_density(x).numpy(), 2,
            constraints=[constraints.positive, constraints.unit_interval],
        )
    )  # fmt: skip
    gamma, beta = stats.gamma(3), stats.beta(2, 2)
    u = torch.rand(CHAINS, 2, generator=seeded(0)).double().clamp(1e-9, 1 - 1e-9).numpy()
    x = torch.stack([torch.from_numpy(gamma.ppf(u[:, 0])), torch.from_numpy(beta.ppf(u[:, 1]))], 1)
    start = density.transform.to_unconstrained(x)[0]
    flow = SMALL.fit(start, folds=2)
    n = CHAINS * MOVES[gradients] * (LEAPFROG_STEPS if gradients else 1)
    walk = walk_in_latent_space(density, flow, start, n, seeded(1))
    last = density.transform.from_unconstrained(walk.last)
    assert stats.kstest(last[:, 0].numpy(), gamma.cdf).pvalue > 1e-4
    assert stats.kstest(last[:, 1].numpy(), beta.cdf).pvalue > 1e-4


@pytest.mark.parametrize("gradients", [True, False])
def test_a_wall_is_not_crossed_and_bends_nothing(gradients, seeded):
    """A normal cut at x₁ < .5: beyond it the density is zero."""

    def log_density(x):
        x = torch.as_tensor(x)
        return torch.where(x[:, 0] < 0.5, -0.5 * x.square().sum(dim=1), -math.inf)

    density = UnconstrainedDensity(
        LogDensity(log_density if gradients else lambda x: log_density(x).numpy(), 2)
    )
    cut = stats.truncnorm(-math.inf, 0.5)
    start = normals(0)
    start[:, 0] = torch.from_numpy(cut.ppf(torch.rand(CHAINS, generator=seeded(0)).numpy()))
    n = CHAINS * MOVES[gradients] * (LEAPFROG_STEPS if gradients else 1)
    walk = walk_in_latent_space(density, flow_of("normal", 1.0), start, n, seeded(1))
    assert float(walk.y[:, 0].max()) < 0.5
    assert bool(walk.log_p.isfinite().all())
    assert stats.kstest(walk.last[:, 0].numpy(), cut.cdf).pvalue > 1e-4
    assert stats.kstest(walk.last[:, 1].numpy(), "norm").pvalue > 1e-4


@pytest.mark.parametrize("gradients", [True, False])
def test_a_density_that_fails_far_out_does_no_harm(gradients, seeded):
    """Squares of a Cauchy variable overflow, where its density is then NaN or infinite."""

    def log_density(x):
        x = torch.as_tensor(x)
        square = x.square()
        return -(square - square + torch.log1p(square)).sum(dim=1)

    density = UnconstrainedDensity(
        LogDensity(log_density if gradients else lambda x: log_density(x).numpy(), 2)
    )
    cauchy = torch.tan(math.pi * (torch.rand(CHAINS, 2, generator=seeded(0)).double() - 0.5))
    flow = SMALL.fit(cauchy.clamp(-30, 30), folds=2)
    cauchy[:3] = torch.tensor([[1e90, 0.0], [-1e120, 1e160], [1e200, -1e200]]).double()
    n = CHAINS * MOVES[gradients] * (LEAPFROG_STEPS if gradients else 1)
    walk = walk_in_latent_space(density, flow, cauchy, n, seeded(1))
    assert bool(walk.y.isfinite().all())
    assert not bool(walk.log_p.isnan().any())
    for column in walk.last.T:
        assert stats.kstest(column.numpy(), "cauchy").pvalue > 1e-4


def test_the_same_generator_gives_the_same_walk(seeded):
    first, second = (
        walk_in_latent_space(
            density_of("banana"), flow_of("banana", 1.0), to_banana(normals(0, 50)), 2000, seeded(5)
        )
        for _ in range(2)
    )
    assert torch.equal(first.y, second.y)
