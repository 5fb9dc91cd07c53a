"""Starting points of mixtures: k-means++ seeds (Arthur & Vassilvitskii 2007, SODA)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["seed_points"]

Array = NDArray[np.float64]


def seed_points(
    points: Array, k: int, random: np.random.RandomState, weights: Array | None = None
) -> Array:
    """Choose k of the points, far from one another, as centers of clusters.

    Each next one is drawn with probability proportional to weight times the squared distance
    to the nearest seed so far; of 2 + log k candidates that which leaves the least is taken.
    The package's own, since to import scikit-learn takes seconds.

    Args:
        points: shape (n, d).
        weights: of the points, (n,); None where all are equal.

    Returns:
        The seeds, (k, d).

    Examples:
        >>> points = np.repeat([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]], 5, axis=0)
        >>> seeds = seed_points(points, 3, np.random.RandomState(0))
        >>> sorted(seeds.tolist())
        [[0.0, 0.0], [0.0, 9.0], [9.0, 0.0]]
    """
    n, d = points.shape
    norms = np.square(points).sum(axis=1)
    w = np.ones(n) if weights is None else weights
    n_candidates = 2 + int(math.log(k))
    seeds = np.empty((k, d))
    seeds[0] = points[random.choice(n, p=w / w.sum())]
    nearest = np.square(points - seeds[0]).sum(axis=1)
    for i in range(1, k):
        cumulative = np.cumsum(w * nearest)
        drawn = random.uniform(size=n_candidates) * cumulative[-1]
        candidates = np.searchsorted(cumulative, drawn).clip(max=n - 1)
        distances = norms[candidates, None] + norms - 2 * points[candidates] @ points.T
        np.clip(distances, 0, nearest, out=distances)  # rounding may leave less than nothing
        best = int((distances @ w).argmin())
        seeds[i], nearest = points[candidates[best]], distances[best]
    return seeds
