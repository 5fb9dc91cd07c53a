"""Stage two: global mixture weights from the log densities of the experts.

All rules work on one n × K matrix log qₖ(xᵢ), computed once on draws no expert was
trained on, so that every step is full batch and costs microseconds.

``ema`` is the exponential moving average of softmax likelihoods with the current
weights inside the softmax: w ← βw + (1−β)·meanᵢ softmaxₖ(log wₖ + log qₖ(xᵢ)). With
β = 0 that is the EM step for mixture weights; with any β < 1 it has the same fixed
point, the maximum-likelihood weights, under which the mixture is at least as likely
as its best expert on these draws. Between experts that are nearly equal it takes tens of
thousands of steps; after some, Newton's method goes on to the same point.
``batch-mean`` is the rule as AMF-VI (arXiv:2510.02056) prints it,
w ← βw + (1−β)·softmaxₖ(meanᵢ log qₖ(xᵢ)), which maximizes no likelihood.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from amfvi.errors import FitError, UsageError, unknown_name
from amfvi.two_stage.newton import newton_step
from amfvi.two_stage.weighed_densities import WeighedDensities

__all__ = ["OPTIMAL_RULES", "WEIGHT_RULES", "WeightFit", "fit_weights"]

OPTIMAL_RULES = ("ema", "em")
"""The weight rules that maximize the likelihood."""

WEIGHT_RULES = (*OPTIMAL_RULES, "batch-mean", "uniform")
"""The weight rules by name."""

NEGLIGIBLE_WEIGHT = 1e-3
"""Weight below which an expert may be left out, if the certificate holds without it."""

MAX_NEWTON_STEPS = 100
"""Most steps of Newton's method; a handful is usual."""

BISECTIONS = 12
"""Halvings of the way to the optimum, for the part of it that closes the gap."""

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class WeightFit:
    """Fitted weights with their certificate and history.

    Attributes:
        weights: on the simplex, shape (K,).
        weight_rule, beta: as used; ``beta`` is None for a rule without momentum.
        steps: number of updates, those by Newton's method included.
        newton_steps: updates by Newton's method, the last ones.
        gap: maxₖ meanᵢ qₖ(xᵢ)/q_mix(xᵢ) − 1. The mean log density under the best
            possible weights exceeds that under these by at most ``gap`` nats, by
            concavity; 0 at the optimum.
        converged: whether the rule reached its own end: the gap for ``ema`` and
            ``em``, the fixed point for ``batch-mean``.
        path: weights after ``path_steps`` updates, shape (T, K), thinned.
        n: number of draws the weights rest on.
        n_ignored: draws at which every expert's density is zero; no weights can
            help there.
        price: mean log density lost by leaving experts out, nats; in ``gap`` already.
        left_out: columns of the experts that were (:func:`amfvi.two_stage.pruning.prune`).

    Examples:
        >>> fitted = fit_weights(np.zeros((10, 2)), "em")
        >>> fitted.n_eff, fitted.gap, fitted.converged
        (2.0, 0.0, True)
    """

    weights: Array
    weight_rule: str
    beta: float | None
    steps: int
    newton_steps: int
    gap: float
    converged: bool
    path: Array
    path_steps: NDArray[np.int64]
    n: int
    n_ignored: int
    price: float = 0.0
    left_out: tuple[int, ...] = ()

    @property
    def n_eff(self) -> float:
        """Effective number of experts, 1/Σw², from 1 to K."""
        return float(1 / np.square(self.weights).sum())


def fit_weights(
    log_densities: Tensor | Array,
    weight_rule: str = "ema",
    *,
    beta: float = 0.9,
    sample_weight: Tensor | Array | None = None,
    tolerance: float = 1e-5,
    max_steps: int = 2_000,
    finish: bool = True,
) -> WeightFit:
    """Estimate mixture weights from log densities (n, K) in nats.

    A constant added to a row has no effect. An expert with −inf contributes nothing there.

    Args:
        sample_weight: importance weights of the draws, (n,).
        tolerance: gap in nats at which "ema" and "em" stop.
        max_steps: most updates by "ema" and "em".
        finish: whether Newton's method goes on from there to the tolerance.

    Raises:
        UsageError: an unknown rule or β outside [0, 1).
        FitError: a NaN or +inf entry, or no draw at which any expert has density.

    Examples:
        >>> log_q = np.array([[0.0, -9.0], [0.0, -9.0], [-9.0, 0.0]])
        >>> fit_weights(log_q).weights.round(2)
        array([0.67, 0.33])
    """
    _require_rule(weight_rule, beta)
    densities = WeighedDensities.of(log_densities, sample_weight)
    ratios, row_weights = densities.ratios, densities.row_weights
    path, newton_steps, converged = _Path(ratios.shape[1]), 0, True
    if weight_rule == "batch-mean":
        _batch_mean(densities.log_q, row_weights, beta, tolerance, path)
    elif weight_rule != "uniform":
        momentum = beta if weight_rule == "ema" else 0.0
        converged = _responsibilities(ratios, row_weights, momentum, tolerance, max_steps, path)
        if finish and not converged:
            newton_steps, converged = _newton(ratios, row_weights, tolerance, path)
    recorded_steps, recorded = path.arrays()
    return WeightFit(
        weights=path.weights,
        weight_rule=weight_rule,
        beta={"ema": beta, "batch-mean": beta, "em": 0.0, "uniform": None}[weight_rule],
        steps=path.step,
        newton_steps=newton_steps,
        gap=_gap(ratios, row_weights, path.weights),
        converged=converged,
        path=recorded,
        path_steps=recorded_steps,
        n=densities.n,
        n_ignored=densities.n - len(ratios),
    )


def _require_rule(weight_rule: str, beta: float) -> None:
    if weight_rule not in WEIGHT_RULES:
        raise unknown_name("weight rule", weight_rule, WEIGHT_RULES)
    if not 0 <= beta < 1:
        raise UsageError(f"beta= must be in [0, 1), found {beta!r}")


def _gradient(ratios: Array, row_weights: Array, weights: Array) -> Array:
    """meanᵢ qₖ(xᵢ)/q_mix(xᵢ): the gradient of the mean log-likelihood, shape (K,)."""
    with np.errstate(divide="ignore"):
        return (row_weights / (ratios @ weights)) @ ratios


def _gap(ratios: Array, row_weights: Array, weights: Array) -> float:
    return float(_gradient(ratios, row_weights, weights).max() - 1)


def _responsibilities(
    ratios: Array,
    row_weights: Array,
    beta: float,
    tolerance: float,
    max_steps: int,
    path: _Path,
) -> bool:
    """Average responsibilities until the gap is closed; whether it is."""
    for _ in range(max_steps):
        gradient = _gradient(ratios, row_weights, path.weights)
        if gradient.max() - 1 <= tolerance:
            break
        # wₖ·gradientₖ is the mean responsibility of expert k.
        weights = path.weights * (beta + (1 - beta) * gradient)
        path.record(path.step + 1, weights / weights.sum())
    return _certify(ratios, row_weights, tolerance, path)


def _newton(ratios: Array, row_weights: Array, tolerance: float, path: _Path) -> tuple[int, bool]:
    """Go on by Newton's method: its number of steps, and whether the gap is closed."""
    average, first = path.weights, path.step
    while _gap(ratios, row_weights, path.weights) > tolerance:
        moved = newton_step(ratios, row_weights, path.weights)
        if moved is None or path.step - first == MAX_NEWTON_STEPS:
            return path.step - first, False
        path.record(path.step + 1, moved, keep=True)
    # No further from the average than closes the gap: experts that the draws hardly tell apart
    # keep their weights.
    low, high, optimum = 0.0, 1.0, path.weights
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        closed = _gap(ratios, row_weights, average + middle * (optimum - average)) <= tolerance
        low, high = (low, middle) if closed else (middle, high)
    path.weights = average + high * (optimum - average)
    return path.step - first, _certify(ratios, row_weights, tolerance, path)


def _certify(ratios: Array, row_weights: Array, tolerance: float, path: _Path) -> bool:
    """Whether the gap is closed; negligible weights then become zero."""
    if _gap(ratios, row_weights, path.weights) > tolerance:
        return False
    path.weights = _drop_negligible(ratios, row_weights, path.weights, tolerance)
    return True


def _drop_negligible(ratios: Array, row_weights: Array, weights: Array, tolerance: float) -> Array:
    """Set weights that tend to zero to zero, if the certificate holds without them too."""
    negligible = (weights < NEGLIGIBLE_WEIGHT) & (_gradient(ratios, row_weights, weights) < 1)
    pruned = np.where(negligible, 0.0, weights)
    pruned /= pruned.sum()
    if (ratios @ pruned <= 0).any():
        return weights
    return pruned if _gap(ratios, row_weights, pruned) <= tolerance else weights


def _batch_mean(
    log_q: Array, row_weights: Array, beta: float, tolerance: float, path: _Path
) -> None:
    means = row_weights @ log_q
    if not (means > -np.inf).any():
        raise FitError(
            "batch-mean weights need one expert with density at every draw; use ema or em"
        )
    likelihoods = np.exp(means - means.max())
    fixed_point = likelihoods / likelihoods.sum()
    # The distance to the fixed point shrinks by β a step, so the count is known.
    steps = 1 if beta == 0 else math.ceil(math.log(tolerance) / math.log(beta))
    start = path.weights
    for step in np.unique(np.geomspace(1, steps, num=min(steps, 400)).round().astype(int)):
        path.record(int(step), fixed_point + beta ** int(step) * (start - fixed_point))


class _Path:
    """The weights along the way from equal ones: every early step, later ones thinned.

    Attributes:
        step: number of the last update.
        weights: after it.
    """

    def __init__(self, k: int) -> None:
        self.step, self.weights = 0, np.full(k, 1 / k)
        self._kept: dict[int, Array] = {0: self.weights}
        self._last_kept = 0

    def record(self, step: int, weights: Array, *, keep: bool = False) -> None:
        self.step, self.weights = step, weights
        if keep or step <= 100 or step >= self._last_kept * 1.01:
            self._kept[step], self._last_kept = weights, step

    def arrays(self) -> tuple[NDArray[np.int64], Array]:
        kept = {**self._kept, self.step: self.weights}
        return np.array(list(kept), dtype=np.int64), np.array(list(kept.values()))
