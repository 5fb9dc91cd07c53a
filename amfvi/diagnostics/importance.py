"""Reliability of importance weights: Pareto-smoothed weights, k̂, evidence and its bounds.

Pareto-smoothed importance sampling (PSIS) is Vehtari et al. 2024 (JMLR 25:72); the
generalized Pareto distribution is fitted as by Zhang & Stephens 2009 (Technometrics
51:316). Checked against ArviZ in the tests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from amfvi.statistics import Estimate, effective_sample_size

__all__ = [
    "HEAVY_KHAT",
    "ImportanceEstimate",
    "khat_of_squares",
    "khat_threshold",
    "psis",
    "tail_size",
]

Array = NDArray[np.float64]

MIN_TAIL = 5
"""Fewest draws in a tail whose shape can be fitted."""

HEAVY_KHAT = 0.7
"""k̂ of squared distances from which no number of draws tells a variance."""

PRIOR_SHAPE = 0.5
"""Shape of the weak prior on k̂ (Vehtari et al. 2024, appendix C)."""

PRIOR_DRAWS = 10.0
"""Draws that the prior on k̂ counts as."""


def khat_threshold(n_draws: int) -> float:
    """k̂ below which importance sampling with S draws works: min(1 − 1/log₁₀S, 0.7).

    Examples:
        >>> khat_threshold(100), khat_threshold(10_000)
        (0.5, 0.7)
    """
    return min(1 - 1 / math.log10(max(n_draws, 11)), 0.7)


def psis(log_weights: Array) -> tuple[Array, float]:
    """Pareto-smooth log weights (n,): the largest become quantiles of a fitted tail.

    Weights of zero are never part of the tail.

    Returns:
        The smoothed log weights (n,), and k̂: −∞ where the largest weights are all equal,
        NaN where too few weights are positive to fit a tail.

    Examples:
        >>> smoothed, khat = psis(np.random.default_rng(0).normal(size=1000))
        >>> khat < 0.7
        True
    """
    n = len(log_weights)
    shifted = log_weights - log_weights.max()
    n_positive = int(np.isfinite(shifted).sum())
    tail = min(tail_size(n), n_positive - 1)
    order = np.argsort(shifted)
    largest = order[n - tail :]
    khat = math.nan
    if tail >= MIN_TAIL:
        cutoff = shifted[order[n - tail - 1]]
        excess = np.exp(shifted[largest]) - math.exp(cutoff)
        if excess[-1] <= 0 or np.ptp(excess) < np.finfo(float).tiny:
            khat = -math.inf
        else:
            khat, scale = _pareto(excess)
            if math.isfinite(khat):
                probability = (np.arange(tail) + 0.5) / tail
                quantiles = _pareto_quantile(probability, khat, scale) + math.exp(cutoff)
                shifted = shifted.copy()
                shifted[largest] = np.minimum(np.log(quantiles), 0.0)
    return shifted + log_weights.max(), khat


def _pareto(excess: Array) -> tuple[float, float]:
    """Shape k and scale of a generalized Pareto distribution from sorted excesses (n,)."""
    n = len(excess)
    points = 30 + math.isqrt(n)
    quartile = excess[int(n / 4 + 0.5) - 1]
    if quartile <= 0:
        quartile = excess[excess > 0][0]
    grid = np.arange(1, points + 1)
    theta = 1 / excess[-1] + (1 - np.sqrt(points / (grid - 0.5))) / (3 * quartile)
    shapes = np.log1p(-theta[:, None] * excess).mean(axis=1)
    profile = n * (np.log(-theta / shapes) - shapes - 1)
    with np.errstate(over="ignore"):  # an infinite sum is a weight of zero
        weights = 1 / np.exp(profile - profile[:, None]).sum(axis=1)
    likely = weights >= 10 * np.finfo(float).eps
    weights, theta = weights[likely] / weights[likely].sum(), theta[likely]
    best = float(weights @ theta)
    shape = float(np.log1p(-best * excess).mean())
    scale = -shape / best
    shape = (n * shape + PRIOR_DRAWS * PRIOR_SHAPE) / (n + PRIOR_DRAWS)
    return shape, scale


def _pareto_quantile(probability: Array, shape: float, scale: float) -> Array:
    if abs(shape) < 1e-12:
        return -scale * np.log1p(-probability)
    return scale * np.expm1(-shape * np.log1p(-probability)) / shape


@dataclass(frozen=True)
class ImportanceEstimate:
    """Evidence, bounds and reliability from S weighted draws of q.

    Attributes:
        n_draws: number of draws S.
        khat: Pareto shape of the weights' tail, or of that of a bound; NaN if unknown.
        ess: effective sample size of the (smoothed) weights, from 1 to S.
        elbo: E_q[log p̃ − log q] in nats; −∞ if p̃ is zero at a draw.
        log_z: logarithm of the mean (smoothed) weight, nats, with its standard error, which
            for k̂ above ½ falls as S^(k̂ − 1) (Vehtari et al. 2024, section 3.2).

    Examples:
        >>> round(ImportanceEstimate.from_log_weights(torch.zeros(100)).ess)
        100
    """

    n_draws: int
    khat: float
    ess: float
    elbo: Estimate
    log_z: Estimate

    @classmethod
    def from_log_weights(
        cls, log_weights: Tensor, *, khat_bound: float | None = None
    ) -> ImportanceEstimate:
        """Estimate from log p̃ − log q at S independent draws of q, (S,); −∞ is allowed.

        Weights known to be bounded by others whose k̂ is ``khat_bound`` have no tail to be
        smoothed, and a k̂ of at most that.
        """
        terms = log_weights.double()
        n = len(terms)
        if not bool((terms > -math.inf).any()):
            nothing = Estimate(-math.inf, math.nan)
            return cls(n, math.nan, 0.0, nothing, nothing)
        smoothed, khat = psis(terms.numpy())
        if khat_bound is not None:
            smoothed, khat = terms.numpy(), min(khat, khat_bound)
        log_z = float(np.logaddexp.reduce(smoothed)) - math.log(n)
        weights = torch.from_numpy(np.exp(smoothed - log_z))  # 1 on average
        # A tail with k̂ above ½ has no variance; its error shrinks more slowly than 1/√S.
        rate = 0.5 if not khat > 0.5 else max(1 - khat, 0.0)
        se = float(weights.std()) / n**rate
        return cls(
            n_draws=n,
            khat=khat,
            ess=effective_sample_size(weights),
            elbo=Estimate.from_terms(terms),
            log_z=Estimate(log_z, se),
        )

    @property
    def efficiency(self) -> float:
        """Effective sample size per draw, from 0 to 1."""
        return self.ess / self.n_draws


def tail_size(n: int) -> int:
    """Draws of ``n`` that the shape of a tail is fitted to (Vehtari et al. 2024).

    Examples:
        >>> tail_size(100), tail_size(10_000)
        (20, 300)
    """
    return math.ceil(min(n / 5, 3 * math.sqrt(n)))


def khat_of_squares(x: Tensor, center: Tensor, log_weights: Tensor | None = None) -> Tensor:
    """Estimate k̂ of the squared distances of draws (n, d) from the center, by coordinate, (d,).

    Args:
        log_weights: of the draws, (n,), if they are weighted.

    Examples:
        >>> import torch
        >>> x = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0)).double()
        >>> bool(khat_of_squares(x, x.mean(dim=0)) < HEAVY_KHAT), bool(
        ...     khat_of_squares(x / x.flip(0), x.mean(dim=0)) > HEAVY_KHAT)
        (True, True)
    """
    log_squares = (x - center).square().clamp(min=1e-300).log()
    if log_weights is not None:
        log_squares = log_squares + log_weights[:, None]
    khats = [psis(column.numpy())[1] for column in log_squares.T]
    return torch.tensor(khats, dtype=torch.float64)
