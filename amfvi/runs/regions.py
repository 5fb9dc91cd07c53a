"""Regions of highest density of draws in two parameters, and which parameters agree least."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

__all__ = ["SHARES", "Regions", "limits_of", "marginal_distances"]

Array = NDArray[np.float64]
Window = tuple[tuple[float, float], tuple[float, float]]

SHARES = (0.5, 0.9)
"""Shares of the mass in the regions."""

BINS = 90
"""Cells per side of the grid that a density of draws is estimated on."""

BANDWIDTHS = (0.7, 1.0, 1.5, 2.2, 3.3, 5.0)
"""Standard deviations of the Gaussian kernel, in cells; held-out draws choose one."""


@dataclass(frozen=True, kw_only=True)
class Regions:
    """Regions of highest density of draws in two parameters.

    The density is a histogram smoothed by a Gaussian kernel, whose width held-out draws choose by
    likelihood; held-out draws also say where a region ends, so that it holds its share.

    Attributes:
        density: on the cells, up to a factor, (BINS, BINS), first index the second parameter.
        window: (low, high) of the first and of the second parameter.
        levels: densities at the borders of the regions, as ``SHARES``.

    Examples:
        >>> draws = np.random.default_rng(0).normal(size=(4000, 2))
        >>> regions = Regions.of(draws, ((-4, 4), (-4, 4)))
        >>> inside = regions.shares_inside(np.random.default_rng(1).normal(size=(4000, 2)))
        >>> [bool(abs(a - b) < 0.05) for a, b in zip(inside, SHARES)]
        [True, True]
    """

    density: Array
    window: Window
    levels: tuple[float, ...]

    @classmethod
    def of(cls, draws: Array, window: Window) -> Regions:
        """Estimate the regions of draws (n, 2) inside a window."""
        fitted, held_out = (_counts(half, window) for half in (draws[::2], draws[1::2]))
        smoothed = [gaussian_filter(fitted, bandwidth, truncate=3) for bandwidth in BANDWIDTHS]
        floor = 1e-3 / max(fitted.sum(), 1) / BINS**2
        scores = [float((held_out * np.log(each + floor)).sum()) for each in smoothed]
        density = smoothed[int(np.argmax(scores))]
        order = np.argsort(density, axis=None)[::-1]
        mass = held_out.ravel()[order].cumsum() / max(len(draws) // 2, 1)
        places = [min(int(np.searchsorted(mass, share)), len(order) - 1) for share in SHARES]
        levels = tuple(float(density.ravel()[order[place]]) for place in places)
        return cls(density=density, window=window, levels=levels)

    @property
    def centers(self) -> tuple[Array, Array]:
        """The centers of the cells along either side, (BINS,) each."""
        x, y = (np.linspace(low, high, 2 * BINS + 1)[1::2] for low, high in self.window)
        return x, y

    def shares_inside(self, draws: Array) -> tuple[float, ...]:
        """The share of draws (n, 2) that lies in each region."""
        counts = _counts(draws, self.window)
        return tuple(
            float(counts[self.density >= level].sum() / max(len(draws), 1)) for level in self.levels
        )


def _counts(draws: Array, window: Window) -> Array:
    counts, _, _ = np.histogram2d(draws[:, 1], draws[:, 0], bins=BINS, range=window[::-1])
    return counts


def marginal_distances(ours: Array, others: Array) -> Array:
    """Kolmogorov–Smirnov distances between the marginals of two sets of draws, (d,).

    Examples:
        >>> marginal_distances(np.array([[0.0], [1.0]]), np.array([[0.5], [1.5]]))
        array([0.5])
    """
    distances = np.empty(ours.shape[1])
    for j in range(ours.shape[1]):
        a, b = np.sort(ours[:, j]), np.sort(others[:, j])
        at = np.concatenate([a, b])
        below = (np.searchsorted(each, at, side="right") / len(each) for each in (a, b))
        distances[j] = np.abs(np.subtract(*below)).max()
    return distances


def limits_of(*columns: Array) -> tuple[float, float]:
    """The range of nearly all values of several columns, with a margin.

    Examples:
        >>> low, high = limits_of(np.array([0.0, 1.0]), np.array([2.0]))
        >>> low < 0.1, high > 1.9
        (True, True)
    """
    quantiles = [np.quantile(column, [0.002, 0.998]) for column in columns]
    low, high = min(q[0] for q in quantiles), max(q[1] for q in quantiles)
    margin = 0.06 * (high - low) or 0.5 * abs(high) or 0.5
    return float(low - margin), float(high + margin)
