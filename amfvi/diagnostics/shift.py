"""How far importance weights move the moments that plain draws of a mixture give."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from amfvi.diagnostics.comparison import WeightedDraws
from amfvi.diagnostics.importance import HEAVY_KHAT, khat_of_squares, tail_size
from amfvi.diagnostics.own_spread import OwnSpread
from amfvi.diagnostics.thresholds import MAX_PLAIN_SHIFT, SIGNIFICANT

__all__ = ["WeightShift", "measure_shift"]

CARRIED_BY_WEIGHTS = 2.0
"""Mean weight of the draws that carry a variance, above which large weights are to blame for its
standard error; heavy tails that the mixture has too are carried by draws of equal weights."""

KHAT_OF_WEIGHTS = 0.3
"""Rise of k̂ of squared distances by weights from which it is the weights that have the tail."""

CLEAR_KHAT_OF_WEIGHTS = 0.4
"""The same, from which a k̂ below 0.7 counts too: a standard error that hangs on a variance
without a variance (k̂ above 0.5) tells little."""

TELLABLE_KHAT = 0.9
"""k̂ of weighted squared distances up to which a standard deviation is a matter of more than
chance, and what the density says of the mixture's own draws counts."""

FEW = 5
"""Parameters, of more than twice as many, of which chance alone brings a k̂ above what is taken off
the largest."""

MIN_DRAWS = 2_000
"""Weighted draws below which their number may be to blame for it."""

MAX_MEASURED_SE = 0.1
"""Relative standard error of a standard deviation up to which it can be compared at all."""

MAX_SURPLUS = 1.5
"""Factor by which a standard deviation of the mixture's draws may exceed what the density supports
of it, where it is hard to tell otherwise."""

MAX_SURPLUS_OF_INFINITE = 10.0
"""The same of tails without a variance, where a standard deviation is a matter of chance."""

INFINITE_KHAT = 1.2
"""k̂ of squared distances from which tails surely have none."""

CLIPPED = 0.025
"""Share of the mass in each tail that is clipped where tails are heavier than that."""


@dataclass(frozen=True, kw_only=True)
class WeightShift:
    """The largest change of a mean, and widening, by weights.

    Attributes:
        mean: of a mean, in standard deviations of the parameter; 0 where no change is
            significant.
        sd: the largest increase of the logarithm of a standard deviation; weights that narrow
            a mixture that is too wide are no sign that it lacks anything.
        bound: the largest of all changes, significant or not, and two standard errors.
        variance_khat: the largest k̂ of weights times squared distances from a mean, where it is
            well above that of the squared distances alone and those have a variance to tell; 0
            where there is none. Beyond 0.5 a variance hangs on weights that are too few.
        sd_se: the largest relative standard error of a standard deviation, where that is due
            to large weights rather than to the tails of the posterior.
        sd_noise: the same whatever it is due to, where there is a variance to tell.
        dispute: the largest significant difference between the logarithms of a standard deviation
            by the weighted draws and by others that the density was asked at far out; 0 where none
            were, or where plain draws are far too wide.
        surplus: how much larger the logarithm of a standard deviation of plain draws is than the
            density supports, where heavy tails leave it hard to tell. Fits from further draws
            rarely mend that, weights do.

    Examples:
        >>> WeightShift(mean=0.2, sd=0.0, bound=0.25).largest
        0.2
    """

    mean: float
    sd: float
    bound: float
    variance_khat: float = 0.0
    sd_se: float = 0.0
    sd_noise: float = 0.0
    dispute: float = 0.0
    surplus: float = 0.0

    @property
    def off(self) -> float:
        """How far moments of plain draws may be off: the larger of bound and surplus."""
        return max(self.bound, self.surplus)

    @property
    def largest(self) -> float:
        """The larger of the two significant changes."""
        return max(self.mean, self.sd)


def measure_shift(weighted: WeightedDraws, own: OwnSpread | None = None) -> WeightShift:
    """Compare weighted with plain moments of the draws in the user's parameters.

    A parameter whose posterior has tails too heavy for a standard deviation to be estimated
    is clipped at its 2.5 and 97.5% quantiles. Where it can be, however roughly, it counts:
    weights of nearly one leave little noise in the difference of two standard deviations that
    are both hard to tell.

    Args:
        own: standard deviations of the mixture, which count towards the bound: a flow may have
            an outlier in a million draws.

    Examples:
        >>> import amfvi
        >>> normal = amfvi.LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), dim=1)
        >>> posterior = amfvi.fit(normal, experts="gmm", n_draws=500)
        >>> measure_shift(posterior.weighted_draws()).largest < 0.1
        True
    """
    weights = weighted.smoothed_log_weights.exp()[:, None]  # 1 on average
    n, x = len(weights), weighted.x
    center = (weights * x).mean(dim=0)
    squares = weights * (x - center).square()
    relative_se = 0.5 * squares.std(dim=0) / squares.mean(dim=0).clamp(min=1e-300) / n**0.5
    carrying = (weights * squares).sum(dim=0) / squares.sum(dim=0).clamp(min=1e-300)
    of_squares = khat_of_squares(x, center)
    of_both = khat_of_squares(x, center, weighted.log_weights)
    has_variance = of_both < HEAVY_KHAT
    by_weights = (carrying > CARRIED_BY_WEIGHTS) & (of_squares < HEAVY_KHAT)
    is_heavy = ~(relative_se < MAX_PLAIN_SHIFT / 2) & ~by_weights
    is_measured = ~is_heavy | ((relative_se < MAX_MEASURED_SE) & has_variance)
    x = torch.where(is_measured, x, _clip(x, weights[:, 0]))
    standard = (x - x.mean(dim=0)) / x.std(dim=0).clamp(min=1e-300)
    terms = (weights - 1) * standard
    mean, mean_se = terms.mean(dim=0), terms.std(dim=0) / n**0.5
    terms = weights * (standard - mean).square() - standard.square()
    variance = (1 + terms.mean(dim=0)).clamp(min=1e-12)
    log_sd, log_sd_se = 0.5 * variance.log(), 0.5 * terms.std(dim=0) / n**0.5 / variance
    bounds = torch.cat([mean.abs() + 2 * mean_se, log_sd.abs() + 2 * log_sd_se])
    surplus = dispute = 0.0
    if own is not None:
        weighted_sd = squares.mean(dim=0).sqrt()
        noise = 2 * relative_se * math.sqrt(1 + n / own.n_draws)
        outliers = _log_ratio(own.sd, weighted_sd).abs() - torch.where(is_heavy, noise, 0.0)
        tellable = (of_both < TELLABLE_KHAT).double()
        unsupported = tellable * _beyond_what_is_told(own)
        bounds = torch.cat([bounds, torch.where(is_measured, outliers, 0.0), unsupported])
        surplus = float(torch.where(is_measured, 0.0, _surplus(own, of_both)).max())
        dispute = float((tellable * _dispute(own, weighted_sd, relative_se)).max())
    return WeightShift(
        mean=_largest_significant(mean.abs(), mean_se),
        sd=_largest_significant(log_sd, log_sd_se),
        bound=float(torch.nan_to_num(bounds, nan=math.inf).max()),
        variance_khat=_variance_khat(of_both, of_squares, n),
        sd_se=float(torch.where(is_heavy & (n >= MIN_DRAWS), 0.0, relative_se).max()),
        # A standard error of one or more is of squares that overflow.
        sd_noise=float(torch.where(has_variance & (relative_se < 1), relative_se, 0.0).max()),
        dispute=dispute,
        surplus=surplus,
    )


def _log_ratio(sd: Tensor, weighted_sd: Tensor) -> Tensor:
    """Logarithm (d,) of the ratio of standard deviations; 0 where nothing varies."""
    ratio = sd.clamp(min=1e-300) / weighted_sd.clamp(min=1e-300)
    return torch.where(weighted_sd > 0, ratio, 1.0).log()


def _surplus(own: OwnSpread, khat: Tensor) -> Tensor:
    """Excess of log sd (d,) by draws that the density does not support, where it is large."""
    if own.supported is None:
        return torch.zeros_like(own.sd)
    surplus = torch.where(own.sd > 0, (own.sd / own.supported.clamp(min=1e-300)).log(), 0.0)
    most = torch.where(khat < INFINITE_KHAT, MAX_SURPLUS, MAX_SURPLUS_OF_INFINITE)
    return torch.where(surplus > most.log(), surplus, 0.0)


def _dispute(own: OwnSpread, weighted_sd: Tensor, relative_se: Tensor) -> Tensor:
    """Significant differences of log sd (d,) between what is told and the weighted draws."""
    if own.told is None or own.told_se is None:
        return torch.zeros_like(own.sd)
    is_near = own.sd < MAX_SURPLUS * weighted_sd
    difference = torch.where(is_near, _log_ratio(own.told, weighted_sd).abs(), 0.0)
    se = torch.hypot(own.told_se, relative_se)
    return torch.where(difference > SIGNIFICANT * se, difference, 0.0)


def _beyond_what_is_told(own: OwnSpread) -> Tensor:
    """Difference of log sd (d,) from what the density says, less one standard error."""
    if own.told is None or own.told_se is None:
        return torch.zeros_like(own.sd)
    log_ratio = torch.where(own.sd > 0, (own.sd / own.told.clamp(min=1e-300)).log(), 0.0)
    return (log_ratio.abs() - own.told_se).clamp(min=0.0)


def _variance_khat(of_both: Tensor, of_squares: Tensor, n: int) -> float:
    """The largest k̂ of a weighted squared distance, where weights raise it; else 0.

    Less what chance adds to the largest of many, whose standard errors are (1 + k) / √M for the
    M draws of a tail (Smith 1987, doi:10.1214/aos/1176350499).
    """
    share = FEW / len(of_both)
    chance = math.sqrt(2) * float(torch.erfinv(torch.tensor(1 - 2 * min(share, 0.5)).double()))
    of_both = of_both - chance * (1 + of_both) / math.sqrt(tail_size(n))
    rise = of_both - of_squares
    is_raised = (rise > CLEAR_KHAT_OF_WEIGHTS) | ((rise > KHAT_OF_WEIGHTS) & (of_both > HEAVY_KHAT))
    is_raised &= of_squares < HEAVY_KHAT
    return float(torch.where(is_raised, of_both, 0.0).max())


def _clip(x: Tensor, weights: Tensor) -> Tensor:
    """Columns of (n, d) clipped at quantiles under weights (n,)."""
    ordered, order = x.sort(dim=0)
    cumulative = weights[order].cumsum(dim=0) / weights.sum()
    low = (cumulative < CLIPPED).sum(dim=0).clamp(max=len(x) - 1)
    high = (cumulative < 1 - CLIPPED).sum(dim=0).clamp(max=len(x) - 1)
    columns = torch.arange(x.shape[1])
    return x.clamp(ordered[low, columns], ordered[high, columns])


def _largest_significant(change: Tensor, se: Tensor) -> float:
    return float(torch.where(change > SIGNIFICANT * se, change, 0.0).max())
