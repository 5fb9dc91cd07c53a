"""The search for what a mixture lacks: modes and tails that have mass, and no others."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, constraints

import amfvi
from amfvi.density.log_density import LogDensity
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.diagnostics.comparison import importance_sample
from amfvi.diagnostics.undetected import (
    CoverageReport,
    UndetectedMode,
    measure_tail_mass,
    search_undetected_modes,
)
from amfvi.experts import GMM
from amfvi.experts.elliptical.mixture import EllipticalMixture
from amfvi.mixture import Mixture
from amfvi.sampler.modes import Mode
from amfvi.targets import get


def seeded(number):
    return torch.Generator().manual_seed(number)


def search(mixture, log_density, draws, history, known=()):
    density = UnconstrainedDensity(log_density)
    passed = (history, density.log_prob(history))
    return search_undetected_modes(mixture, density, draws, passed, seeded(2), known)


@pytest.fixture
def wide_and_narrow():
    """A fifth of the mass in a mode so narrow in its box that no fresh point falls near it."""
    wide = MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    narrow = MultivariateNormal(torch.tensor([30.0, 30.0]).double(), 0.01 * torch.eye(2).double())

    def log_prob(x):
        parts = (math.log(0.8) + wide.log_prob(x), math.log(0.2) + narrow.log_prob(x))
        return torch.logaddexp(*parts)

    return LogDensity(log_prob, 2, box=(-1000.0, 1000.0))


ELSEWHERE = torch.full((50, 2), -700.0).double()
NEAR_THE_NARROW_MODE = torch.tensor([[29.0, 31.0]]).double()


def test_a_mode_that_the_mixture_lacks_is_found(gaussian, weighted):
    density = LogDensity(get("bimodal").log_density, 2)
    one_mode = gaussian((3.0, 1.0), 0.75)
    report = search(one_mode, density, weighted(one_mode, density), ELSEWHERE[:1])
    (undetected,) = report.modes
    assert undetected.x.tolist() == pytest.approx([-3.0, -1.0], abs=0.1)
    assert report.searched
    assert report.tail_mass is not None


@pytest.mark.parametrize("has_another", [False, True])
def test_a_mode_that_weighted_draws_show_is_not_lacking(has_another):
    """In 60 dimensions a Gaussian a seventh too wide is 4,000 times too low at its mode."""
    d = 60
    far = torch.full((d,), 3.0).double()

    def log_prob(x):
        near = -0.5 * x.square().sum(dim=1)
        another = -0.5 * (x - far).square().sum(dim=1) + math.log(0.05)
        return torch.logaddexp(near, another) if has_another else near

    density, factor = LogDensity(log_prob, d), 1.15 * torch.eye(d).double()
    wide = EllipticalMixture.single(GMM(), torch.zeros(d).double(), factor)
    mixture = Mixture({"gmm": wide}, [1.0])
    draws = importance_sample(mixture, UnconstrainedDensity(density), 5000, seeded(0))
    assert draws.reliable
    passed = torch.cat([torch.randn(50, d, generator=seeded(1)).double(), far[None]])
    modes = search(mixture, density, draws, passed).modes
    assert len(modes) == has_another
    for undetected in modes:
        assert torch.allclose(undetected.x, far, atol=0.01)
        assert undetected.share == pytest.approx(0.05, abs=0.01)


def test_one_particle_that_passed_a_mode_is_enough_to_find_it(gaussian, weighted, wide_and_narrow):
    draws = weighted(gaussian(), wide_and_narrow)
    assert search(gaussian(), wide_and_narrow, draws, ELSEWHERE).modes == ()
    passed = torch.cat([ELSEWHERE, NEAR_THE_NARROW_MODE])
    (undetected,) = search(gaussian(), wide_and_narrow, draws, passed).modes
    assert undetected.x.tolist() == pytest.approx([30.0, 30.0], abs=1e-3)
    # Of what the mixture has: .2 / .8.
    assert undetected.share == pytest.approx(0.25, abs=0.05)


def test_a_known_mode_is_probed_again_without_a_point_near_it(gaussian, weighted, wide_and_narrow):
    """A later search began from nothing and forgot what an earlier one had found."""
    draws = weighted(gaussian(), wide_and_narrow)
    (known,) = search(gaussian(), wide_and_narrow, draws, NEAR_THE_NARROW_MODE).modes
    (again,) = search(gaussian(), wide_and_narrow, draws, ELSEWHERE, [known.mode]).modes
    assert again.mode == known.mode
    assert again.share == pytest.approx(0.25, abs=0.05)
    moved = gaussian((30.0, 30.0), 0.1)
    report = search(
        moved, wide_and_narrow, weighted(moved, wide_and_narrow), ELSEWHERE, [known.mode]
    )
    assert all(float(undetected.x[0]) < 1 for undetected in report.modes)


def test_a_particle_whose_parameters_overflow_ends_no_search(weighted):
    """A wide start goes where the exponential of an unconstrained coordinate is infinite."""
    draws = (0.3 * torch.randn(2000, 2, generator=seeded(0)).double()).exp()
    positive = {"x1": constraints.positive, "x2": constraints.positive}
    mixture = amfvi.fit(draws, experts=[GMM(max_components=1)], folds=2, constraints=positive)
    log_normal = LogDensity(
        lambda x: -0.5 * (x.log() / 0.3).square().sum(dim=1) - x.log().sum(dim=1), 2,
        constraints={"x1": (0, None), "x2": (0, None)},
    )  # fmt: skip
    history = torch.tensor([[0.1, -0.2], [800.0, 0.0]]).double()
    report = search_undetected_modes(
        mixture, UnconstrainedDensity(log_normal), weighted(mixture, log_normal, 1000),
        (history, torch.tensor([-0.3, -torch.inf]).double()), seeded(0),
    )  # fmt: skip
    assert report.modes == ()
    assert report.searched


def test_one_lucky_probe_is_no_missing_tail(gaussian, standard):
    """A speck of 0.3% far out: a probe in it says much more than that, all of them do not."""
    speck = MultivariateNormal(torch.tensor([30.0, 0.0]), 0.25 * torch.eye(2))

    def log_prob(x):
        bulk, far = standard.log_prob(x), speck.log_prob(x.float()).double()
        return torch.logaddexp(bulk + math.log(0.997), far + math.log(0.003))

    density = UnconstrainedDensity(LogDensity(log_prob, 2))
    alarms = [measure_tail_mass(gaussian(), density, 0.0, seeded(s)) > 0 for s in range(100)]
    assert sum(alarms) <= 3


def test_the_mass_of_heavy_tails_is_measured(gaussian):
    """Half of the draws of this Cauchy density are more than √3 from its center."""
    cauchy = LogDensity(lambda x: -1.5 * torch.log1p(x.square().sum(dim=1)), 2)
    log_z = math.log(2 * math.pi)
    narrow = gaussian()
    x = torch.randn(200_000, 3, generator=seeded(0)).double()
    x = x[:, :2] / x[:, 2:].abs()
    lacking = cauchy.log_prob(x) - log_z - narrow.log_prob(x) > math.log(20)
    mass = measure_tail_mass(narrow, UnconstrainedDensity(cauchy), log_z, seeded(1))
    assert mass == pytest.approx(float(lacking.double().mean()), abs=0.05)


def undetected(x, share=0.3, log_density=0.0):
    point = torch.tensor(x).double()
    mode = Mode(point=point, log_density=log_density, covariance=torch.eye(2).double())
    return UndetectedMode(mode=mode, x=point, share=share)


def test_merging_reports_forgets_nothing():
    left, right = undetected([1.0, 0.0]), undetected([0.0, 1.0])
    early = CoverageReport(modes=(left,), tail_mass=0.2)
    late = CoverageReport(modes=(left, right), searched=True)
    for merged in (early.merge(late), late.merge(early)):
        assert set(map(id, merged.modes)) == {id(left), id(right)}
        assert merged.tail_mass == 0.2
        assert merged.searched
    nothing = CoverageReport().merge(CoverageReport())
    assert (nothing.modes, nothing.tail_mass, nothing.searched) == ((), None, False)
    assert early.merge(CoverageReport(tail_mass=0.0)).tail_mass == 0.2


def test_a_report_carried_to_another_mixture_keeps_what_that_lacks_too(gaussian, standard):
    density = UnconstrainedDensity(standard)
    covered, lacking = undetected([0.5, 0.0], log_density=-2.0), undetected([20.0, 0.0])
    report = CoverageReport(modes=(covered, lacking), tail_mass=0.2, searched=True)
    spent = density.budget.spent
    carried = report.carry_to(gaussian(), density, 0.0)
    assert density.budget.spent == spent
    assert carried.modes == (lacking,)
    assert carried.tail_mass == 0.2
    assert not carried.searched
