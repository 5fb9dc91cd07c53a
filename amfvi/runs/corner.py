"""The corner plot: regions of a mixture over reference draws, for every pair of parameters."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from amfvi.runs.regions import SHARES, Regions, Window, limits_of, marginal_distances
from amfvi.runs.style import (
    LEVEL_STYLES,
    MIXTURE_COLOR,
    REFERENCE_COLOR,
    WARNING_COLOR,
    few_ticks,
    plain,
    shorten,
    sized_figure,
)

__all__ = ["corner_figure", "draw_contours", "parameters_shown"]

Array = NDArray[np.float64]

MAX_CORNER_DIM = 10
"""Most parameters of which all pairs are shown."""

N_SHOWN_OF_MANY = 8
"""Parameters that are shown where there are more: those that agree least."""

MAX_POINTS = 1200
"""Reference draws that are drawn as points; the numbers rest on all of them."""

PANEL_INCHES = {1: 3.6, 2: 2.7, 3: 2.2, 4: 1.9, 5: 1.7, 6: 1.5, 7: 1.4, 8: 1.3, 9: 1.2, 10: 1.15}
"""Side of a panel by the number of parameters."""

LEFT, BOTTOM, RIGHT, GAP = 0.85, 0.75, 0.15, 0.07
"""Margins of the figure and the gap between panels, in inches."""

WIDE = 7.2
"""Width in inches from which the legend has one row."""

BAD = 0.15
"""Difference of a share or a correlation at which its cell is colored in full."""


def parameters_shown(ours: Array, reference: Array) -> list[int]:
    """Which parameters a corner plot shows: all, or of many those that agree least, in order.

    Examples:
        >>> draws = np.random.default_rng(0).normal(size=(100, 30))
        >>> shifted = draws + (np.arange(30) == 17)
        >>> len(parameters_shown(draws, shifted)), 17 in parameters_shown(draws, shifted)
        (8, True)
    """
    d = ours.shape[1]
    if d <= MAX_CORNER_DIM:
        return list(range(d))
    worst = np.argsort(-marginal_distances(ours, reference), kind="stable")[:N_SHOWN_OF_MANY]
    return sorted(int(j) for j in worst)


def corner_figure(
    ours: Array, reference: Array, names: Sequence[str], *, reference_name: str = "reference draws"
) -> Figure:
    """Draw the corner plot of a mixture over reference draws.

    Below the diagonal: regions of the mixture with 50% and 90% of its mass, over reference
    draws. On it: marginals with mean and 5–95% interval of either. Above it: the share of the
    reference draws in these regions, and the correlation by either. Of more than 10 parameters
    those 8 are shown whose marginals differ most.

    Args:
        ours: draws of the mixture, (n, d).
        reference: draws it is compared with, (m, d), of equal weight.
        names: of the parameters.

    Examples:
        >>> draws = np.random.default_rng(0).normal(size=(500, 2))
        >>> figure = corner_figure(draws, draws + 0.1, ("a", "b"))
        >>> len(figure.axes)
        3
    """
    shown = parameters_shown(ours, reference)
    note = (
        f"{len(shown)} of {ours.shape[1]} parameters: those whose marginals differ most"
        if len(shown) < ours.shape[1]
        else ""
    )
    ours, reference = ours[:, shown], reference[:, shown]
    labels = [shorten(names[j]) for j in shown]
    d, panel = len(shown), PANEL_INCHES[len(shown)]
    width = LEFT + d * panel + (d - 1) * GAP + RIGHT
    height = BOTTOM + d * panel + (d - 1) * GAP + (0.62 if width > WIDE else 0.92)
    figure = sized_figure(max(width, 5.2), height, layout=None)
    limits = [limits_of(ours[:, j], reference[:, j]) for j in range(d)]
    for i in range(d):
        for j in range(i + 1):
            ax = figure.add_axes(_box(figure, i, j, d))
            if i == j:
                _marginal(ax, ours[:, i], reference[:, i], limits[i], panel)
            else:
                pair = ours[:, [j, i]], reference[:, [j, i]]
                regions = _joint(ax, *pair, (limits[j], limits[i]))
                _numbers(figure, _box(figure, j, i, d), *pair, regions, panel)
            _label(ax, labels, i, j)
    _legend(figure, reference_name, note, width / figure.get_figwidth())
    return figure


def _box(figure: Figure, row: int, column: int, d: int) -> tuple[float, float, float, float]:
    """Left, bottom, width and height of a panel, as shares of the figure."""
    panel = PANEL_INCHES[d]
    width, height = figure.get_size_inches()
    return (
        (LEFT + column * (panel + GAP)) / width,
        (BOTTOM + (d - 1 - row) * (panel + GAP)) / height,
        panel / width,
        panel / height,
    )


def _marginal(
    ax: Axes, ours: Array, reference: Array, limits: tuple[float, float], panel: float
) -> None:
    edges = np.linspace(*limits, 41)
    truth, fitted = (np.histogram(x, edges, density=True)[0] for x in (reference, ours))
    top = float(max(truth.max(), fitted.max())) or 1.0
    ax.stairs(truth, edges, fill=True, color=REFERENCE_COLOR, alpha=0.45, lw=0)
    ax.stairs(fitted, edges, color=MIXTURE_COLOR, lw=1.4)
    for column, color, place in ((reference, "0.45", -0.17), (ours, MIXTURE_COLOR, -0.07)):
        low, high = np.quantile(column, [0.05, 0.95])
        ax.plot([low, high], [place * top] * 2, color=color, lw=1.8, solid_capstyle="butt")
        ax.plot(column.mean(), place * top, "o", color=color, ms=3.5)
    low, high = np.quantile(ours, [0.05, 0.95])
    text = _summary(float(ours.mean()), float(low), float(high))
    ax.text(
        0.5, 0.985, text, transform=ax.transAxes, ha="center", va="top", color=MIXTURE_COLOR,
        fontsize=min(9.0, 72 * panel / (0.58 * len(text))),
    )  # fmt: skip
    ax.set_xlim(limits)
    ax.set_ylim(-0.25 * top, 1.25 * top)


def _summary(mean: float, low: float, high: float) -> str:
    """Mean and interval with as many digits as the width of the interval calls for."""
    width = high - low
    if not 1e-4 < width < 1e5 or max(abs(low), abs(high)) > 1e6:
        text = f"{mean:.3g}  [{low:.3g}, {high:.3g}]"
    else:
        decimals = max(0, 3 - int(np.ceil(np.log10(width))))
        rounded = (round(value, decimals) + 0.0 for value in (mean, low, high))  # no −0
        text = "{:.{n}f}  [{:.{n}f}, {:.{n}f}]".format(*rounded, n=decimals)
    return text.replace("-", "\N{MINUS SIGN}")


def _joint(ax: Axes, ours: Array, reference: Array, window: Window) -> Regions:
    step = max(1, len(reference) // MAX_POINTS)
    ax.plot(
        *reference[::step].T, ".", ms=2.6, mew=0, color=REFERENCE_COLOR, alpha=0.55,
        rasterized=True,
    )  # fmt: skip
    regions = Regions.of(ours, window)
    draw_contours(ax, regions.centers, regions.density, regions.levels)
    ax.set_xlim(window[0])
    ax.set_ylim(window[1])
    return regions


def draw_contours(
    ax: Axes,
    centers: tuple[Array, Array],
    density: Array,
    levels: Sequence[float],
    color: str = MIXTURE_COLOR,
    thickness: float = 1.0,
) -> None:
    """Draw the borders of the regions of 50% and 90%, where they have borders.

    Examples:
        >>> ax = sized_figure(2, 2).subplots()
        >>> draw_contours(ax, (np.arange(3.0), np.arange(3.0)), np.eye(3), (0.9, 0.5))
        >>> len(ax.collections)
        2
    """
    for level, (style, width) in zip(levels, LEVEL_STYLES.values(), strict=True):
        if density.min() < level < density.max():
            ax.contour(*centers, density, [level], colors=[color], linestyles=style,
                       linewidths=thickness * width)  # fmt: skip


def _numbers(
    figure: Figure,
    box: tuple[float, float, float, float],
    ours: Array,
    reference: Array,
    regions: Regions,
    panel: float,
) -> None:
    """What the panel on the other side of the diagonal shows, in numbers."""
    inside = regions.shares_inside(reference)
    by_mixture, by_reference = (_rank_correlation(draws) for draws in (ours, reference))
    off = [abs(a - b) for a, b in zip(inside, SHARES, strict=True)]
    off.append(abs(by_mixture - by_reference))
    strength = min(max(off) / BAD, 1.0) ** 2
    good, bad = np.array(to_rgb("0.965")), np.array(to_rgb("#f7c9a8"))
    figure.add_artist(
        Rectangle(box[:2], box[2], box[3], transform=figure.transFigure, lw=0,
                  facecolor=tuple(good + strength * (bad - good)))
    )  # fmt: skip
    rows = [
        (f"in {share:.0%} region", f"{found:.0%}")
        for share, found in zip(SHARES, inside, strict=True)
    ]
    rows += [("rank corr.", f"{by_mixture:.2f}"), ("", f"{by_reference:.2f}")]
    size = min(9.0, 6.4 * panel)
    x, y, w, h = box
    for number, (name, value) in enumerate(rows):
        height = y + h * (0.8 - 0.2 * number)
        color = "0.4" if number == 3 else MIXTURE_COLOR if number == 2 else "0.15"
        figure.text(x + 0.07 * w, height, name, fontsize=size, color="0.3", va="center")
        value = value.replace("-0.00", "0.00").replace("-", "\N{MINUS SIGN}")
        figure.text(
            x + 0.93 * w, height, value, fontsize=size, color=color, va="center", ha="right"
        )


def _rank_correlation(draws: Array) -> float:
    """Spearman's, which heavy tails do not upset; 0 for a constant column."""
    ranks = np.argsort(np.argsort(draws, axis=0, kind="stable"), axis=0, kind="stable")
    return float(np.asarray(np.corrcoef(ranks.T))[0, 1]) if len(draws) > 1 else 0.0


def _label(ax: Axes, labels: Sequence[str], i: int, j: int) -> None:
    d = len(labels)
    few_ticks(ax)
    ax.tick_params(labelsize=7.5 if d > 4 else 8, labelbottom=i == d - 1, length=2.5)
    if i == j:
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
    elif j > 0:
        ax.tick_params(labelleft=False)
    if i == d - 1:
        for label in ax.get_xticklabels():
            label.set_rotation(40)
            label.set_horizontalalignment("right")
            label.set_rotation_mode("anchor")
        plain(ax.set_xlabel(labels[j], fontsize=9 if d <= 6 else 8))
        ax.xaxis.set_label_coords(0.5, -0.42 / PANEL_INCHES[d])
    if j == 0 and i > 0:
        plain(ax.set_ylabel(labels[i], fontsize=9 if d <= 6 else 8))
        ax.yaxis.set_label_coords(-0.52 / PANEL_INCHES[d], 0.5)


def _legend(figure: Figure, reference_name: str, note: str, right: float) -> None:
    handles: list[Artist] = [
        Line2D([], [], marker="o", ls="", ms=4, color=REFERENCE_COLOR, label=reference_name),
        Line2D([], [], color=MIXTURE_COLOR, lw=1.6, label="mixture, 50% region"),
        Line2D([], [], color=MIXTURE_COLOR, lw=0.9, label="90% region"),
        Line2D([], [], color="0.3", marker="o", lw=1.8, ms=3.5, label="mean, 5–95%"),
    ]
    if len(figure.axes) == 1:
        handles = [handles[0], Patch(fc="none", ec=MIXTURE_COLOR, label="mixture"), handles[3]]
    width, top = figure.get_figwidth(), figure.get_figheight()
    columns = 4 if width > WIDE else 2
    left = LEFT / width - 0.01
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(left, 1), ncols=columns,
        handlelength=1.4, columnspacing=1.4, borderaxespad=0.3,
    )  # fmt: skip
    if len(figure.axes) > 1:
        key = (
            f"above the diagonal: share of the {reference_name} in the mixture's regions, "
            "and rank correlation by mixture and draws"
        )
        key = "\n".join(textwrap.wrap(key, int(14 * (width - LEFT))))
        y = 1 - (0.3 if columns == 4 else 0.47) / top
        figure.text(left + 0.01, y, key, fontsize=8, color="0.35", va="top", linespacing=1.15)
    if note:
        figure.text(
            right - 0.01, 1 - 0.12 / top, note, ha="right", va="center", fontsize=9,
            color=WARNING_COLOR, style="italic",
        )  # fmt: skip
