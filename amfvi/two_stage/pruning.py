"""Experts that are worth nothing leave a mixture, at a price that is told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from amfvi.statistics import effective_sample_size
from amfvi.two_stage.newton import newton_step
from amfvi.two_stage.weighed_densities import WeighedDensities
from amfvi.two_stage.weights import WeightFit

__all__ = ["prune"]

MAX_LOSS = 3.0
"""Most that the log likelihood of all draws together may lose, nats. In 28 fits of six experts
to 10,000 draws of six targets in two dimensions, pruned mixtures cost .30 of what the others cost
to evaluate, and were .00003 nats farther from the target."""

MAX_MEAN_LOSS = 3e-4
"""Most that the mean log density may lose, nats. Of fewer than 10,000 draws three nats are more,
and experts that such few draws hardly tell apart do better together."""

MAX_NEWTON_STEPS = 30
"""Most steps of Newton's method for the weights of a part of the experts."""

SETTLED = 1e-6
"""Change of the weights that ends them."""

Array = NDArray[np.float64]


def prune(
    fitted: WeightFit,
    log_densities: Tensor | Array,
    *,
    sample_weight: Tensor | Array | None = None,
) -> WeightFit:
    """Leave out experts without which the draws are as likely, and weigh the others again.

    One at a time, that which loses least first, as long as all draws together lose no more than
    three nats, each 3e-4 on average, and the mixture remains at least as likely as the best expert.
    Experts of weight zero are not evaluated, so that a mixture of fewer is faster by as much.

    Args:
        fitted: weights by a rule that maximizes the likelihood.
        log_densities, sample_weight: what they were fitted to, as there.

    Examples:
        >>> from amfvi.two_stage.weights import fit_weights
        >>> log_q = np.log([[2.0, 1.0, 1.8], [1.0, 2.0, 0.9], [1.0, 1.0, 0.9]])
        >>> pruned = prune(fit_weights(log_q, "em"), log_q)
        >>> pruned.left_out, pruned.price < 1e-4
        ((2,), True)
    """
    densities = WeighedDensities.of(log_densities, sample_weight)
    ratios, row_weights = densities.ratios, densities.row_weights
    n = effective_sample_size(torch.from_numpy(row_weights))
    before = _mean_log(ratios, row_weights, fitted.weights)
    best_expert = max(_mean_log(ratios, row_weights, one) for one in np.eye(ratios.shape[1]))
    lowest = max(before - min(MAX_LOSS / n, MAX_MEAN_LOSS), min(best_expert, before))
    weights: Array | None = fitted.weights
    while weights is not None:
        kept, weights = weights, _one_fewer(ratios, row_weights, weights, lowest)
    price = max(before - _mean_log(ratios, row_weights, kept), 0.0)
    return replace(
        fitted,
        weights=kept,
        path=np.vstack([fitted.path[:-1], kept]),
        gap=fitted.gap + price,
        price=price,
        left_out=tuple(np.flatnonzero(kept == 0).tolist()),
    )


def _one_fewer(ratios: Array, row_weights: Array, weights: Array, lowest: float) -> Array | None:
    """The best weights of one expert fewer; None where none of them is as likely as allowed."""
    present = np.flatnonzero(weights)
    best = None
    for k in present if len(present) > 1 else ():
        others = present[present != k]
        part = _optimum(ratios[:, others], row_weights, weights[others])
        if part is None:
            continue
        reached = _mean_log(ratios[:, others], row_weights, part)
        if reached >= lowest:
            candidate = np.zeros_like(weights)
            candidate[others] = part
            lowest, best = reached, candidate
    return best


def _optimum(ratios: Array, row_weights: Array, start: Array) -> Array | None:
    """The weights of the greatest likelihood; None where some draw has no density."""
    if (ratios.max(axis=1) <= 0).any():
        return None
    weights = 0.9 * start / start.sum() + 0.1 / len(start)  # positive, so that all draws are
    for _ in range(MAX_NEWTON_STEPS):
        moved = newton_step(ratios, row_weights, weights)
        if moved is None or np.abs(moved - weights).max() < SETTLED:
            break
        weights = moved
    return weights


def _mean_log(ratios: Array, row_weights: Array, weights: Array) -> float:
    with np.errstate(divide="ignore"):
        return float(row_weights @ np.log(ratios @ weights))
