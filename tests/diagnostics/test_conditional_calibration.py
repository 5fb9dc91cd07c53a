"""Calibration of conditional densities: exact ones pass, each planted error is found."""

from __future__ import annotations

import json
import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from amfvi.diagnostics import calibration as calibration_module
from amfvi.diagnostics.calibration import ConditionalDensity, measure_calibration
from amfvi.diagnostics.calibration_report import SHARE, Confidence
from amfvi.diagnostics.reference_points import earlier_neighbors, whitened_distances
from amfvi.diagnostics.thresholds import CALIBRATION_FALSE_ALARMS
from amfvi.diagnostics.uniformity import ranks_among_draws
from amfvi.errors import InputError, UsageError
from amfvi.runs.calibration_figures import coverage_figure, draw_calibration_figures, rank_figures

DIMS = (1, 3)
SEEDS = range(2)


def equicorrelation(dim: int, correlation: float) -> Tensor:
    ones = torch.ones(dim, dim, dtype=torch.float64)
    return correlation * ones + (1 - correlation) * torch.eye(dim, dtype=torch.float64)


class Gaussian:
    """y ~ N(A c + b, S), in units of ``unit``."""

    def __init__(self, slope, covariance, bias=0.0, unit=1.0):
        self.slope, self.covariance, self.bias, self.unit = slope, covariance, bias, unit
        self.factor = torch.linalg.cholesky(covariance)

    def log_prob(self, y, given):
        residual = y / self.unit - given @ self.slope.T - self.bias
        z = torch.linalg.solve_triangular(self.factor, residual.T, upper=False)
        dim = y.shape[1]
        log_scale = self.factor.diagonal().log().sum() + dim * math.log(self.unit)
        return -0.5 * z.square().sum(dim=0) - log_scale - 0.5 * dim * math.log(2 * math.pi)

    def sample(self, n_draws, given, generator):
        shape = (n_draws, len(given), len(self.slope))
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        return self.unit * (given @ self.slope.T + self.bias + noise @ self.factor.T)


def truth(dim: int) -> Gaussian:
    """Slopes of about one on two conditions; correlation 1/2."""
    slope = torch.randn(dim, 2, generator=torch.Generator().manual_seed(dim)).double()
    return Gaussian(slope / slope.norm(dim=1, keepdim=True), equicorrelation(dim, 0.5))


def pairs(density: ConditionalDensity, n: int, seed: int, given_dim: int = 2):
    generator = torch.Generator().manual_seed(1000 + seed)
    given = torch.randn(n, given_dim, generator=generator, dtype=torch.float64)
    return given, density.sample(1, given=given, generator=generator)[0]


def measured(density, dim, seed, n=800):
    given, y = pairs(truth(dim), n, seed)
    return measure_calibration(density, given, y, n_draws=100, seed=seed)


def rejects(test) -> bool:
    return test.p_value < SHARE


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("seed", SEEDS)
def test_exact_densities_are_calibrated(dim, seed, global_state_untouched):
    exact = truth(dim)
    found = measured(exact, dim, seed)
    assert found.verdict == "calibrated"
    assert found.confidence == Confidence.RIGHT
    for level in (0.1, 0.5, 0.9):
        for share in (found.coverage(level), found.tarp_coverage(level)):
            assert abs(share.mean - level) < 4 * share.se
    # The mean of the log density of a Gaussian is minus its entropy.
    entropy = 0.5 * float(torch.logdet(2 * math.pi * math.e * exact.covariance))
    assert abs(found.log_density.mean + entropy) < 4 * found.log_density.se


def false_alarms(seeds: range, n: int) -> int:
    exact, count = Gaussian(torch.ones(2, 1).double(), equicorrelation(2, 0.5)), 0
    for seed in seeds:
        given, y = pairs(exact, n, seed, given_dim=1)
        found = measure_calibration(exact, given, y, n_draws=9, seed=seed)
        count += found.verdict == "miscalibrated"
    return count


def too_many(count: int, seeds: range) -> bool:
    """Whether so many false alarms are unlikely (1 in 1,000) at the rate that is claimed."""
    return bool(stats.binom.sf(count - 1, len(seeds), CALIBRATION_FALSE_ALARMS) < 1e-3)


def test_false_alarms_are_rare():
    """The claimed rate is at most 0.5%; 1% would be found in the long run below."""
    seeds = range(150)
    assert not too_many(false_alarms(seeds, 20), seeds)


@pytest.mark.slow
def test_false_alarms_are_rare_in_many_cases():
    seeds = range(150, 6150)
    assert not too_many(false_alarms(seeds, 60), seeds)
    assert too_many(60, seeds)  # a rate of 1% would show


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("factor", "confidence"),
    [(0.8, Confidence.OVERCONFIDENT), (1.3, Confidence.UNDERCONFIDENT)],
)
def test_wrong_widths_are_found(dim, seed, factor, confidence):
    right = truth(dim)
    found = measured(Gaussian(right.slope, factor**2 * right.covariance), dim, seed)
    assert found.verdict == "miscalibrated"
    assert found.confidence == confidence
    assert rejects(found.hpd)
    assert rejects(found.tarp)
    assert (found.coverage(0.8).mean < 0.8) == (factor < 1)
    assert f"{confidence}" in found.reasons[0]


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_bias_is_found(dim, seed, sign):
    right = truth(dim)
    biased = Gaussian(right.slope, right.covariance, bias=0.3 * sign)
    found = measured(biased, dim, seed)
    assert found.verdict == "miscalibrated"
    assert found.rejected_parameters == found.names
    word = "too high" if sign > 0 else "too low"
    assert sum(word in reason for reason in found.reasons) == dim


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("correlation", [-0.3, 0.8])
def test_wrong_correlations_are_found(seed, correlation):
    """Each parameter is right by itself, and simulation-based calibration sees nothing."""
    right = truth(3)
    found = measured(Gaussian(right.slope, equicorrelation(3, correlation)), 3, seed)
    assert not found.rejected_parameters
    assert rejects(found.hpd)
    assert rejects(found.tarp)
    assert found.verdict == "miscalibrated"


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("seed", SEEDS)
def test_an_ignored_condition_is_found(dim, seed):
    """Ranks and highest-density regions of the marginal of y are right on average."""
    right = truth(dim)
    marginal = Gaussian(0 * right.slope, right.covariance + right.slope @ right.slope.T)
    found = measured(marginal, dim, seed)
    assert not found.rejected_parameters
    assert found.confidence == Confidence.RIGHT
    assert rejects(found.tarp)
    assert rejects(found.given_dependence)
    assert found.verdict == "miscalibrated"
    difference = measured(right, dim, seed).log_prob - found.log_prob
    assert difference.mean() > 4 * difference.std() / len(difference) ** 0.5


class Bent:
    """y ~ N(bend c₁², s²) with s = sd exp(spread c₁)."""

    def __init__(self, bend=0.0, spread=0.0, sd=1.0):
        self.bend, self.spread, self.sd = bend, spread, sd

    def _normal(self, given):
        first = given[:, :1]
        sd = self.sd * (self.spread * first).exp()
        return torch.distributions.Normal(self.bend * first.square(), sd)

    def log_prob(self, y, given):
        return self._normal(given).log_prob(y)[:, 0]

    def sample(self, n_draws, given, generator):
        normal = self._normal(given)
        noise = torch.randn(n_draws, len(given), 1, generator=generator, dtype=torch.float64)
        return normal.loc + normal.scale * noise


class Marginal:
    """The distribution of given values, whatever the condition, by a Gaussian kernel."""

    def __init__(self, values, width):
        self.values, self.width = values, width

    def log_prob(self, y, given):
        z = (y - self.values.T) / self.width
        log_norm = math.log(len(self.values) * self.width * math.sqrt(2 * math.pi))
        return torch.logsumexp(-0.5 * z.square(), dim=1) - log_norm

    def sample(self, n_draws, given, generator):
        shape = (n_draws, len(given), 1)
        rows = torch.randint(len(self.values), shape, generator=generator)
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        return self.values[:, 0][rows] + self.width * noise


@pytest.mark.parametrize("seed", SEEDS)
def test_an_ignored_condition_is_found_by_tarp_where_nothing_is_monotone(seed):
    """y follows c², so that no rank correlates with c: reference points see it alone."""
    bent = Bent(bend=2.0)
    given, y = pairs(bent, 800, seed)
    assert measure_calibration(bent, given, y, n_draws=50).verdict == "calibrated"
    marginal = Marginal(pairs(bent, 400, 100 + seed)[1], width=0.3)
    found = measure_calibration(marginal, given, y, n_draws=50)
    assert not found.rejected_parameters
    assert found.confidence == Confidence.RIGHT
    assert rejects(found.tarp)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_width_that_should_follow_the_condition_is_found(seed):
    right = Bent(spread=0.5)
    given, y = pairs(right, 800, seed)
    assert measure_calibration(right, given, y, n_draws=50).verdict == "calibrated"
    found = measure_calibration(Bent(sd=math.exp(0.1)), given, y, n_draws=50)
    assert rejects(found.given_dependence)
    assert found.given_dependence.strongest == (0, 0, True)
    assert any("condition 1: the width" in reason for reason in found.reasons)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_order_of_pairs_makes_no_difference(seed):
    given, y = pairs(truth(3), 300, seed)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(seed))
    first = measure_calibration(truth(3), given, y, n_draws=20)
    second = measure_calibration(truth(3), given[order], y[order], n_draws=20)
    for name in ("ranks", "hpd_ranks", "tarp_ranks", "log_prob"):
        assert torch.equal(getattr(first, name)[order], getattr(second, name))
    assert first.reasons == second.reasons


@pytest.mark.parametrize("power", [-150, -6, 9, 150])
def test_units_make_no_difference(power):
    right, unit = truth(3), 10.0**power
    given, y = pairs(right, 300, 0)
    first = measure_calibration(right, given, y, n_draws=20)
    scaled = Gaussian(right.slope, right.covariance, unit=unit)
    second = measure_calibration(scaled, given, unit * y, n_draws=20)
    for name in ("ranks", "hpd_ranks", "tarp_ranks"):
        assert torch.allclose(getattr(first, name), getattr(second, name), rtol=0, atol=1e-12)
    shift = first.log_prob - second.log_prob
    assert torch.allclose(shift, torch.full_like(shift, 3 * math.log(unit)), atol=1e-8)


def test_monotone_changes_of_conditions_make_no_difference():
    given, _ = pairs(truth(1), 300, 0)
    first, second = (
        earlier_neighbors(values, torch.Generator().manual_seed(0))
        for values in (given, given.exp() * 1e9)
    )
    assert torch.equal(first, second)


@pytest.mark.parametrize("seed", SEEDS)
def test_neighbors_are_earlier_and_near(seed):
    """Following neighbors from any pair ends at the one that has none: there is no circle."""
    given, _ = pairs(Bent(), 500, seed, given_dim=1)
    chosen = earlier_neighbors(given, torch.Generator().manual_seed(seed))
    assert int((chosen == -1).sum()) == 1
    at = torch.arange(500)
    for _ in range(10):  # blocks double
        at = torch.where(at >= 0, chosen[at.clamp(min=0)], at)
    assert bool((at == -1).all())
    has = chosen >= 0
    apart = (given[has] - given[chosen[has]]).abs()
    assert float(apart.median()) < 0.02


def test_equal_conditions_have_neighbors_at_random():
    chosen = earlier_neighbors(torch.zeros(400, 1).double(), torch.Generator().manual_seed(0))
    assert len(chosen.unique()) > 100


class Rounded:
    """A standard normal rounded to whole numbers and kept within ±1, with its probabilities."""

    def log_prob(self, y, given):
        outer = math.log(stats.norm.sf(0.5))
        return torch.where(y[:, 0] == 0, math.log(1 - 2 * stats.norm.sf(0.5)), outer)

    def sample(self, n_draws, given, generator):
        shape = (n_draws, len(given), 1)
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        return noise.round().clamp(-1, 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_ties_are_broken_at_random(seed):
    given, y = pairs(Rounded(), 600, seed)
    found = measure_calibration(Rounded(), given, y, n_draws=30, seed=seed)
    assert found.verdict == "calibrated"
    assert bool(((found.ranks > 0) & (found.ranks < 1)).all())
    constant = torch.zeros(5, 4000, dtype=torch.float64)
    ranks = ranks_among_draws(constant, torch.Generator().manual_seed(seed))
    assert stats.kstest(ranks.numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("dim", [1, 2, 8])
def test_distances_treat_observed_values_and_draws_alike(dim):
    """What exactness rests on: a change of places changes places only, few draws or many."""
    generator = torch.Generator().manual_seed(dim)
    points = torch.randn(6, 40, dim, generator=generator, dtype=torch.float64)
    points[..., 0] *= 1e6
    reference = torch.randn(40, dim, generator=generator, dtype=torch.float64)
    order = torch.tensor([3, 1, 0, 5, 4, 2])
    distances = whitened_distances(points, reference)
    assert torch.allclose(whitened_distances(points[order], reference), distances[order])
    assert bool(distances.isfinite().all())


class Recorded(Gaussian):
    """Keeps the largest number of points of one call."""

    largest = 0

    def log_prob(self, y, given):
        self.largest = max(self.largest, len(y))
        return super().log_prob(y, given)

    def sample(self, n_draws, given, generator):
        self.largest = max(self.largest, n_draws * len(given))
        return super().sample(n_draws, given, generator)


def test_memory_is_bounded():
    """The most points of one call do not depend on how many pairs there are."""
    exact = Recorded(torch.eye(10).double(), equicorrelation(10, 0.5))
    given, y = pairs(exact, 1500, 0, given_dim=10)
    assert measure_calibration(exact, given, y, n_draws=200).verdict == "calibrated"
    assert 0.9 * calibration_module.MAX_POINTS < exact.largest <= calibration_module.MAX_POINTS


def test_zero_density_counts_against():
    class Box(Gaussian):
        def log_prob(self, y, given):
            return torch.where(y[:, 0].abs() < 3, super().log_prob(y, given), -math.inf)

    right = truth(1)
    given, y = pairs(right, 300, 0)
    outside = int((y.abs() >= 3).sum())
    found = measure_calibration(Box(right.slope, right.covariance), given, y, n_draws=20)
    assert outside > 0
    assert found.reasons[0] == f"q is zero at {outside} of 300 held-back y"
    assert found.verdict == "miscalibrated"
    assert found.to_json()["log_density"] == {"mean": None, "se": None}


def test_json_and_text():
    found = measured(truth(3), 3, 0, n=200)
    described = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert described == found.to_json()
    assert described["verdict"] == "calibrated"
    assert list(described["sbc"]) == ["x1", "x2", "x3"]
    assert described["hpd"]["coverage"][2]["mean"] == found.coverage(0.5).mean
    text = str(found)
    assert text.startswith("calibrated (200 pairs, 100 draws each)")
    assert len(text.splitlines()) < 9


def test_mistakes_are_errors_of_one_line():
    right = truth(1)
    given, y = pairs(right, 50, 0)

    def broken(**methods):
        return type("Broken", (Gaussian,), methods)(right.slope, right.covariance)

    nan, lost = broken(log_prob=lambda self, y, given: y[:, 0] * math.nan), given.clone()
    flat = broken(log_prob=lambda self, y, given: y)
    single = broken(sample=lambda self, n_draws, given, generator: given)
    infinite = broken(
        sample=lambda self, m, given, generator: torch.full((m, len(given), 1), 1e999)
    )
    lost[3] = math.nan
    for density, c, observed, match in (
        (right, given[1:], y, "given has 49 rows, y has 50"),
        (right, given[:5], y[:5], "5 pairs are too few"),
        (right, lost, y, "1 of 50 rows of given are not finite"),
        (right, given, y[:, 0], r"y has shape \(50,\)"),
        (nan, given, y, "log_prob is NaN at"),
        (flat, given, y, "log_prob returned shape"),
        (single, given, y, "sample returned shape"),
        (infinite, given, y, "draws are not finite"),
    ):
        with pytest.raises(InputError, match=match):
            measure_calibration(density, c, observed)
    with pytest.raises(UsageError, match="n_draws=0"):
        measure_calibration(right, given, y, n_draws=0)
    with pytest.raises(UsageError, match="names: found 2, expected 1"):
        measure_calibration(right, given, y, names=["a", "b"])
    with pytest.raises(UsageError, match="level=1"):
        measure_calibration(right, given, y).coverage(1)


def test_figures(tmp_path):
    exact = Gaussian(torch.ones(13, 1).double(), equicorrelation(13, 0.5))
    given, y = pairs(exact, 200, 0, given_dim=1)
    y[:, 0] += 1.0
    found = measure_calibration(exact, given, y, n_draws=30, names=[f"p{i}" for i in range(13)])
    pages = rank_figures(found)
    assert [len(page.axes) for page in pages] == [12, 1]
    assert pages[0].axes[0].get_title().startswith("p0: draws too low\n")
    curve = coverage_figure(found).axes[0].lines[-1]
    levels, shares = curve.get_xdata(), curve.get_ydata()
    for level, share in zip(levels[1:-1:50], shares[1:-1:50], strict=True):
        assert share == pytest.approx(found.coverage(float(level)).mean)
    single = measure_calibration(Bent(), *pairs(Bent(), 50, 0), n_draws=10)
    paths = draw_calibration_figures(single, tmp_path)
    assert [path.name for path in paths] == ["coverage.png", "ranks.png"]
    assert all(path.stat().st_size > 10_000 for path in paths)
