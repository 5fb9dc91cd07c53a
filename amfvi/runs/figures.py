"""The figures of a run: density, experts, draws, training and weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from amfvi.mixture import Mixture
from amfvi.runs.style import DENSITY_COLORS, MIXTURE_COLOR, TRUTH_COLOR, write_figures
from amfvi.runs.training_figures import expert_colors, training_figure, weight_figure
from amfvi.targets import ExactTarget
from amfvi.two_stage.fit import FitSummary

__all__ = ["draw_figures"]

Array = NDArray[np.float64]

HISTOGRAM_COLORS = ListedColormap(colormaps["Greys"](np.linspace(0, 0.55, 64)))
"""Color map of histograms, light enough for dots to be seen on it."""

GRID = 220
"""Cells per side of a density panel."""

MAX_DOTS = 600
"""Draws of the mixture in a scatter plot."""

MAX_CORNER_DIM = 10
"""Most parameters in a corner plot."""

MAX_MARGINALS = 12
"""Most parameters in the figure of marginals."""


def draw_figures(
    mixture: Mixture,
    summary: FitSummary,
    draws: Tensor,
    target: ExactTarget | None,
    directory: Path,
    *,
    seed: int = 0,
) -> list[Path]:
    """Write the figures of a run as PNG files.

    Args:
        summary: how the mixture was fitted.
        draws: of the mixture, (n, d), shown beside the reference draws.
        target: where the true density is known; None elsewhere.
        directory: an existing directory.
        seed: seed of the draws of single experts.

    Returns:
        The paths of the files.

    Examples:
        >>> import tempfile
        >>> import amfvi
        >>> posterior = amfvi.fit("bimodal", experts="gmm", n_draws=200)
        >>> draws = posterior.sample((500,), torch.Generator().manual_seed(0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     paths = draw_figures(posterior, posterior.summary, draws, None, Path(folder))
        >>> [path.stem for path in paths]
        ['density', 'experts', 'draws', 'training', 'weights']
    """
    figures: dict[str, Figure] = {}
    reference = summary.split.equally_weighted_reference
    if mixture.dim == 2:
        window = _window(target, reference)
        # Single precision is ample for a picture, and quicker.
        of_experts = mixture.expert_log_probs(_grid(window).float()).double()
        figures["density"] = _density(mixture, target, reference, window, of_experts)
        figures["experts"] = _expert_densities(mixture, target, window, of_experts)
    else:
        figures["experts"] = _expert_marginals(mixture, reference, seed)
    figures["draws"] = _corner(mixture, draws, reference)
    figures["training"] = training_figure(mixture, summary, target)
    figures["weights"] = weight_figure(summary)
    return write_figures(figures, directory)


def _window(target: ExactTarget | None, reference: Tensor) -> list[tuple[float, float]]:
    """Per axis the target's own view, or the range of nearly all reference draws."""
    if target is not None:
        return list(target.view)
    low, high = np.quantile(reference.numpy(), [0.001, 0.999], axis=0)
    margin = 0.08 * (high - low)
    return list(zip((low - margin).tolist(), (high + margin).tolist(), strict=True))


def _grid(window: list[tuple[float, float]]) -> Tensor:
    """The centres of GRID × GRID cells as points (GRID², 2), first axis fastest."""
    axes = [np.linspace(low, high, 2 * GRID + 1)[1::2] for low, high in window]
    x, y = np.meshgrid(*axes)
    return torch.from_numpy(np.stack([x.ravel(), y.ravel()], axis=1))


def _show(ax: Axes, density: Array, window: list[tuple[float, float]], top: float) -> Any:
    (left, right), (bottom, upper) = window
    image = ax.imshow(
        density.reshape(GRID, GRID), origin="lower", extent=(left, right, bottom, upper),
        aspect="auto", cmap=DENSITY_COLORS, vmin=0, vmax=top, interpolation="bilinear",
    )  # fmt: skip
    ax.tick_params(labelsize=8)
    return image


def _density(
    mixture: Mixture,
    target: ExactTarget | None,
    reference: Tensor,
    window: list[tuple[float, float]],
    of_experts: Tensor,
) -> Figure:
    fitted = mixture.mix(of_experts).exp().numpy()
    if target is not None:
        truth, title = target.log_prob(_grid(window)).exp().numpy(), f"target: {target.name}"
    else:
        truth, title = _histogram(reference, window), "reference draws (histogram)"
    top = float(np.quantile(truth[truth > 0], 0.999)) if target is not None else fitted.max()
    figure = Figure(figsize=(9.4, 4.3), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    _show(left, truth, window, top)
    image = _show(right, fitted, window, top)
    left.set_title(title)
    right.set_title(f"mixture  (effective experts {mixture.n_eff:.2f})")
    _name_axes(left, mixture.names)
    right.set_xlabel(mixture.names[0])
    figure.colorbar(image, ax=[left, right], label="density", extend="max", shrink=0.9)
    return figure


def _histogram(reference: Tensor, window: list[tuple[float, float]]) -> Array:
    """A coarse histogram density of draws, on the grid of the density panels."""
    bins = GRID // 5
    counts, _, _ = np.histogram2d(
        reference[:, 1], reference[:, 0], bins=bins, range=window[::-1], density=True
    )
    return np.repeat(np.repeat(counts, GRID // bins, axis=0), GRID // bins, axis=1).ravel()


def _expert_densities(
    mixture: Mixture,
    target: ExactTarget | None,
    window: list[tuple[float, float]],
    of_experts: Tensor,
) -> Figure:
    densities = of_experts.exp().numpy()
    truth = target.log_prob(_grid(window)).exp().numpy() if target is not None else None
    top = float(np.quantile(truth if truth is not None else densities.max(axis=1), 0.999))
    k = len(mixture.experts)
    figure = Figure(figsize=(3.1 * k + 0.9, 3.3), layout="constrained")
    panels = figure.subplots(1, k, sharex=True, sharey=True, squeeze=False)[0]
    for ax, name, weight, density in zip(
        panels, mixture.experts, mixture.weights.tolist(), densities.T, strict=True
    ):
        image = _show(ax, density, window, top)
        ax.set_title(f"{name}  (weight {weight:.3f})", fontsize=10)
        ax.set_xlabel(mixture.names[0])
    panels[0].set_ylabel(mixture.names[1])
    figure.colorbar(image, ax=list(panels), label="density", extend="max", shrink=0.9)
    return figure


def _expert_marginals(mixture: Mixture, reference: Tensor, seed: int) -> Figure:
    """Each expert's marginal histograms beside the reference's, a panel per parameter."""
    d = min(mixture.dim, MAX_MARGINALS)
    columns = min(d, 4)
    rows = -(-d // columns)
    figure = Figure(figsize=(3.1 * columns, 2.5 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    generator = torch.Generator().manual_seed(seed)
    made = {name: mixture.sample_expert(name, 5000, generator) for name in mixture.experts}
    for j, ax in enumerate(panels):
        if j >= d:
            ax.set_visible(False)
            continue
        column = reference[:, j].numpy()
        edges = np.linspace(np.quantile(column, 0.001), np.quantile(column, 0.999), 45)
        ax.hist(column, edges, density=True, color=TRUTH_COLOR, alpha=0.45, label="reference draws")
        for (name, x), color in zip(made.items(), expert_colors(), strict=False):
            ax.hist(
                x[:, j].numpy(), edges, density=True, histtype="step", lw=1.4, color=color,
                label=name,
            )  # fmt: skip
        ax.set_xlabel(mixture.names[j])
        ax.set_yticks([])
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    return figure


def _corner(mixture: Mixture, draws: Tensor, reference: Tensor) -> Figure:
    """Mixture draws (points) over reference draws (shade), a panel per pair of parameters."""
    d = min(mixture.dim, MAX_CORNER_DIM)
    ours, truth = draws.numpy(), reference.numpy()
    size = {1: 4.6, 2: 5.4}.get(d, 1.7 * d)
    figure = Figure(figsize=(size, size), layout="constrained")
    panels = figure.subplots(d, d, squeeze=False)
    bins = int(np.clip(len(truth) ** 0.5 / 2, 15, 60))
    limits = []
    for j in range(d):
        low, high = np.quantile(np.concatenate([ours[:, j], truth[:, j]]), [0.002, 0.998])
        limits.append((low - 0.06 * (high - low), high + 0.06 * (high - low)))
    for i in range(d):
        for j in range(d):
            ax = panels[i, j]
            if j > i:
                ax.set_visible(False)
                continue
            if i == j:
                edges = np.linspace(*limits[i], 40)
                ax.hist(truth[:, i], edges, density=True, color=TRUTH_COLOR, alpha=0.55)
                ax.hist(
                    ours[:, i], edges, density=True, histtype="step", color=MIXTURE_COLOR, lw=1.6
                )
                ax.set_yticks([])
            else:
                ax.hist2d(
                    truth[:, j], truth[:, i], bins=bins, range=(limits[j], limits[i]),
                    cmap=HISTOGRAM_COLORS,
                )  # fmt: skip
                dots = ours[:MAX_DOTS, [j, i]].T
                ax.plot(*dots, ".", ms=3, mew=0, color=MIXTURE_COLOR, alpha=0.7)
                ax.set_ylim(limits[i])
            ax.set_xlim(limits[j])
            ax.tick_params(labelsize=7, labelbottom=i == d - 1, labelleft=j == 0 and i > 0)
            if i == d - 1:
                ax.set_xlabel(mixture.names[j])
            if j == 0 and i > 0:
                ax.set_ylabel(mixture.names[i])
    figure.legend(
        handles=[
            panels[0, 0].plot([], [], "s", color=TRUTH_COLOR, label="reference draws")[0],
            panels[0, 0].plot([], [], "o", color=MIXTURE_COLOR, label="mixture draws")[0],
        ],
        loc="outside upper center", ncols=2, frameon=False,
    )  # fmt: skip
    return figure


def _name_axes(ax: Axes, names: tuple[str, ...]) -> None:
    ax.set_xlabel(names[0])
    ax.set_ylabel(names[1])
