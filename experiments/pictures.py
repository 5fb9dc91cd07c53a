"""Figures that several studies have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from study import PALETTE, Row, values

__all__ = ["dots_by_target", "lines_by_target"]

KL = "KL(p‖q), nats"


def dots_by_target(
    ax: Axes,
    rows: Iterable[Row],
    across: str,
    shown: Sequence[str],
    key: str = "kl",
    colours: Sequence[str] = PALETTE,
    **where: Any,
) -> None:
    """A dot for each run, targets side by side, one colour for each of ``row[across]`` shown."""
    rows = list(rows)
    targets = list(dict.fromkeys(row["target"] for row in rows))
    for number, (name, colour) in enumerate(zip(shown, colours, strict=False)):
        shift = 0.7 * ((number + 0.5) / len(shown) - 0.5)
        for place, target in enumerate(targets):
            y = values(rows, key, **where, **{"target": target, across: name})
            label = name if place == 0 else None
            x = np.full(len(y), place + shift)
            ax.plot(x, y, "o", ms=4, color=colour, alpha=0.8, label=label)
    ax.set_yscale("log")
    ax.set_ylabel(KL)
    ax.set_xticks(range(len(targets)), targets, rotation=20 if len(targets) > 4 else 0, fontsize=8)
    ax.grid(axis="y", alpha=0.3)


def lines_by_target(
    rows: Iterable[Row], along: str, across: str, shown: Sequence[str], colours: Sequence[str]
) -> Figure:
    """A panel for each target: mean KL along ``row[along]``, a line for each ``row[across]``."""
    rows = list(rows)
    targets = list(dict.fromkeys(row["target"] for row in rows))
    columns = min(3, len(targets))
    lines = -(-len(targets) // columns)
    figure = Figure(figsize=(9, 0.6 + 2.3 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, sharex=True, squeeze=False).ravel()
    places = sorted({row[along] for row in rows})
    for ax, target in zip(grid, targets, strict=False):
        for name, colour in zip(shown, colours, strict=True):
            of = [values(rows, "kl", **{"target": target, along: x, across: name}) for x in places]
            known = [(x, y.mean()) for x, y in zip(places, of, strict=True) if len(y)]
            ax.plot(*zip(*known, strict=True), "-o", ms=3, color=colour, label=name)
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
