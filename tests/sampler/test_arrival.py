"""Draws that move on arrive, and say so; those that have not arrived do not."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from amfvi.density.budget import Budget
from amfvi.density.log_density import LogDensity
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.experts import MAF
from amfvi.sampler import arrival, widening
from amfvi.sampler.arrival import Arrival, arrive, compare_clouds
from amfvi.sampler.runs import sample_posterior

pytestmark = pytest.mark.usefixtures("global_state_untouched")

BENDS = {
    "quadratic": lambda z, bend, scale: bend * (z**2 - scale**2),
    "cubic": lambda z, bend, scale: bend * (z**3 - 3 * scale**2 * z) / scale,
}


class Banana:
    """z₁ ~ N(0, scale²), z₂ | z₁ ~ N(g(z₁), width²), any further z_j ~ N(0, 1)."""

    def __init__(self, shape, dim, bend, width, scale):
        self.bend = lambda z: BENDS[shape](z, bend, scale)
        self.dim, self.width, self.scale = dim, width, scale
        self.log_z = math.log(scale * width) + 0.5 * dim * math.log(2 * math.pi)

    def log_density(self, x):
        noise = (x[:, 1] - self.bend(x[:, 0])) / self.width
        rest = x[:, 2:].square().sum(dim=1)
        return -0.5 * ((x[:, 0] / self.scale).square() + noise.square() + rest)

    def density(self, **options):
        return UnconstrainedDensity(LogDensity(self.log_density, self.dim), **options)

    def middle(self, n, seed):
        """Draws whose z₁ has .6 of its standard deviation: what the broad start leaves."""
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(n, self.dim, generator=generator, dtype=torch.float64)
        z[:, 0] *= 0.6 * self.scale
        z[:, 1] = self.bend(z[:, 0]) + self.width * z[:, 1]
        return z


def require_arrival(banana, seed, max_rounds=6):
    """From the middle of a banana to all of it, by the draws and by a sample from there."""
    density, start = banana.density(), banana.middle(2000, seed)
    arrived = arrive(density, start, seed=seed, stream_name="test", max_rounds=max_rounds)
    assert float(start[:, 0].std()) < 0.7 * banana.scale
    assert 3 <= arrived.rounds <= max_rounds
    assert float(arrived.y[:, 0].std()) > 0.9 * banana.scale  # states far out among them
    sample = sample_posterior(density, 3000, seed=seed, reference=arrived.reference)
    assert abs(sample.log_z.mean - banana.log_z) < 0.05
    assert 0.85 < float(sample.x[:, 0].std()) / banana.scale < 1.15
    assert sample.reference == "a widened fit to earlier draws"


@pytest.mark.slow
def test_draws_from_the_middle_of_a_banana_arrive_at_its_ends():
    """Log Z is off by .02 at most over three seeds."""
    require_arrival(Banana("quadratic", 2, 0.5, 0.4, 2.0), 0, max_rounds=4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    "settings",
    [
        ("quadratic", 2, 0.5, 0.4, 2.0),
        ("quadratic", 3, 0.3, 0.3, 3.0),
        ("cubic", 2, 0.3, 0.3, 2.0),
        ("cubic", 3, 0.3, 0.3, 2.0),
    ],
)
def test_draws_from_the_middle_of_any_banana_arrive(settings, seed):
    require_arrival(Banana(*settings), seed)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_normal_arrives_in_a_few_rounds(seed, seeded):
    """Measured: three or four."""
    density = UnconstrainedDensity(LogDensity(lambda x: -0.5 * x.square().sum(dim=1), 2))
    exact = torch.randn(3000, 2, generator=seeded(seed)).double()
    arrived = arrive(density, exact, seed=seed, stream_name="test")
    assert 3 <= arrived.rounds <= 6
    assert arrived.arrived
    assert arrived.change < arrival.ARRIVED
    drawn = arrived.reference.sample(4000, seeded(1))
    assert drawn.shape == (4000, 2)
    assert stats.kstest(arrived.y[::10, 0].numpy(), "norm").pvalue > 1e-4


@pytest.fixture
def quick(monkeypatch):
    """Short rounds, for what does not depend on how good they are."""
    small = MAF(layers=2, hidden_features=8, max_steps=100)
    monkeypatch.setattr(widening, "MAF", lambda **_: small)
    monkeypatch.setattr(widening, "MAX_FITTED", 400)
    for name, value in {"N_PARTICLES": 400, "N_DRAWS": 400, "WALK_EVALUATIONS": 2500}.items():
        monkeypatch.setattr(arrival, name, value)


BENT = Banana("quadratic", 2, 0.5, 0.4, 2.0)


@pytest.mark.parametrize("max_rounds", [1, 2])
def test_too_few_rounds_are_no_arrival(max_rounds, quick):
    """After one there is nothing to compare; a drift from a start far off is none either."""
    start = BENT.middle(1000, 0)
    arrived = arrive(BENT.density(), start, seed=0, stream_name="test", max_rounds=max_rounds)
    assert arrived.rounds == max_rounds
    assert not arrived.arrived
    assert math.isinf(arrived.change) == (max_rounds == 1)
    assert arrived.reference is not None


def test_a_reserve_of_evaluations_is_left_for_others(quick):
    start = BENT.middle(1000, 0)
    full = BENT.density()
    arrive(full, start, seed=0, stream_name="test", max_rounds=1)
    round_costs = full.budget.spent

    none = BENT.density(budget=Budget(max_evaluations=10_000))
    arrived = arrive(none, start, seed=0, stream_name="test", reserve=10_001)
    assert (arrived.rounds, arrived.reference, none.budget.spent) == (0, None, 0)
    assert torch.equal(arrived.y, start)
    assert not arrived.arrived

    one = BENT.density(budget=Budget(max_evaluations=10_000 + round_costs))
    arrived = arrive(one, start, seed=0, stream_name="test", reserve=10_001)
    assert arrived.rounds == 1
    assert one.budget.spent == round_costs
    assert one.budget.left == 10_000


def test_what_was_done_before_evaluations_ran_out_is_kept(quick):
    start = BENT.middle(1000, 0)
    full = BENT.density()
    first = arrive(full, start, seed=0, stream_name="test", max_rounds=1)
    density = BENT.density(budget=Budget(max_evaluations=full.budget.spent + 500))
    arrived = arrive(density, start, seed=0, stream_name="test")
    assert arrived.rounds == 1
    assert torch.equal(arrived.y, first.y)
    assert not arrived.arrived
    nothing = arrive(
        BENT.density(budget=Budget(max_evaluations=100)), start, seed=0, stream_name="test"
    )
    assert (nothing.rounds, nothing.reference) == (0, None)


def test_the_same_seed_gives_the_same_draws_and_another_stream_others(quick):
    def draws(**options):
        return arrive(BENT.density(), BENT.middle(500, 0), max_rounds=1, **options).y

    first = draws(seed=0, stream_name="test")
    assert torch.equal(first, draws(seed=0, stream_name="test"))
    assert not torch.equal(first, draws(seed=0, stream_name="another"))


def cloud(seed, n=3000, dim=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, dim, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_cloud_is_compared_with_itself_and_with_another_of_its_kind(seed):
    first, second = cloud(seed), cloud(seed + 10)
    assert compare_clouds(first, first) == 0
    assert compare_clouds(first, second) == pytest.approx(compare_clouds(second, first), abs=1e-12)
    assert 0 < compare_clouds(first, second) < 0.12  # measured: .04 to .09


CHANGES = {
    "shifted mean": (lambda y: y + torch.tensor([0.0, 0.3]), 0.2, 0.5),
    "widened": (lambda y: y * torch.tensor([1.5, 1.0]), 0.35, 0.8),
    "narrowed": (lambda y: y * torch.tensor([1.0, 0.5]), 0.6, 1.2),
    "a tenth elsewhere": (
        lambda y: torch.where(torch.arange(len(y))[:, None] % 10 == 0, y + 6, y), 0.3, 4.0,
    ),
    "one side stretched": (lambda y: torch.where(y > 0, 1.5 * y, y), 0.2, 0.9),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_what_has_changed_is_seen_at_every_scale(change, scale):
    move, low, high = CHANGES[change]
    first, second = scale * cloud(0), scale * move(cloud(1))
    assert low < compare_clouds(first, second) < high
    assert compare_clouds(second, first) == pytest.approx(compare_clouds(first, second), rel=1e-9)


@pytest.mark.parametrize("outlier", [1e3, 1e300])
def test_a_single_outlier_is_no_change(outlier):
    first, second = cloud(0), cloud(1)
    with_outlier = second.clone()
    with_outlier[7, 0] = outlier
    expected = compare_clouds(first, second)
    assert compare_clouds(first, with_outlier) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("change", "arrived"), [(0.14, True), (0.16, False), (math.inf, False)])
def test_arrival_is_a_small_change(change, arrived):
    assert Arrival(y=cloud(0), reference=None, change=change, rounds=3).arrived == arrived
