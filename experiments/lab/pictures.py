"""Figures that several studies have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lab.tables import Row, distinct, values

__all__ = ["MIXTURE_LAST", "PALETTE", "dots_by_target", "lines_by_target"]

PALETTE = ("#1b6ca8", "#d1495b", "#edae49", "#00798c", "#7b5ea7", "#5b8c5a", "#8d6b4f", "0.4")
"""Colors of methods; the first is the mixture's."""

MIXTURE_LAST = (*PALETTE[1:4], PALETTE[0])
"""Colors of three experts and, last, of their mixture."""

KL = "KL(p‖q), nats"
"""Label of an axis."""


def dots_by_target(
    ax: Axes,
    rows: Iterable[Row],
    across: str,
    shown: Sequence[str],
    key: str = "kl",
    colors: Sequence[str] = PALETTE,
    **where: Any,
) -> None:
    """Draw a dot per run, targets side by side, one color for each of ``row[across]`` shown."""
    rows = list(rows)
    targets = distinct(rows, "target")
    for number, (name, color) in enumerate(zip(shown, colors, strict=False)):
        shift = 0.7 * ((number + 0.5) / len(shown) - 0.5)
        for place, target in enumerate(targets):
            y = values(rows, key, **where, **{"target": target, across: name})
            label = name if place == 0 else None
            x = np.full(len(y), place + shift)
            ax.plot(x, y, "o", ms=4, color=color, alpha=0.8, label=label)
    ax.set_yscale("log")
    ax.set_ylabel(KL)
    ax.set_xticks(range(len(targets)), targets, rotation=20 if len(targets) > 4 else 0, fontsize=8)
    ax.grid(axis="y", alpha=0.3)


def lines_by_target(
    rows: Iterable[Row], along: str, across: str, shown: Sequence[str], colors: Sequence[str]
) -> Figure:
    """Draw mean KL along ``row[along]``, a panel per target, a line per ``row[across]``."""
    rows = list(rows)
    targets = distinct(rows, "target")
    n_columns = min(3, len(targets))
    n_lines = -(-len(targets) // n_columns)
    figure = Figure(figsize=(9, 0.6 + 2.3 * n_lines), layout="constrained")
    grid = figure.subplots(n_lines, n_columns, sharex=True, squeeze=False).ravel()
    places = sorted(distinct(rows, along))
    for ax, target in zip(grid, targets, strict=False):
        for name, color in zip(shown, colors, strict=True):
            kl = [values(rows, "kl", **{"target": target, along: x, across: name}) for x in places]
            points = [(x, y.mean()) for x, y in zip(places, kl, strict=True) if len(y)]
            ax.plot(*zip(*points, strict=True), "-o", ms=3, color=color, label=name)
        ax.set_title(target, fontsize=9)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.tick_params(labelsize=8)
        ax.grid(alpha=0.3)
    for ax in grid[len(targets) :]:
        ax.set_visible(False)
    names = grid[0].get_legend_handles_labels()
    figure.legend(*names, loc="outside upper center", ncols=6, fontsize=7, frameon=False)
    figure.supylabel(KL, fontsize=9)
    return figure
