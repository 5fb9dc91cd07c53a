"""How far weights move moments: by hand, with the right sign, in spite of outliers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from amfvi.diagnostics.comparison import WeightedDraws
from amfvi.diagnostics.importance import ImportanceEstimate, tail_size
from amfvi.diagnostics.own_spread import OwnSpread
from amfvi.diagnostics.shift import WeightShift, _variance_khat, measure_shift
from amfvi.diagnostics.thresholds import MAX_VARIANCE_KHAT

N = 5000


def normals(n=N, dim=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, dim, generator=generator, dtype=torch.float64)


def weighted_by(x, log_weights):
    importance = ImportanceEstimate.from_log_weights(log_weights)
    return WeightedDraws(x=x, log_weights=log_weights, importance=importance)


def of_a_normal(mean=0.0, sd=1.0, n=N, seed=0):
    """Draws of N(0, 1), weighted towards N(mean, sd²)."""
    x = normals(n, seed=seed)
    log_p = -0.5 * ((x - mean) / sd).square() - math.log(sd)
    return weighted_by(x, (log_p + 0.5 * x.square())[:, 0])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_changes_are_those_of_weighted_moments_by_hand(seed):
    """Weights of two values, which no smoothing changes: 3 right of .3, 1 left of it."""
    x = normals(dim=3, seed=seed) * torch.tensor([1.0, 1e-6, 1e6]) + torch.tensor([0.0, 5.0, -3.0])
    heavier = x[:, 0] > 0.3
    shift = measure_shift(weighted_by(x, torch.where(heavier, math.log(3.0), 0.0).double()))
    w = np.where(heavier.numpy(), 3.0, 1.0)
    mean_changes, sd_changes = [], []
    for column in x.numpy().T:
        mean = np.average(column, weights=w)
        sd = math.sqrt(np.average((column - mean) ** 2, weights=w))
        mean_changes.append(abs(mean - column.mean()) / column.std())
        sd_changes.append(math.log(sd / column.std()))
    assert shift.mean == pytest.approx(mean_changes[0], rel=1e-3)  # about .4
    assert shift.mean == shift.largest == pytest.approx(max(mean_changes), rel=1e-3)
    assert max(sd_changes[0], 0) == 0  # this one is narrowed
    assert shift.sd == 0
    assert shift.bound > shift.mean


def test_widening_by_hand():
    """Weight 4 beyond one standard deviation on either side."""
    x = normals()
    far = x[:, 0].abs() > 1
    shift = measure_shift(weighted_by(x, torch.where(far, math.log(4.0), 0.0).double()))
    w = np.where(far.numpy(), 4.0, 1.0)
    column = x[:, 0].numpy()
    mean = np.average(column, weights=w)
    sd = math.sqrt(np.average((column - mean) ** 2, weights=w))
    assert shift.sd == pytest.approx(math.log(sd / column.std()), rel=1e-3)  # about .27
    assert shift.largest == shift.sd
    assert shift.mean == 0  # by symmetry, but for noise
    assert shift.bound > shift.sd


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_narrowing_counts_in_the_bound_alone(seed):
    """A mixture that is too wide lacks nothing, yet its plain draws are not right."""
    shift = measure_shift(of_a_normal(sd=0.7, seed=seed))
    assert shift.sd == 0
    assert shift.mean == 0
    assert shift.bound > -math.log(0.7) * 0.9
    widened = measure_shift(of_a_normal(sd=1.15, seed=seed))
    assert widened.sd == pytest.approx(math.log(1.15), abs=0.06)
    shifted = measure_shift(of_a_normal(mean=-0.3, seed=seed))
    assert shifted.mean == pytest.approx(0.3, abs=0.07)


@pytest.mark.parametrize("seed", range(5))
def test_a_right_mixture_has_no_shift_but_a_bound(seed):
    equal = measure_shift(weighted_by(normals(seed=seed), torch.zeros(N).double()))
    assert (equal.mean, equal.sd) == (0, 0)
    assert equal.bound < 1e-9
    noise = 0.3 * normals(seed=seed + 10)[:, 0]  # weights that have nothing to do with x
    noisy = measure_shift(weighted_by(normals(seed=seed), noise))
    assert (noisy.mean, noisy.sd) == (0, 0)
    assert 0 < noisy.bound < 0.05
    few = measure_shift(weighted_by(normals(200, seed=seed), noise[:200]))
    assert few.bound > noisy.bound


def cauchy(n, seed):
    uniform = torch.rand(n, 1, generator=torch.Generator().manual_seed(seed)).double()
    return torch.tan(math.pi * (uniform - 0.5))


def own_spread(draws):
    return OwnSpread(sd=draws.std(dim=0), n_draws=len(draws))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_heavy_tails_are_clipped(seed):
    """Their means and standard deviations say nothing; those without the far tails do."""
    noise = 0.2 * normals(seed=seed)[:, 0]
    right = measure_shift(weighted_by(cauchy(N, seed), noise), own_spread(cauchy(20_000, seed + 5)))
    assert (right.mean, right.sd) == (0, 0)
    assert right.bound < 0.1
    x = cauchy(N, seed)
    shifted = measure_shift(weighted_by(x, torch.where(x[:, 0] > 0, 0.5, 0.0).double()))
    assert 0.03 < shifted.mean < 0.5
    further = x.clone()
    further[x[:, 0].argmax()] *= 1e100
    again = measure_shift(weighted_by(further, torch.where(x[:, 0] > 0, 0.5, 0.0).double()))
    assert again == shifted


def test_one_parameter_with_heavy_tails_hides_no_other():
    x = torch.cat([cauchy(N, 0), normals(seed=1)], dim=1)
    log_weights = 0.3 * x[:, 1]
    shift = measure_shift(weighted_by(x, log_weights))
    assert shift.mean == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("outlier", [300.0, -1e6, 1e200])
def test_rare_outliers_of_plain_draws_raise_the_bound(outlier):
    """A few in 20,000: among 5,000 weighted draws there may be none."""
    weighted, plain = of_a_normal(), normals(20_000, seed=3)
    assert measure_shift(weighted, own_spread(plain)).bound < 0.05
    plain[[5, 77], 0] = outlier
    shift = measure_shift(weighted, own_spread(plain))
    assert shift.bound > 1
    assert shift.largest == measure_shift(weighted).largest


@pytest.mark.parametrize(
    ("told", "se", "is_right"), [(0.98, 0.01, True), (0.87, 0.01, False), (0.92, 0.05, True)]
)
def test_a_spread_that_the_density_denies_raises_the_bound(told, se, is_right):
    """Where draws with weights agree, or are too few, and the density was asked at these."""
    one = torch.ones(1).double()
    spread = OwnSpread(sd=one, n_draws=20_000, told=told * one, told_se=se * one)
    assert (measure_shift(of_a_normal(), spread).bound < 0.07) == is_right


@pytest.mark.parametrize(
    ("own", "told", "told_se", "expected"),
    [
        (1.0, 1.2, 0.01, math.log(1.2)),
        (1.0, 0.8, 0.01, math.log(1.25)),
        (1.0, 1.02, 0.01, 0.0),  # no more than noise
        (1.0, 1.2, 0.2, 0.0),
        (50.0, 0.1, 0.01, 0.0),  # of outliers, which say nothing of what is nearer
    ],
)
def test_two_weighted_standard_deviations_may_be_in_dispute(own, told, told_se, expected):
    one = torch.ones(1, dtype=torch.float64)
    spread = OwnSpread(sd=own * one, n_draws=20_000, told=told * one, told_se=told_se * one)
    shift = measure_shift(of_a_normal(), spread)
    assert shift.dispute == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(
    ("of_both", "of_squares", "counts"),
    [
        (0.63, 0.11, True),  # the end of a cubic ridge
        (0.55, 0.24, False),  # exp(-sqrt|x|): its squares have a tail of their own
        (0.75, 0.42, True),
        (0.95, 0.75, False),  # no variance to tell
    ],
)
def test_a_khat_of_a_variance_counts_where_weights_raise_it(of_both, of_squares, counts):
    khat = _variance_khat(torch.tensor([0.1, of_both]), torch.tensor([0.1, of_squares]), 5000)
    assert khat == pytest.approx(of_both if counts else 0.0)


@pytest.mark.parametrize("seed", range(10))
def test_the_largest_khat_of_a_hundred_parameters_is_no_alarm_by_chance(seed):
    """Estimates of .25 with their noise exceed one half; an outlier is still found."""
    n, d = 5000, 100
    noise = 1.25 / tail_size(n) ** 0.5 * normals(d, seed=seed)[:, 0]
    of_both, of_squares = 0.25 + noise, torch.zeros(d).double()
    assert _variance_khat(of_both, of_squares, n) < MAX_VARIANCE_KHAT
    of_both[17] = 0.85
    assert _variance_khat(of_both, of_squares, n) > MAX_VARIANCE_KHAT


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("scale", "is_right"), [(1.0, True), (1.15, False)])
def test_a_standard_deviation_that_is_hard_to_tell_counts(scale, is_right, seed):
    """exp(-2 sqrt|x|), by draws a little too wide beyond nine tenths of the mass."""
    generator = torch.Generator().manual_seed(seed)
    u = -torch.rand(2, 5000, 1, generator=generator).double().log().sum(dim=0)
    sign = torch.randint(2, (5000, 1), generator=generator) * 2.0 - 1
    knee = 3.9
    beyond = (u - knee).clamp(min=0)
    wide = u.clamp(max=knee) + scale * beyond
    # Beyond the knee log p - log q is that of u exp(-u) at the two ends of the stretch.
    log_ratio = (wide / u).log() - (wide - u) + math.log(scale) * (beyond > 0)
    shift = measure_shift(weighted_by(sign * wide.square() / 4, log_ratio[:, 0]))
    assert (shift.bound < 0.07) == is_right


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_plain_draws_that_overflow_raise_the_bound(value):
    """NaN is above no threshold, so it must not get through."""
    plain = normals(20_000, seed=3)
    plain[5, 0] = value
    assert measure_shift(of_a_normal(), own_spread(plain)).bound > 1


def test_draws_that_overflow_and_weigh_nothing_do_no_harm():
    good = of_a_normal()
    x, log_weights = good.x.clone(), good.log_weights.clone()
    x[3], log_weights[3] = math.inf, -math.inf
    shift = measure_shift(weighted_by(x, log_weights))
    assert math.isfinite(shift.bound)
    assert shift.largest < 0.05


@pytest.mark.parametrize("positive", [1, 5])
def test_a_few_draws_with_all_the_weight_are_a_large_change_or_bound(positive):
    log_weights = torch.full((N,), -math.inf, dtype=torch.float64)
    log_weights[:positive] = 0.0
    shift = measure_shift(weighted_by(normals(), log_weights))
    assert shift.bound > 0.5


def test_the_largest_is_of_the_significant_ones():
    assert WeightShift(mean=0.1, sd=0.2, bound=0.3).largest == 0.2
    assert WeightShift(mean=0.2, sd=0.1, bound=0.3).largest == 0.2
