"""The map to an interval of parameters, chosen by held-out conditional density."""

from __future__ import annotations

import math
from dataclasses import replace

from amfvi.conditional.pairs import PairSplit
from amfvi.constraints.transform import UnconstrainingTransform
from amfvi.experts import GMM
from amfvi.randomness import generator_for

__all__ = ["choose_bounds"]

WIDTHS = (math.inf, 1 / 30, 1 / 100)
"""Widths of a soft clamp that are tried, as shares of the interval; infinite for a logistic map."""

SCOUT = GMM(max_components=8)
"""The expert that is fitted behind each map: it takes a fraction of a second."""


def choose_bounds(split: PairSplit, seed: int) -> UnconstrainingTransform:
    """Choose logistic maps or soft clamps for all intervals, by the density of held-out rows.

    Examples:
        >>> import torch
        >>> from amfvi.conditional.pairs import Pairs, split_pairs
        >>> generator = torch.Generator().manual_seed(0)
        >>> y = torch.rand(300, 1, generator=generator, dtype=torch.float64)
        >>> c = y + 0.05 * torch.randn(300, 1, generator=generator, dtype=torch.float64)
        >>> split = split_pairs(Pairs.from_arrays(y, c, constraints=[(0, 1)]), 0.0, 0, 5)
        >>> choose_bounds(split, seed=0).softplus_scales
        (0.01,)
    """
    constraints, transform = split.transform.constraints, split.transform
    bounds = zip(constraints.lower, constraints.upper, strict=True)
    in_vector = {
        i for vector in constraints.vectors for i in range(constraints.dim)[vector.columns]
    }
    size = {
        i: high - low
        for i, (low, high) in enumerate(bounds)
        if math.isfinite(low) and math.isfinite(high) and i not in in_vector
    }
    if not size:
        return transform
    scored = []
    for width in WIDTHS:
        scales = list(transform.softplus_scales)
        for i, whole in size.items():
            scales[i] = width * whole
        candidate = replace(transform, softplus_scales=tuple(scales))
        scored.append((_score(split.with_transform(candidate), seed), candidate))
    return max(scored, key=lambda pair: pair[0])[1]


def _score(split: PairSplit, seed: int) -> float:
    """Mean log density in nats of the held-out rows, in the user's parameters."""
    y, log_det = split.transform.to_unconstrained(split.draws)
    if not bool(y.isfinite().all()):
        return -math.inf
    expert, _ = SCOUT.fit_folds(split.folds, generator=generator_for(seed, "bounds"))
    is_heldout = split.folds.is_heldout
    log_q = expert.log_prob_out_of_fold(split.folds) + log_det[is_heldout]
    weights = split.folds.normalized_weights[is_heldout]
    score = float((weights * log_q).sum() / weights.sum())
    return score if math.isfinite(score) else -math.inf
