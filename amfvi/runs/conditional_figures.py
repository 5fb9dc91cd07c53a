"""The figures of a fit to pairs: parameters against one condition, with bands and branches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from amfvi.conditional.mixture import ConditionalMixture
from amfvi.diagnostics.calibration_report import Calibration
from amfvi.errors import InputError
from amfvi.runs.calibration_figures import draw_calibration_figures
from amfvi.runs.style import DENSITY_COLORS, MIXTURE_COLOR, styled, write_figures

__all__ = ["condition_figure", "draw_condition_figures", "draw_pairs_figures"]

Array = NDArray[np.float64]

MAX_FIGURES = 8
"""Most conditions that are drawn, the first ones."""

MAX_COLUMNS = 4
"""Most parameters in a figure, the first ones."""

STEPS = 90
"""Values of the condition along an axis."""

CELLS = 110
"""Cells of the density along a parameter."""

N_DRAWS = 3000
"""Draws at each value of the condition."""

N_DOTS = 6
"""Draws at each value that are shown."""

BANDS = ((0.9, 0.18), (0.5, 0.34))
"""Central intervals of the draws and the opacity of their bands."""

JUMP = 0.2
"""Share of the range of all draws above which a step of the median is a jump to a branch."""

SMOOTHING = (1.4, 1.8)
"""Standard deviations in cells, along the parameter and the condition, of smoothed histograms."""

NEAR = 0.25
"""Share of the pairs that are shown where there are other conditions: those nearest to them."""

PAIR_COLOR = "#7fe3ff"
"""Color of pairs on an image, lighter than all of its colors but the brightest."""


def draw_pairs_figures(
    model: ConditionalMixture,
    calibration: Calibration,
    given: Tensor,
    y: Tensor,
    directory: Path,
    *,
    seed: int = 0,
) -> list[Path]:
    """Write all figures of a model and of pairs that it has not seen; the paths of the files.

    Args:
        calibration: of the model with these pairs.
        given, y: the pairs, (n, g) and (n, d).
        directory: made if it is not there.

    Raises:
        InputError: the directory cannot be made.

    Examples:
        >>> import amfvi, tempfile
        >>> model = amfvi.fit("sinus", n_draws=200, experts="gmm", folds=2)
        >>> pairs = model.summary.split.test_given, model.summary.split.test
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     paths = draw_pairs_figures(model, model.calibration(), *pairs, Path(folder))
        >>> [path.stem for path in paths]
        ['coverage', 'ranks', 'condition']
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{directory}: cannot be made ({error.strerror})") from None
    return [
        *draw_calibration_figures(calibration, directory),
        *draw_condition_figures(model, given, y, directory, seed=seed),
    ]


def draw_condition_figures(
    model: ConditionalMixture, given: Tensor, y: Tensor, directory: Path, *, seed: int = 0
) -> list[Path]:
    """Write a figure for each condition as PNG files: ``condition``, ``condition-2``, …

    Args:
        given, y: pairs, (n, g) and (n, d), best those that were held back from the fit.
        directory: an existing directory.

    Returns:
        The paths of the files.

    Examples:
        >>> import amfvi, tempfile
        >>> model = amfvi.fit("sinus", n_draws=200, experts="gmm", folds=2)
        >>> split = model.summary.split
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     paths = draw_condition_figures(model, split.test_given, split.test, Path(folder))
        >>> [path.stem for path in paths]
        ['condition']
    """
    with styled():
        figures = {
            "condition" if j == 0 else f"condition-{j + 1}": condition_figure(
                model, given, y, j, seed=seed
            )
            for j in range(min(model.given_dim, MAX_FIGURES))
        }
        return write_figures(figures, directory)


def condition_figure(
    model: ConditionalMixture, given: Tensor, y: Tensor, column: int, *, seed: int = 0
) -> Figure:
    """Draw each parameter against one condition, the others at their medians.

    Above are draws with their median and central 50% and 90%; below the density, whose
    branches bands do not show, with the pairs.

    Args:
        given, y: pairs, (n, g) and (n, d).
        column: of the condition.

    Examples:
        >>> import amfvi
        >>> model = amfvi.fit("linear3", n_draws=200, experts="gmm", folds=2)
        >>> split = model.summary.split
        >>> figure = condition_figure(model, split.test_given, split.test, 1)
        >>> len(figure.axes)
        7
    """
    parameters = range(min(model.dim, MAX_COLUMNS))
    at = given.median(dim=0).values.repeat(STEPS, 1)
    low, high = given[:, column].quantile(torch.tensor([0.01, 0.99]).double()).tolist()
    at[:, column] = torch.linspace(low, high, STEPS, dtype=torch.float64)
    draws = model.sample(N_DRAWS, given=at, generator=torch.Generator().manual_seed(seed))
    near = _nearest(given, column)
    size = (max(3.3 * len(parameters), 5.4) + 0.8, 6.4)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(2, len(parameters), squeeze=False, sharex=True, sharey="col")
    line = at[:, column].numpy()
    for i in parameters:
        upper, lower = panels[:, i]
        of_draws = draws[:, :, i].numpy()
        window = _window(of_draws, y[near, i].numpy())
        _draw_bands(upper, line, of_draws)
        density = _density(model, at, of_draws, window)
        image = _show(lower, line, density, window)
        inside = near[(given[near, column] >= low) & (given[near, column] <= high)]
        lower.plot(
            given[inside, column].numpy(), y[inside, i].numpy(), "o", ms=3.2, mew=0.5,
            color=PAIR_COLOR, mec="0.1",
        )  # fmt: skip
        upper.set_title(model.names[i], fontsize=11)
        upper.set_ylim(window)
        lower.set_xlabel(model.given_names[column])
        if len(parameters) == 1:
            upper.set_title("")
            for ax in (upper, lower):
                ax.set_ylabel(model.names[i])
    figure.colorbar(image, ax=list(panels[1]), label="density, relative to its largest", shrink=0.9)
    _draw_legend(figure, model, column)
    return figure


def _nearest(given: Tensor, column: int) -> Tensor:
    """Rows whose other conditions are nearest to their medians, of all scaled alike."""
    rest = torch.cat([given[:, :column], given[:, column + 1 :]], dim=1)
    if not rest.shape[1]:
        return torch.arange(len(given))
    scaled = (rest - rest.median(dim=0).values) / rest.std(dim=0).clamp(min=1e-12)
    count = max(1, round(NEAR * len(given)))
    return scaled.square().sum(dim=1).argsort()[:count]


def _window(draws: Array, pairs: Array) -> tuple[float, float]:
    """The range of nearly all draws and pairs, with a margin."""
    lows, highs = zip(
        np.quantile(draws, [0.003, 0.997]), np.quantile(pairs, [0.005, 0.995]), strict=True
    )
    low, high = float(min(lows)), float(max(highs))
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def _draw_bands(ax: Axes, line: Array, draws: Array) -> None:
    for mass, opacity in BANDS:
        low, high = np.quantile(draws, [(1 - mass) / 2, (1 + mass) / 2], axis=0)
        ax.fill_between(line, low, high, color=MIXTURE_COLOR, alpha=opacity, lw=0)
    ax.plot(
        np.tile(line, N_DOTS), draws[:N_DOTS].ravel(), ".", ms=2.2, mew=0, color="0.15", alpha=0.7
    )
    median = np.median(draws, axis=0)
    # Between two branches of equal mass it is undetermined; no line crosses the gap.
    jumps = np.abs(np.diff(median, prepend=median[0])) > JUMP * np.ptp(draws)
    ax.plot(
        np.insert(line, np.flatnonzero(jumps), np.nan),
        np.insert(median, np.flatnonzero(jumps), np.nan),
        color=MIXTURE_COLOR, lw=1.8, marker=".", ms=3.5, mew=0,
    )  # fmt: skip
    ax.tick_params(labelsize=8)


def _density(
    model: ConditionalMixture, at: Tensor, draws: Array, window: tuple[float, float]
) -> Array:
    """The density of one parameter at each condition, (CELLS, STEPS)."""
    edges = np.linspace(*window, CELLS + 1)
    if model.dim == 1:
        centers = torch.from_numpy((edges[1:] + edges[:-1]) / 2)
        y, c = centers.repeat_interleave(len(at))[:, None], at.repeat(CELLS, 1)
        return model.log_prob(y, given=c).exp().reshape(CELLS, -1).numpy()
    counts = [np.histogram(column, edges, density=True)[0] for column in draws.T]
    # N_DRAWS draws in so many cells are noisy; neighbors hardly differ.
    return gaussian_filter(np.stack(counts, axis=1), SMOOTHING)


def _show(ax: Axes, line: Array, density: Array, window: tuple[float, float]) -> AxesImage:
    """An image, from 0 to the largest density but for a few spikes, with faint parts lifted."""
    top = float(np.quantile(density.max(axis=0), 0.9)) or 1.0
    step = (line[1] - line[0]) / 2
    ax.tick_params(labelsize=8)
    return ax.imshow(
        density / top, origin="lower", extent=(line[0] - step, line[-1] + step, *window),
        aspect="auto", cmap=DENSITY_COLORS, norm=PowerNorm(0.5, 0, 1), interpolation="bilinear",
    )  # fmt: skip


def _draw_legend(figure: Figure, model: ConditionalMixture, column: int) -> None:
    others = " (other conditions near their medians)" if model.given_dim > 1 else ""
    handles = [
        Line2D([], [], color=MIXTURE_COLOR, lw=1.8, label="median"),
        Patch(color=MIXTURE_COLOR, alpha=0.5, label="central 50%"),
        Patch(color=MIXTURE_COLOR, alpha=0.2, label="central 90%"),
        Line2D([], [], color="0.15", marker=".", ls="", ms=4, label="draws"),
        Line2D(
            [], [], color=PAIR_COLOR, marker="o", ls="", ms=4, mec="0.1", mew=0.5,
            label=f"held-back pairs{others}",
        ),
    ]  # fmt: skip
    columns = 5 if figure.get_figwidth() > 9 else 3
    figure.legend(
        handles=handles, loc="outside upper center", ncols=columns, frameon=False, fontsize=9
    )
