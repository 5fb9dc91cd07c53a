"""Figures of single parameters: marginals by expert, and intervals of all parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from amfvi.runs.regions import limits_of, marginal_distances
from amfvi.runs.style import (
    MIXTURE_COLOR,
    REFERENCE_COLOR,
    WARNING_COLOR,
    expert_colors,
    few_ticks,
    plain,
    shorten,
    sized_figure,
)

__all__ = ["expert_marginals", "interval_figure"]

Array = NDArray[np.float64]

MAX_MARGINALS = 12
"""Most parameters in the figure of the experts' marginals: those that agree least."""

MAX_INTERVALS = 60
"""Most parameters in the figure of intervals: those that agree least."""

FAR = 0.1
"""Distance of marginals from which its number is colored."""

INTERVALS = ((0.05, 0.95, 1.6), (0.25, 0.75, 3.6))
"""Lower and upper level of an interval, and the width of its line."""


def expert_marginals(
    ours: Array,
    reference: Array,
    of_experts: Mapping[str, tuple[float, Array]],
    names: Sequence[str],
    *,
    reference_name: str = "reference draws",
) -> Figure:
    """Draw marginals of the experts and of the mixture over those of reference draws.

    Of more than 12 parameters those are shown whose marginals differ most.

    Args:
        ours, reference: draws of the mixture (n, d) and those it is compared with (m, d).
        of_experts: weight and draws (k, d) of each expert.

    Examples:
        >>> draws = np.random.default_rng(0).normal(size=(500, 2))
        >>> figure = expert_marginals(draws, draws, {"gmm": (1.0, draws)}, ("a", "b"))
        >>> [ax.get_xlabel() for ax in figure.axes]
        ['a', 'b']
    """
    worst = np.argsort(-marginal_distances(ours, reference), kind="stable")
    shown = sorted(int(j) for j in worst[:MAX_MARGINALS])
    columns = min(len(shown), 4)
    rows = -(-len(shown) // columns)
    figure = sized_figure(max(2.7 * columns, 5.4), 1.9 * rows + 0.7)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in panels[len(shown) :]:
        ax.remove()
    for ax, j in zip(panels, shown, strict=False):
        limits = limits_of(reference[:, j], ours[:, j])
        edges = np.linspace(*limits, 46)
        densities = [_histogram(x[:, j], edges) for x in (reference, ours)]
        ax.stairs(densities[0], edges, fill=True, color=REFERENCE_COLOR, alpha=0.4, lw=0)
        for (_, draws), color in zip(of_experts.values(), expert_colors(), strict=False):
            ax.stairs(_histogram(draws[:, j], edges), edges, color=color, lw=1)
        ax.stairs(densities[1], edges, color=MIXTURE_COLOR, lw=1.9)
        few_ticks(ax, 4)
        ax.set_xlim(limits)
        # An expert that is far too narrow shall not flatten the rest.
        ax.set_ylim(0, 1.35 * max(float(density.max()) for density in densities))
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        plain(ax.set_xlabel(shorten(names[j], 24)))
    _legend(figure, of_experts, reference_name)
    if len(shown) < len(names):
        figure.supxlabel(
            f"{len(shown)} of {len(names)} parameters: those whose marginals differ most",
            fontsize=9, color=WARNING_COLOR, style="italic",
        )  # fmt: skip
    return figure


def _legend(
    figure: Figure, of_experts: Mapping[str, tuple[float, Array]], reference_name: str
) -> None:
    handles = [
        Line2D([], [], color=REFERENCE_COLOR, lw=6, alpha=0.4, label=reference_name),
        Line2D([], [], color=MIXTURE_COLOR, lw=1.9, label="mixture"),
        *(
            Line2D([], [], color=color, lw=1, label=f"{name} (weight {weight:.3f})")
            for (name, (weight, _)), color in zip(of_experts.items(), expert_colors(), strict=False)
        ),
    ]
    per_row = min(len(handles), max(2, int(figure.get_figwidth() / 1.9)))
    figure.legend(handles=handles, loc="outside upper center", ncols=per_row)


def _histogram(column: Array, edges: Array) -> Array:
    """The density of all values, those outside included, in the cells."""
    counts, _ = np.histogram(column, edges)
    return counts / (max(len(column), 1) * np.diff(edges))


def interval_figure(
    ours: Array, reference: Array, names: Sequence[str], *, reference_name: str = "reference draws"
) -> Figure:
    """Draw mean, 50% and 90% interval of every parameter, by the mixture and by reference draws.

    Each parameter is centered at the mean of the reference draws, in their standard deviations,
    so that all fit one axis. The number at its row is the Kolmogorov–Smirnov distance of its
    marginals, from 0 to 1. Of more than 60 parameters those are shown that agree least.

    Args:
        ours, reference: draws of the mixture (n, d) and those it is compared with (m, d).

    Examples:
        >>> draws = np.random.default_rng(0).normal(size=(500, 30))
        >>> figure = interval_figure(draws, draws, [f"theta[{i}]" for i in range(30)])
        >>> [tick.get_text() for tick in figure.axes[0].get_yticklabels()][:2]
        ['theta[0]', 'theta[1]']
    """
    distances = marginal_distances(ours, reference)
    worst = np.argsort(-distances, kind="stable")[:MAX_INTERVALS]
    shown = np.sort(worst)
    center, scale = reference[:, shown].mean(axis=0), reference[:, shown].std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    columns = 1 if len(shown) <= 16 else 2
    rows = -(-len(shown) // columns)
    figure = sized_figure(5.6 * columns if columns > 1 else 7.2, 0.23 * rows + 1.1)
    panels = figure.subplots(1, columns, squeeze=False, sharex=True)[0]
    for ax, part in zip(panels, np.array_split(np.arange(len(shown)), columns), strict=True):
        standardized = [
            (draws[:, shown[part]] - center[part]) / scale[part] for draws in (reference, ours)
        ]
        labels = [shorten(names[j], 24) for j in shown[part]]
        _intervals(ax, standardized, labels, distances[shown[part]])
    handles = [
        Line2D([], [], color=REFERENCE_COLOR, lw=3, label=f"{reference_name}, 50% and 90%"),
        Line2D([], [], color=MIXTURE_COLOR, lw=3, label="mixture, 50% and 90%"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure


def _intervals(
    ax: Axes, standardized: Sequence[Array], labels: Sequence[str], distances: Array
) -> None:
    """One panel: rows of intervals of the reference draws and of the mixture."""
    places = np.arange(len(labels))
    ax.axvline(0, color="0.8", lw=0.8, zorder=0)
    sides = zip(standardized, (REFERENCE_COLOR, MIXTURE_COLOR), (-0.17, 0.17), strict=True)
    for x, color, shift in sides:
        for low, high, width in INTERVALS:
            ends = np.quantile(x, [low, high], axis=0)
            ax.hlines(places + shift, *ends, color=color, lw=width)
        ax.plot(x.mean(axis=0), places + shift, "o", ms=4, mfc="white", mec=color, mew=1)
    ax.set_yticks(places, labels)
    for label in ax.get_yticklabels():
        plain(label)
    for place, distance in enumerate(distances):
        ax.text(
            1.005, place, f"{distance:.2f}", transform=ax.get_yaxis_transform(), fontsize=7.5,
            va="center", color=WARNING_COLOR if distance > FAR else "0.4",
        )  # fmt: skip
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("standard deviations from the reference mean")
    ax.set_title("distance", fontsize=8, loc="right", color="0.4", pad=2)
