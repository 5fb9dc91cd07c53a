"""Chains leave a mixture that was cut, and stay with one that is right."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from torch.distributions import constraints

import amfvi
from amfvi.density.budget import Budget, OutOfBudgetError
from amfvi.density.log_density import LogDensity
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.diagnostics import departure
from amfvi.diagnostics.comparison import importance_sample
from amfvi.diagnostics.departure import Departure, measure_departure
from amfvi.experts import GMM, MAF
from amfvi.mixture import Mixture
from amfvi.sampler.latent_walk import LatentWalk
from amfvi.statistics import resample
from amfvi.targets import get
from amfvi.transport import choose_flow

pytestmark = [
    pytest.mark.usefixtures("global_state_untouched"),
    pytest.mark.filterwarnings("ignore:column .* has heavy tails"),
]

SEEDS = [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3, 4))]


def seeded(number):
    return torch.Generator().manual_seed(number)


def normals(n, dim, seed):
    return torch.randn(n, dim, generator=seeded(seed), dtype=torch.float64)


class Normal:
    dim, constraints = 2, None

    def log_density(self, x):
        return -0.5 * x.square().sum(dim=1)

    def sample(self, n, seed):
        return normals(n, 2, seed)


class Banana:
    """z₁ ~ N(0, 2²), z₂ | z₁ ~ N(z₁²/2 − 2, .4²)."""

    dim, constraints = 2, None

    def log_density(self, x):
        noise = (x[:, 1] - 0.5 * x[:, 0] ** 2 + 2) / 0.4
        return -0.5 * ((x[:, 0] / 2).square() + noise.square())

    def sample(self, n, seed):
        z = normals(n, 2, seed)
        return torch.stack([2 * z[:, 0], 2 * z[:, 0].square() - 2 + 0.4 * z[:, 1]], dim=1)


class Cubic:
    """The same in three dimensions, bent as a cubic."""

    dim, constraints = 3, None

    def bend(self, z1):
        return 0.15 * (z1**3 - 12 * z1)

    def log_density(self, x):
        noise = (x[:, 1] - self.bend(x[:, 0])) / 0.3
        return -0.5 * ((x[:, 0] / 2).square() + noise.square() + x[:, 2].square())

    def sample(self, n, seed):
        z = normals(n, 3, seed)
        z[:, 0] *= 2
        z[:, 1] = self.bend(z[:, 0]) + 0.3 * z[:, 1]
        return z


class Bimodal:
    dim, constraints = 2, None

    def log_density(self, x):
        return get("bimodal").log_density(x)

    def sample(self, n, seed):
        return get("bimodal").sample(n, seeded(seed))


class Positive:
    """Gamma(3, 1), positive, beside a normal."""

    dim = 2
    constraints = (constraints.positive, None)

    def log_density(self, x):
        return 2 * x[:, 0].log() - x[:, 0] - 0.5 * x[:, 1].square()

    def sample(self, n, seed):
        shape = torch.full((n, 1), 3.0, dtype=torch.float64)
        gamma = torch._standard_gamma(shape, generator=seeded(seed))
        return torch.cat([gamma, normals(n, 1, seed)], dim=1)


TARGETS = {kind.__name__.lower(): kind() for kind in (Normal, Banana, Cubic, Bimodal, Positive)}


def density_of(target, *, gradients=True, **options):
    def without_gradients(x):
        return target.log_density(torch.as_tensor(x)).numpy()

    function = target.log_density if gradients else without_gradients
    log_density = LogDensity(function, target.dim, constraints=target.constraints)
    return UnconstrainedDensity(log_density, **options)


def mixture_of(draws, target, config=None):
    """An expert fitted to draws, in the parameters of the target."""
    return amfvi.fit(
        draws, experts=[config or GMM(max_components=24)], folds=2, seed=0,
        constraints=None if target.constraints is None else {"x1": constraints.positive},
    )  # fmt: skip


@cache
def cached_mixture(name, seed, part="all", kind="gmm"):
    target = TARGETS[name]
    draws = target.sample(8000, seed)
    kept = {
        "all": torch.ones(len(draws), dtype=torch.bool),
        "middle": draws[:, 0].abs() < (3 if name == "positive" else 2),
        "one mode": draws[:, 0] > 0,
    }[part]
    maf = MAF(layers=3, hidden_features=16, max_steps=400)
    return mixture_of(draws[kept], target, maf if kind == "maf" else None)


def depart(mixture, target, seed, **options):
    density = density_of(target, **options)
    weighted = importance_sample(mixture, density, 5000, seeded(seed))
    return measure_departure(mixture, density, weighted, seeded(seed + 1))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("name", TARGETS)
def test_a_right_mixture_is_not_left(name, gradients, seed):
    """Measured: an excess of .05 at most in size, with a standard error of .05 at most."""
    found = depart(cached_mixture(name, seed), TARGETS[name], seed, gradients=gradients)
    assert not found.leaves, found
    assert abs(found.excess) < 0.12
    assert found.lacking < 0.01


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("name", ["banana", "cubic", "positive"])
def test_a_mixture_that_was_cut_at_the_ends_is_left(name, gradients, seed):
    """Fitted to the draws within one standard deviation. Measured: 3.1% beyond it and more."""
    found = depart(cached_mixture(name, seed, "middle"), TARGETS[name], seed, gradients=gradients)
    assert found.leaves, found
    assert found.lacking > 0.02


def require_first_member(chosen, expert):
    x = torch.randn(20, 2, generator=seeded(0)).double()
    of_all = expert.forward(x.expand(expert.n_members, -1, -1))[0]
    assert torch.allclose(chosen.forward(x[None])[0], of_all[:1], atol=1e-12)


@pytest.mark.parametrize("part", ["all", "middle"])
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_by_the_map_of_a_flow_it_is_no_different(part, seed):
    mixture = cached_mixture("banana", seed, part, "maf")
    require_first_member(choose_flow(mixture, torch.zeros(1, 2)), mixture.experts["maf"])
    found = depart(mixture, TARGETS["banana"], seed)
    assert found.leaves == (part == "middle"), found


@pytest.mark.parametrize("seed", SEEDS)
def test_a_far_mode_that_the_mixture_lacks_cannot_be_told(seed):
    """Chains do not cross where there is no density: other searches are for that."""
    found = depart(cached_mixture("bimodal", seed, "one mode"), TARGETS["bimodal"], seed)
    assert not found.leaves, found


def test_the_measure_does_not_depend_on_the_constant_of_the_density():
    target = TARGETS["banana"]
    mixture = cached_mixture("banana", 0, "middle")
    shifted = Banana()
    shifted.log_density = lambda x: target.log_density(x) - 1234.5
    first, second = (depart(mixture, density, 0) for density in (target, shifted))
    assert second.excess == pytest.approx(first.excess, abs=1e-6)
    assert second.lacking == pytest.approx(first.lacking, abs=1e-9)


def test_evaluations_are_few_and_their_limit_is_kept():
    target, mixture = TARGETS["banana"], cached_mixture("banana", 0)
    density = density_of(target)
    weighted = importance_sample(mixture, density, 5000, seeded(0))
    before = density.budget.spent
    measure_departure(mixture, density, weighted, seeded(1))
    assert density.budget.spent - before < 5000
    limited = density_of(target, budget=Budget(max_evaluations=1000))
    with pytest.raises(OutOfBudgetError):
        measure_departure(mixture, limited, weighted, seeded(1))


@pytest.fixture
def walk_to(monkeypatch):
    """walk_to(y, log_p): what the chains of the next measure are said to have visited."""

    def plant(y, log_p):
        walk = LatentWalk(y=y, log_p=log_p, last=y[-departure.N_CHAINS :])
        monkeypatch.setattr(departure, "walk_in_latent_space", lambda *_: walk)

    return plant


def test_excess_and_lacking_by_hand(walk_to):
    """A tenth of the states 5 nats denser than the mixture says, all others as it says."""
    target, mixture = TARGETS["normal"], cached_mixture("normal", 0)
    density = density_of(target)
    weighted = importance_sample(mixture, density, 5000, seeded(0))
    y = mixture.sample((10 * departure.N_CHAINS,), seeded(1))
    log_p = mixture.log_prob(y) + weighted.importance.log_z.mean
    log_p[: departure.N_CHAINS] += 5.0
    walk_to(y, log_p)
    found = measure_departure(mixture, density, weighted, seeded(1))
    expected = (weighted.weights * weighted.smoothed_log_weights).sum()
    assert found.excess == pytest.approx(0.5 - float(expected), abs=1e-9)
    assert found.lacking == pytest.approx(0.1, abs=1e-9)
    assert found.excess_se == pytest.approx(0.0, abs=1e-9)  # each chain found the same
    assert found.leaves


@pytest.mark.parametrize("zero", [-math.inf, math.nan])
def test_a_chain_where_the_density_is_zero_hides_no_other(zero, walk_to):
    """All states but one are one nat denser than the mixture says."""
    target, mixture = TARGETS["normal"], cached_mixture("normal", 0)
    density = density_of(target)
    weighted = importance_sample(mixture, density, 5000, seeded(0))
    y = mixture.sample((3 * departure.N_CHAINS,), seeded(1))
    log_p = mixture.log_prob(y) + weighted.importance.log_z.mean + 1.0
    log_p[7] = zero
    walk_to(y, log_p)
    assert measure_departure(mixture, density, weighted, seeded(1)).leaves


@pytest.mark.parametrize(
    ("excess", "se", "lacking", "leaves"),
    [
        (0.3, 0.05, 0.0, True), (0.3, 0.2, 0.0, False), (0.04, 0.001, 0.0, False),
        (-0.3, 0.05, 0.0, False), (0.0, 0.05, 0.03, True), (0.0, 0.05, 0.015, False),
    ],
)  # fmt: skip
def test_what_counts_as_leaving(excess, se, lacking, leaves):
    assert Departure(excess=excess, excess_se=se, lacking=lacking).leaves == leaves


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rows_are_chosen_by_weight_with_as_few_repeats_as_there_can_be(seed):
    mixture = cached_mixture("banana", 0, "middle")
    weighted = importance_sample(mixture, density_of(TARGETS["banana"]), 500, seeded(seed))
    rows = resample(weighted.weights, 2000, seeded(seed))
    counts = torch.bincount(rows, minlength=500).double()
    assert float((counts - 2000 * weighted.weights).abs().max()) <= 1 + 1e-9
    assert not torch.equal(rows, rows.sort().values)
    assert int(rows.max()) < 500


def test_a_mixture_without_a_flow_is_left_along_straight_lines():
    """Then the map is linear: a flow of little weight is not used either."""
    draws = normals(2000, 2, 0) @ torch.tensor([[2.0, 0.0], [1.0, 0.5]]).double() + 3
    gmm, maf = GMM(max_components=1).fit(draws), MAF(layers=1, max_steps=25).fit(draws, folds=2)
    for mixture in (
        Mixture({"gmm": gmm}, [1.0]), Mixture({"gmm": gmm, "maf": maf}, [0.99, 0.01]),
    ):  # fmt: skip
        flow = choose_flow(mixture, draws)
        u, log_det = flow.forward(draws[None])
        assert float(log_det.std()) < 1e-9
        assert float(u[0].mean(dim=0).abs().max()) < 1e-9
        assert torch.allclose(u[0].T.cov(), torch.eye(2).double(), atol=1e-3)
    require_first_member(choose_flow(Mixture({"gmm": gmm, "maf": maf}, [0.8, 0.2]), draws), maf)
