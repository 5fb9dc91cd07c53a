"""The sampler: its draws follow the density, its evidence is right, its moves are exact."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from amfvi.experts import GMM, Folds
from amfvi.targets import get
from scipy import stats
from torch.distributions import MultivariateNormal

from amfvi import LogDensity
from amfvi.errors import InputError
from amfvi.log_density import Budget, UnconstrainedDensity
from amfvi.sampler import moves
from amfvi.sampler.checkpoint import SamplerCheckpoint
from amfvi.sampler.optima import find_optima
from amfvi.sampler.population import Bridge
from amfvi.sampler.replicas import sample_posterior
from amfvi.sampler.start import Start, start_at
from amfvi.sampler.tempering import temper

pytestmark = pytest.mark.usefixtures("global_state_untouched")


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def unconstrained(name, **options):
    target = get(name)
    density = LogDensity(
        target.log_density, target.dim, names=target.names, constraints=target.constraints,
        box=target.box,
    )  # fmt: skip
    return UnconstrainedDensity(density, **options)


def without_gradient(name):
    target = get(name)
    return UnconstrainedDensity(
        LogDensity(lambda x: target.log_density(torch.as_tensor(x)).numpy(), target.dim)
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", ["banana", "two_moons", "clusters", "linear_regression"])
def test_evidence_within_its_error(name, seed):
    density = unconstrained(name)
    found = sample_posterior(density, 4000, seed=seed)
    off = found.log_z.mean - get(name).log_z
    assert abs(off) < 5 * found.log_z.se
    assert found.log_z.se < 0.08
    assert density.budget.spent < 40_000


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", ["banana", "bimodal", "rings"])
@pytest.mark.parametrize("gradients", [True, False])
def test_draws_follow_the_density(name, seed, gradients):
    """Marginal quantiles, by Kolmogorov and Smirnov with a third of the draws as effective."""
    density = unconstrained(name) if gradients else without_gradient(name)
    assert density.differentiable == gradients
    found = sample_posterior(density, 6000, seed=seed)
    truth = get(name).sample(20_000, seeded(seed + 10))
    for column, exact in zip(found.x.T, truth.T, strict=True):
        distance = stats.ks_2samp(column.numpy(), exact.numpy()).statistic
        assert stats.kstwo.sf(distance, 1500) > 1e-4


def moved_from_exact(make, seed, beta=0.4, rounds=4):
    """Exact draws of π_β between two Gaussians, and where a move takes them."""
    start = MultivariateNormal(torch.zeros(2).double(), 4 * torch.eye(2).double())
    covariance = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    posterior = MultivariateNormal(torch.tensor([1.0, -1.0]).double(), covariance)
    precision = (1 - beta) * start.precision_matrix + beta * posterior.precision_matrix
    mean = torch.linalg.solve(precision, beta * posterior.precision_matrix @ posterior.mean)
    between = MultivariateNormal(mean, precision_matrix=precision)
    density = UnconstrainedDensity(LogDensity(posterior.log_prob, 2))
    bridge = Bridge(
        Start(start.log_prob, lambda n, g: 2 * torch.randn(n, 2, generator=g).double(), True, ""),
        density, gradients=True,
    )  # fmt: skip
    generator = seeded(seed)
    noise = torch.randn(20_000, 2, generator=generator, dtype=torch.float64)
    exact = mean + noise @ torch.linalg.cholesky(between.covariance_matrix).T
    move, now = make(exact[:2000]), bridge.evaluated(exact)
    for _ in range(rounds):
        now = move(bridge, now, beta, generator)
        move.step = min(max(move.step, 0.3), 2.0)
    return between, exact, now, move


def independent(pool):
    fold = torch.where(torch.arange(len(pool)) % 5 == 4, 0, -1)
    expert, _ = GMM(max_components=3).fit(Folds(1.3 * pool, fold), generator=seeded(5))
    return moves.Independence(expert)


MOVES = {
    "random walk": lambda pool: moves.RandomWalk(torch.eye(2).double()),
    "differential evolution": moves.DifferentialEvolution,
    "crossover": moves.Crossover,
    "MALA": lambda pool: moves.Hamiltonian(torch.tensor([[1.0, 0], [0.5, 0.7]]).double(), None),
    "Hamiltonian": lambda pool: moves.Hamiltonian(torch.eye(2).double(), 1.5),
    "independence": independent,
    "from the start": lambda pool: moves.FromStart(),
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", MOVES)
def test_moves_leave_their_density_alone_and_do_move(name, seed):
    between, exact, after, move = moved_from_exact(MOVES[name], seed)
    assert 0.05 < move.acceptance < 1
    assert float((after.y != exact).any(dim=1).double().mean()) > 0.3
    scores = torch.linalg.solve_triangular(
        torch.linalg.cholesky(between.covariance_matrix), (after.y - between.mean).T, upper=False
    )
    radius = scores.square().sum(dim=0).numpy()
    assert stats.kstest(radius, stats.chi2(2).cdf).pvalue > 1e-4
    assert stats.kstest(scores[0].numpy(), "norm").pvalue > 1e-4
    assert stats.kstest(scores[1].numpy(), "norm").pvalue > 1e-4


def test_a_drift_by_another_density_is_no_bias():
    """A start without gradients is steered by the posterior's alone, and stays exact."""
    posterior = MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    start = Start(
        lambda y: posterior.log_prob(y - 0.5), lambda n, g: torch.zeros(n, 2).double(), False, ""
    )
    bridge = Bridge(start, UnconstrainedDensity(LogDensity(posterior.log_prob, 2)), gradients=True)
    exact = 0.25 + torch.randn(20_000, 2, generator=seeded(0), dtype=torch.float64)
    now, move = bridge.evaluated(exact), moves.Hamiltonian(torch.eye(2).double(), None)
    generator = seeded(1)
    for _ in range(5):
        now = move(bridge, now, 0.5, generator)
    assert stats.kstest(now.y[:, 0].numpy() - 0.25, "norm").pvalue > 1e-4


def test_forty_modes_are_all_found_from_their_box():
    found = sample_posterior(unconstrained("forty_modes"), 8000, seed=0)
    nearest = torch.cdist(found.x, get("forty_modes").centres).argmin(dim=1)
    share = torch.bincount(nearest, minlength=40) / len(nearest)
    assert float(-(share * share.log()).sum()) / math.log(40) > 0.95


def test_optima_are_found_where_only_a_narrow_basin_leads():
    density = unconstrained("clusters")
    start = start_at(density, seeded(0))
    assert start.words.startswith("3 optima")


def test_an_optimum_has_the_covariance_of_its_curvature():
    covariance = torch.tensor([[1e-6, 9e-4], [9e-4, 1.0]], dtype=torch.float64)
    gaussian = MultivariateNormal(torch.tensor([0.02, -60.0]).double(), covariance)
    for differentiable in (True, False):
        function = gaussian.log_prob
        if not differentiable:
            function = lambda x: gaussian.log_prob(torch.as_tensor(x)).numpy()  # noqa: E731
        density = UnconstrainedDensity(LogDensity(function, 2))
        points = gaussian.mean + torch.tensor([[1e-3, 1.0], [0.0, -1.0]])
        (found,) = find_optima(density, points)
        assert torch.allclose(found.covariance, covariance, rtol=0.05, atol=1e-12)
        assert found.log_mass == pytest.approx(0, abs=0.05)


def test_a_start_of_a_prior_or_a_box_is_normalised_and_global_state_is_left_alone():
    prior = torch.distributions.Gamma(torch.full((2,), 3.0).double(), torch.ones(2).double())
    for options in ({"prior": prior}, {"box": (1.0, 4.0), "constraints": [(0, None)] * 2}):
        density = LogDensity(lambda x: -x.sum(dim=1), 2, **options)
        start = start_at(UnconstrainedDensity(density), seeded(0))
        draws = start.sample(4000, seeded(1))
        assert draws.shape == (4000, 2)
        axis = torch.linspace(-8, 5, 1300, dtype=torch.float64)
        mass = (
            start.log_prob(torch.cartesian_prod(axis, axis)).exp().sum() * (axis[1] - axis[0]) ** 2
        )
        assert float(mass) == pytest.approx(1, abs=0.02)  # of an edge on a grid


@pytest.mark.parametrize("limit", [{"max_calls": 9_000}, {"seconds": 1e-9}])
def test_a_budget_that_runs_out_leaves_what_there_is(limit):
    density = unconstrained("two_moons", budget=Budget(max_calls=limit.get("max_calls")))
    if "seconds" in limit:
        density.budget.spent, density.budget.max_calls = 0, 6_000
    found = sample_posterior(density, 4000, seed=0)
    assert "--max-calls" in found.stopped_by
    assert found.weight is not None
    assert density.budget.spent <= density.budget.max_calls
    assert bool(torch.isfinite(found.x).all())


def test_a_killed_sampler_goes_on_to_the_same_result(tmp_path):
    class KilledError(Exception):
        pass

    def kill_at_the_third(beta, log_z, calls):
        if beta > 0.3:
            raise KilledError

    def run(checkpoint, progress=None):
        density = unconstrained("two_moons")
        return density, sample_posterior(
            density, 3000, seed=1, checkpoint=checkpoint, progress=progress
        )

    whole_density, whole = run(None)
    checkpoint = SamplerCheckpoint(tmp_path / "sampler", "two_moons 1")
    with pytest.raises(KilledError):
        run(checkpoint, kill_at_the_third)
    density, resumed = run(SamplerCheckpoint(tmp_path / "sampler", "two_moons 1"))
    assert torch.equal(resumed.x, whole.x)
    assert resumed.log_z == whole.log_z
    assert density.budget.spent == whole_density.budget.spent
    assert density.density.calls < whole_density.density.calls


def test_a_checkpoint_of_something_else_is_not_used(tmp_path):
    SamplerCheckpoint(tmp_path, "one").save("run", beta=0.5)
    with pytest.warns(UserWarning, match="of another density or other settings"):
        assert SamplerCheckpoint(tmp_path, "two").load("run") is None
    (tmp_path / "run.npz").write_bytes(b"PK cut short")
    with pytest.warns(UserWarning, match="cannot be read"):
        assert SamplerCheckpoint(tmp_path, "one").load("run") is None
    assert SamplerCheckpoint(tmp_path, "one").load("gone") is None


def test_a_density_that_is_zero_everywhere_is_an_error():
    density = LogDensity(lambda x: torch.full((len(x),), -math.inf), 2)
    with pytest.raises(InputError, match=r"-inf at all 2048 points tried; say where to start"):
        sample_posterior(UnconstrainedDensity(density), 1000, seed=0)
    boxed = LogDensity(lambda x: torch.full((len(x),), -math.inf), 2, box=(0, 1))
    with pytest.raises(InputError, match=r"-inf at all 2000 points tried; widen"):
        sample_posterior(UnconstrainedDensity(boxed), 1000, seed=0)


def test_a_density_with_walls_keeps_to_them():
    """−∞ outside a disc: a third of the box is forbidden, the evidence is the disc's."""
    density = LogDensity(
        lambda x: torch.where(x.square().sum(dim=1) < 1, 0.0, -math.inf), 2, box=(-1, 1)
    )
    found = sample_posterior(UnconstrainedDensity(density), 4000, seed=0)
    assert float(found.x.square().sum(dim=1).max()) < 1
    assert found.log_z.mean == pytest.approx(math.log(math.pi), abs=0.1)


def test_one_parameter(global_state_untouched):
    density = LogDensity(lambda x: -0.5 * (x[:, 0] - 3).square(), 1)
    found = sample_posterior(UnconstrainedDensity(density), 3000, seed=0)
    assert found.log_z.mean == pytest.approx(0.5 * math.log(2 * math.pi), abs=0.08)
    assert stats.kstwo.sf(stats.kstest(found.x[:, 0].numpy() - 3, "norm").statistic, 800) > 1e-4


def test_seeds_repeat_and_differ():
    start = start_at(unconstrained("banana"), seeded(0))
    runs = [
        temper(start, unconstrained("banana"), particles=500, draws=500, generator=seeded(s)).y
        for s in (1, 1, 2)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert np.isfinite(runs[2].numpy()).all()
