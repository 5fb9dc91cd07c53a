"""Summary statistics of each parameter of a posterior."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["highest_density_interval", "summarize"]

QUANTILES = (0.025, 0.5, 0.975)
"""Quantiles that are shown."""

HDI = 0.94
"""Mass of the highest-density interval, as in ArviZ."""

Array = NDArray[np.float64]


def summarize(draws: Array, names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Mean, sd, quantiles and 94% highest-density interval of each parameter.

    Args:
        draws: (n, d), n ≥ 2.

    Examples:
        >>> summarize(np.array([[0.0], [2.0]]), ("mu",))["mu"]["mean"]
        1.0
    """
    rows = {}
    for name, column in zip(names, draws.T, strict=True):
        low, high = highest_density_interval(column, HDI)
        quantiles = np.quantile(column, QUANTILES)
        rows[name] = {
            "mean": float(column.mean()),
            "sd": float(column.std(ddof=1)),
            **{f"{100 * q:g}%": float(v) for q, v in zip(QUANTILES, quantiles, strict=True)},
            "hdi 3%": low,
            "hdi 97%": high,
        }
    return rows


def highest_density_interval(column: Array, mass: float) -> tuple[float, float]:
    """The shortest interval that holds a share ``mass`` of the draws (n,).

    For a density with several modes one interval can span a valley.

    Examples:
        >>> highest_density_interval(np.array([0.0, 1.0, 1.5, 9.0]), 0.75)
        (0.0, 1.5)
    """
    ordered = np.sort(column)
    inside = min(int(np.ceil(mass * len(ordered))), len(ordered))
    widths = ordered[inside - 1 :] - ordered[: len(ordered) - inside + 1]
    start = int(widths.argmin())
    return float(ordered[start]), float(ordered[start + inside - 1])
