"""Importance weights: how far draws of q can stand for draws of p, and what ∫p then is.

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

from amfvi.metrics.likelihood import Estimate
from amfvi.weighting import effective_sample_size

__all__ = ["Importance", "khat_threshold", "psis"]

Array = NDArray[np.float64]

FEWEST_TAIL = 5  # draws a tail needs for its shape to be fitted
PRIOR_SHAPE, PRIOR_DRAWS = 0.5, 10.0  # the shape is drawn a little towards ½


def khat_threshold(draws: int) -> float:
    """k̂ below which importance sampling with so many draws works: min(1 − 1/log₁₀S, .7)."""
    return min(1 - 1 / math.log10(max(draws, 11)), 0.7)


def psis(log_weights: Array) -> tuple[Array, float]:
    """Log weights (n,) with the largest replaced by quantiles of a Pareto tail, and k̂.

    k̂ is −∞ where the largest weights are all equal, and NaN where there are too few
    draws to say.
    """
    n = len(log_weights)
    shifted = log_weights - log_weights.max()
    tail = math.ceil(min(n / 5, 3 * math.sqrt(n)))
    order = np.argsort(shifted)
    largest = order[n - tail :]
    khat = math.nan
    if tail >= FEWEST_TAIL:
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
class Importance:
    """What draws of q and their log p̃ − log q say about p̃.

    Attributes:
        draws: how many, S.
        khat: Pareto shape of the weights' tail, or of that of a bound; NaN if unknown.
        ess: effective sample size of the (smoothed) weights, from 1 to S.
        elbo: E_q[log p̃ − log q] in nats; −∞ if p̃ is zero at a draw.
        log_z: logarithm of the mean (smoothed) weight, nats, with its standard error.
    """

    draws: int
    khat: float
    ess: float
    elbo: Estimate
    log_z: Estimate

    @classmethod
    def of(cls, log_weights: Tensor, *, bound: float | None = None) -> Importance:
        """From log p̃ − log q at S independent draws of q, (S,); −∞ is allowed.

        Weights known to be bounded by others whose k̂ is ``bound`` have no tail to be
        smoothed, and a k̂ of at most that.
        """
        terms = log_weights.double()
        n = len(terms)
        if not bool((terms > -math.inf).any()):
            nothing = Estimate(-math.inf, math.nan)
            return cls(n, math.nan, 0.0, nothing, nothing)
        smoothed, khat = psis(terms.numpy())
        if bound is not None:
            smoothed, khat = terms.numpy(), min(khat, bound)
        log_z = float(np.logaddexp.reduce(smoothed)) - math.log(n)
        weights = torch.from_numpy(np.exp(smoothed - log_z))  # 1 on average
        se = float(weights.std()) / math.sqrt(n)
        return cls(
            draws=n,
            khat=khat,
            ess=effective_sample_size(weights),
            elbo=Estimate.of(terms),
            log_z=Estimate(log_z, se),
        )

    @property
    def efficiency(self) -> float:
        """Effective share of the draws, from 0 to 1."""
        return self.ess / self.draws
