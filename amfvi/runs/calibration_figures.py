"""The figures of the calibration of a conditional density: coverage, and ranks of parameters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray
from scipy import stats

from amfvi.diagnostics.calibration_report import Calibration
from amfvi.diagnostics.uniformity import Uniformity, ks_band
from amfvi.runs.style import MIXTURE_COLOR, WARNING_COLOR, styled, write_figures

__all__ = ["coverage_figure", "draw_calibration_figures", "rank_figures"]

Array = NDArray[np.float64]

BAND_COLOR = "0.88"
"""Color of the band that a whole curve keeps to in 95% of cases."""

POINT_BAND_COLOR = "0.74"
"""Color of the band that a curve keeps to at one level in 95% of cases."""

MAX_PANELS = 12
"""Most parameters in one figure of ranks."""


def draw_calibration_figures(calibration: Calibration, directory: Path) -> list[Path]:
    """Write the figures of a calibration as PNG files: ``coverage``, ``ranks``, ``ranks-2``, …

    Args:
        directory: an existing directory.

    Returns:
        The paths of the files.

    Examples:
        >>> import tempfile
        >>> import torch
        >>> from amfvi.diagnostics.rank_dependence import RankDependence
        >>> u = torch.linspace(0.005, 0.995, 100).double()
        >>> none = RankDependence(mean_scores=torch.zeros(2, 1), width_scores=torch.zeros(2, 1))
        >>> calibration = Calibration(
        ...     names=("a", "b"), n_draws=99, ranks=torch.stack([u, u], dim=1), hpd_ranks=u,
        ...     tarp_ranks=u, given_dependence=none, log_prob=torch.zeros(100))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     paths = draw_calibration_figures(calibration, Path(folder))
        >>> [path.stem for path in paths]
        ['coverage', 'ranks']
    """
    with styled():
        figures = {"coverage": coverage_figure(calibration)}
        for number, figure in enumerate(rank_figures(calibration), start=1):
            figures["ranks" if number == 1 else f"ranks-{number}"] = figure
        return write_figures(figures, directory)


def coverage_figure(calibration: Calibration) -> Figure:
    """Draw expected coverage against level, for highest density and for TARP, with 95% bands.

    Examples:
        >>> import torch
        >>> from amfvi.diagnostics.rank_dependence import RankDependence
        >>> u = torch.linspace(0.005, 0.995, 100).double()
        >>> none = RankDependence(mean_scores=torch.zeros(2, 1), width_scores=torch.zeros(2, 1))
        >>> calibration = Calibration(
        ...     names=("a", "b"), n_draws=99, ranks=torch.stack([u, u], dim=1), hpd_ranks=u,
        ...     tarp_ranks=u, given_dependence=none, log_prob=torch.zeros(100))
        >>> [ax.get_title().splitlines()[0] for ax in coverage_figure(calibration).axes]
        ['regions of highest density', 'balls around reference points (TARP)']
    """
    figure = Figure(figsize=(9.4, 5.3), layout=ConstrainedLayoutEngine(wspace=0.06))
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    n = calibration.n_pairs
    titles = ("regions of highest density", "balls around reference points (TARP)")
    ranks = (calibration.hpd_ranks, calibration.tarp_ranks)
    tests = (calibration.hpd, calibration.tarp)
    for ax, title, values, test in zip(panels, titles, ranks, tests, strict=True):
        levels = np.linspace(0, 1, 401)
        _draw_bands(ax, levels, n, diagonal=True)
        steps = _empirical(values.double().numpy(), levels)
        ax.plot(levels, levels, color="k", lw=0.8, ls="--")
        ax.plot(levels, steps, color=_color(test), lw=1.8)
        ax.set_title(f"{title}\n{_described(test)}", fontsize=10)
        ax.set_xlabel("level")
        ax.set_aspect("equal")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(PercentFormatter(xmax=1))
    panels[0].set_ylabel(f"share of {n:,} held-back y inside")
    for where, text in (((0.04, 0.93), "underconfident"), ((0.96, 0.04), "overconfident")):
        panels[0].text(
            *where, text, color="0.35", fontsize=9, style="italic",
            ha="left" if where[0] < 0.5 else "right",
        )  # fmt: skip
    _draw_legend(figure)
    return figure


def rank_figures(calibration: Calibration) -> list[Figure]:
    """Draw the ranks of each parameter, a panel each and at most 12 in a figure.

    A curve is the share of ranks up to a level, minus the level (Säilynoja et al. 2022,
    arXiv:2103.10522). Draws that are too low give a valley, too high a hill; draws that are
    too narrow a hill and then a valley, too wide a valley and then a hill.

    Examples:
        >>> import torch
        >>> from amfvi.diagnostics.rank_dependence import RankDependence
        >>> u = torch.linspace(0.005, 0.995, 100).double()
        >>> none = RankDependence(mean_scores=torch.zeros(2, 1), width_scores=torch.zeros(2, 1))
        >>> calibration = Calibration(
        ...     names=("a", "b"), n_draws=99, ranks=torch.stack([u, u], dim=1), hpd_ranks=u,
        ...     tarp_ranks=u, given_dependence=none, log_prob=torch.zeros(100))
        >>> [len(figure.axes) for figure in rank_figures(calibration)]
        [2]
    """
    numbers = range(len(calibration.names))
    pages = [numbers[i : i + MAX_PANELS] for i in numbers[::MAX_PANELS]]
    return [_rank_figure(calibration, list(page)) for page in pages]


def _rank_figure(calibration: Calibration, page: list[int]) -> Figure:
    columns = min(len(page), 4)
    rows = -(-len(page) // columns)
    size = (max(3.1 * columns, 6.6), 2.5 * rows + 1.1)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    levels = np.linspace(0, 1, 401)
    for ax in panels[len(page) :]:
        ax.remove()
    for place, (ax, number) in enumerate(zip(panels, page, strict=False)):
        name = calibration.names[number]
        test = calibration.sbc[name]
        steps = _empirical(calibration.ranks[:, number].double().numpy(), levels)
        _draw_bands(ax, levels, calibration.n_pairs, diagonal=False)
        ax.axhline(0, color="k", lw=0.8, ls="--")
        ax.plot(levels, steps - levels, color=_color(test), lw=1.6)
        flaw = f": draws {test.flaw}" if name in calibration.rejected_parameters else ""
        ax.set_title(f"{name}{flaw}\n{_described(test)}", fontsize=9)
        ax.tick_params(labelsize=8)
        ax.set_xticks([0, 0.5, 1], ["0", "½", "1"])
        if place + columns >= len(page):  # the last of its column
            ax.tick_params(labelbottom=True)
            ax.set_xlabel("rank")
    figure.supylabel("share of ranks up to it, minus rank", fontsize=10)
    _draw_legend(figure)
    return figure


def _empirical(ranks: Array, levels: Array) -> Array:
    """The share of ranks up to each level."""
    return np.searchsorted(np.sort(ranks), levels, side="right") / len(ranks)


def _draw_bands(ax: Axes, levels: Array, n: int, *, diagonal: bool) -> None:
    """Where a right density's curve is in 95% of cases: all of it, and at one level."""
    center = levels if diagonal else np.zeros_like(levels)
    whole = ks_band(n)
    low, high = np.maximum(levels - whole, 0), np.minimum(levels + whole, 1)
    shift = center - levels
    ax.fill_between(levels, low + shift, high + shift, color=BAND_COLOR, lw=0)
    binomial = stats.binom(n, levels)
    low, high = binomial.ppf(0.025) / n, binomial.ppf(0.975) / n
    ax.fill_between(levels, low + shift, high + shift, color=POINT_BAND_COLOR, lw=0)
    ax.set_xlim(0, 1)
    if diagonal:
        ax.set_ylim(0, 1)


def _color(test: Uniformity) -> str:
    return WARNING_COLOR if test.distance > test.band else MIXTURE_COLOR


def _described(test: Uniformity) -> str:
    return f"largest distance {test.distance:.3f}, p = {test.p_value:.2g}"


def _draw_legend(figure: Figure) -> None:
    handles = [
        Line2D([], [], color=MIXTURE_COLOR, lw=1.8, label="inside its band"),
        Line2D([], [], color=WARNING_COLOR, lw=1.8, label="leaves it (by chance 1 in 20)"),
        Patch(color=BAND_COLOR, label="95% band of the curve"),
        Patch(color=POINT_BAND_COLOR, label="95% at one level"),
    ]
    columns = 4 if figure.get_figwidth() > 9 else 2
    figure.legend(
        handles=handles, loc="outside upper center", ncols=columns, frameon=False, fontsize=9
    )
