"""Stage two: global mixture weights from the experts' log densities.

All rules work on one n × K matrix log qₖ(xᵢ), computed once on draws no expert was
trained on, so that every step is full batch and costs microseconds.

``ema`` is the exponential moving average of softmax likelihoods with the current
weights inside the softmax: w ← βw + (1−β)·meanᵢ softmaxₖ(log wₖ + log qₖ(xᵢ)). With
β = 0 that is the EM step for mixture weights; with any β < 1 it has the same fixed
point, the maximum-likelihood weights, under which the mixture is at least as likely
as its best expert on these draws. ``batch-mean`` is the rule as AMF-VI
(arXiv:2510.02056) prints it, w ← βw + (1−β)·softmaxₖ(meanᵢ log qₖ(xᵢ)), which
maximises nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from amfvi.errors import FitError, UsageError, unknown_name

__all__ = ["RULES", "Matrix", "WeightFit", "fit_weights", "normalised"]

RULES = ("ema", "em", "batch-mean", "uniform")
FADING = 1e-3

Matrix = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class WeightFit:
    """Weights, and how they came about.

    Attributes:
        weights: on the simplex, shape (K,).
        rule, beta: as used; ``beta`` is None for a rule without momentum.
        steps: number of updates.
        gap: maxₖ meanᵢ qₖ(xᵢ)/q_mix(xᵢ) − 1. The mean log density under the best
            possible weights exceeds that under these by at most ``gap`` nats, by
            concavity; 0 at the optimum.
        converged: whether the rule reached its own end: the gap for ``ema`` and
            ``em``, the fixed point for ``batch-mean``.
        path: weights after ``path_steps`` updates, shape (T, K), thinned.
        n: number of draws the weights rest on.
        n_ignored: draws at which every expert's density is zero; no weights can
            help there.
    """

    weights: Matrix
    rule: str
    beta: float | None
    steps: int
    gap: float
    converged: bool
    path: Matrix
    path_steps: NDArray[np.int64]
    n: int
    n_ignored: int

    @property
    def n_eff(self) -> float:
        """Effective number of experts, 1/Σw²."""
        return float(1 / np.square(self.weights).sum())


def fit_weights(
    log_densities: Tensor | Matrix,
    rule: str = "ema",
    *,
    beta: float = 0.9,
    draw_weights: Tensor | Matrix | None = None,
    tolerance: float = 1e-5,
    max_steps: int = 200_000,
) -> WeightFit:
    """Mixture weights from log densities (n, K) in nats.

    A draw's row may be shifted by any constant without effect. −inf is legal: that
    expert contributes nothing there. ``draw_weights`` (n,) are importance weights.

    Raises:
        UsageError: an unknown rule or β outside [0, 1).
        FitError: a NaN or +inf entry, or no draw at which any expert has density.
    """
    if rule not in RULES:
        raise unknown_name("weight rule", rule, RULES)
    if not 0 <= beta < 1:
        raise UsageError(f"beta must be in [0, 1), found {beta!r}")
    log_q = np.asarray(torch.as_tensor(log_densities).detach().cpu(), dtype=np.float64)
    if log_q.ndim != 2 or 0 in log_q.shape:
        raise FitError(f"log densities must be (n, K), found {log_q.shape}")
    bad = np.isnan(log_q) | (log_q == np.inf)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise FitError(f"expert {column} has log density {log_q[row, column]} at draw {row}")
    row_weights = normalised(draw_weights, len(log_q))
    reached = (log_q > -np.inf).any(axis=1) & (row_weights > 0)
    if not reached.any():
        raise FitError("no expert has any density at the draws the weights are estimated on")
    used = log_q[reached]
    row_weights = row_weights[reached] / row_weights[reached].sum()
    ratios = np.exp(used - used.max(axis=1, keepdims=True))

    k = log_q.shape[1]
    start = np.full(k, 1 / k)
    path = _Path(start)
    if rule == "uniform":
        steps, weights, converged = 0, start, True
    elif rule == "batch-mean":
        steps, weights, converged = _batch_mean(used, row_weights, beta, tolerance, path)
    else:
        momentum = beta if rule == "ema" else 0.0
        steps, weights, converged = _responsibilities(
            ratios, row_weights, momentum, tolerance, max_steps, path
        )
    recorded_steps, recorded = path.arrays(steps, weights)
    return WeightFit(
        weights=weights,
        rule=rule,
        beta={"ema": beta, "batch-mean": beta, "em": 0.0, "uniform": None}[rule],
        steps=steps,
        gap=float(_gradient(ratios, row_weights, weights).max() - 1),
        converged=converged,
        path=recorded,
        path_steps=recorded_steps,
        n=len(log_q),
        n_ignored=int((~reached).sum()),
    )


def normalised(draw_weights: Tensor | Matrix | None, n: int) -> Matrix:
    """Draw weights (n,) that sum to one.

    Raises:
        FitError: not n finite non-negative numbers, or all zero.
    """
    if draw_weights is None:
        return np.full(n, 1 / n)
    w = np.asarray(torch.as_tensor(draw_weights).detach().cpu(), dtype=np.float64)
    if w.shape != (n,) or not np.isfinite(w).all() or (w < 0).any() or w.sum() <= 0:
        raise FitError(f"draw weights must be {n} finite non-negative numbers, not all zero")
    return w / w.sum()


def _gradient(ratios: Matrix, row_weights: Matrix, weights: Matrix) -> Matrix:
    """meanᵢ qₖ(xᵢ)/q_mix(xᵢ): the gradient of the mean log-likelihood, shape (K,)."""
    with np.errstate(divide="ignore"):
        return (row_weights / (ratios @ weights)) @ ratios


def _responsibilities(
    ratios: Matrix,
    row_weights: Matrix,
    beta: float,
    tolerance: float,
    max_steps: int,
    path: _Path,
) -> tuple[int, Matrix, bool]:
    weights = path.start
    for step in range(max_steps + 1):
        gradient = _gradient(ratios, row_weights, weights)
        if gradient.max() - 1 <= tolerance:
            return step, _without_the_fading(ratios, row_weights, weights, tolerance), True
        if step == max_steps:
            break
        # wₖ·gradientₖ is the mean responsibility of expert k.
        weights = weights * (beta + (1 - beta) * gradient)
        weights = weights / weights.sum()
        path.record(step + 1, weights)
    return max_steps, weights, False


def _without_the_fading(
    ratios: Matrix, row_weights: Matrix, weights: Matrix, tolerance: float
) -> Matrix:
    """The same with zeros for weights on their way to zero, which they never reach.

    Only if the certificate holds without them too.
    """
    fading = (weights < FADING) & (_gradient(ratios, row_weights, weights) < 1)
    pruned = np.where(fading, 0.0, weights)
    pruned /= pruned.sum()
    if (ratios @ pruned <= 0).any():
        return weights
    holds = _gradient(ratios, row_weights, pruned).max() - 1 <= tolerance
    return pruned if holds else weights


def _batch_mean(
    log_q: Matrix, row_weights: Matrix, beta: float, tolerance: float, path: _Path
) -> tuple[int, Matrix, bool]:
    means = row_weights @ log_q
    if not (means > -np.inf).any():
        raise FitError(
            "batch-mean weights need one expert with density at every draw; use ema or em"
        )
    likelihoods = np.exp(means - means.max())
    fixed_point = likelihoods / likelihoods.sum()
    # The distance to the fixed point shrinks by β a step, so the count is known.
    steps = 1 if beta == 0 else math.ceil(math.log(tolerance) / math.log(beta))
    weights = path.start
    for step in np.unique(np.geomspace(1, steps, num=min(steps, 400)).round().astype(int)):
        weights = fixed_point + beta ** int(step) * (path.start - fixed_point)
        path.record(int(step), weights)
    return steps, weights, True


class _Path:
    """The weights along the way: every early step, later ones thinned geometrically."""

    def __init__(self, start: Matrix) -> None:
        self.start = start
        self._steps = [0]
        self._weights = [start]

    def record(self, step: int, weights: Matrix) -> None:
        if step <= 100 or step >= self._steps[-1] * 1.01:
            self._steps.append(step)
            self._weights.append(weights)

    def arrays(self, last_step: int, last: Matrix) -> tuple[NDArray[np.int64], Matrix]:
        if self._steps[-1] == last_step:
            self._weights[-1] = last
        else:
            self._steps.append(last_step)
            self._weights.append(last)
        return np.array(self._steps, dtype=np.int64), np.array(self._weights)
