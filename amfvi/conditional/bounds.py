"""The map to an interval of parameters, chosen by held-out conditional density."""

from __future__ import annotations

import math
from dataclasses import replace

from amfvi.conditional.pairs import PairSplit
from amfvi.conditional.reflection import reflect
from amfvi.constraints.transform import UnconstrainingTransform
from amfvi.experts import GMM
from amfvi.experts.reflected import MAX_REFLECTED
from amfvi.randomness import generator_for

__all__ = ["choose_bounds"]

WIDTHS = (math.inf, 1 / 30, 1 / 100, 0.0)
"""Widths of a soft clamp that are tried, as shares of the interval; infinite for a logistic map,
and zero for none, where densities are reflected."""

LEAST_GAIN = 0.3
"""Nats per row by which a map must be ahead of reflection. Of few rows the order is noise, and
behind reflection fits to two moons and to a mixture in a box were a quarter to a half nearer to
the truth; what falls off toward a bound as a power of the distance is ahead by more."""

SCOUT = GMM(max_components=8)
"""The expert that is fitted behind each map: it takes a fraction of a second."""


def choose_bounds(split: PairSplit, seed: int) -> UnconstrainingTransform:
    """Choose logistic maps, soft clamps or reflection for all intervals, by held-out density.

    Examples:
        >>> import torch
        >>> from amfvi.conditional.pairs import Pairs, split_pairs
        >>> generator = torch.Generator().manual_seed(0)
        >>> y = torch.rand(300, 1, generator=generator, dtype=torch.float64)
        >>> c = y + 0.05 * torch.randn(300, 1, generator=generator, dtype=torch.float64)
        >>> split = split_pairs(Pairs.from_arrays(y, c, constraints=[(0, 1)]), 0.0, 0, 5)
        >>> choose_bounds(split, seed=0).softplus_scales
        (0.0,)
    """
    transform = split.transform
    bounds = transform.constraints.lower, transform.constraints.upper
    if not transform.intervals:
        return transform
    reflects = len(transform.intervals) <= MAX_REFLECTED
    scored = []
    for width in WIDTHS if reflects else WIDTHS[:-1]:
        scales = list(transform.softplus_scales)
        for i in transform.intervals:
            scales[i] = width * (bounds[1][i] - bounds[0][i])
        candidate = replace(transform, softplus_scales=tuple(scales))
        scored.append((_score(split.with_transform(candidate), seed), candidate))
    if reflects:
        scored[-1] = scored[-1][0] + LEAST_GAIN, scored[-1][1]
    return max(scored, key=lambda pair: pair[0])[1]


def _score(split: PairSplit, seed: int) -> float:
    """Mean log density in nats of the held-out rows, in the user's parameters."""
    y, log_det = split.transform.to_unconstrained(split.draws)
    if not bool(y.isfinite().all()):
        return -math.inf
    fitted, _ = SCOUT.fit_folds(split.folds, generator=generator_for(seed, "bounds"))
    is_heldout = split.folds.is_heldout
    expert = reflect(fitted, split.transform)
    log_q = expert.log_prob_out_of_fold(split.folds) + log_det[is_heldout]
    weights = split.folds.normalized_weights[is_heldout]
    score = float((weights * log_q).sum() / weights.sum())
    return score if math.isfinite(score) else -math.inf
