"""The figures of densities in two parameters: the mixture beside the truth, and its experts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from amfvi.mixture import Mixture
from amfvi.runs.corner import draw_contours
from amfvi.runs.regions import SHARES
from amfvi.runs.style import DENSITY_COLORS, few_ticks, plain, shorten, sized_figure
from amfvi.targets import ExactTarget

__all__ = ["Plane"]

Array = NDArray[np.float64]

GRID = 160
"""Cells per side of a density panel."""

CONTOUR_COLOR = "white"
"""Color of contours on the dark color map of densities."""

KEY = "white: the mixture's 50% and 90% regions"
"""What the contours are."""


@dataclass(frozen=True, kw_only=True)
class Plane:
    """A mixture in two parameters on a grid, with what is known of the truth there.

    Attributes:
        window: (low, high) of either parameter.
        of_experts: density of each expert on the cells, (GRID², K), first axis fastest.
        fitted: density of the mixture, (GRID²,).
        truth: exact density, or a histogram of reference draws, (GRID²,).
        is_exact: whether ``truth`` is exact.
        title: what ``truth`` is, in words.

    Examples:
        >>> import amfvi
        >>> posterior = amfvi.fit("bimodal", experts="gmm", n_draws=200)
        >>> plane = Plane.of(posterior, None, posterior.summary.split.draws)
        >>> len(plane.density_figure(posterior).axes), len(plane.expert_figure(posterior).axes)
        (3, 2)
    """

    window: tuple[tuple[float, float], tuple[float, float]]
    of_experts: Array
    fitted: Array
    truth: Array
    is_exact: bool
    title: str

    @classmethod
    def of(
        cls,
        mixture: Mixture,
        target: ExactTarget | None,
        reference: Tensor,
        reference_name: str = "reference draws",
    ) -> Plane:
        """Evaluate a mixture, and the target where it is known, on a grid."""
        window = _window(target, reference)
        grid = _grid(window)
        # Single precision is ample for a picture, and quicker.
        log_q = mixture.expert_log_probs(grid.float()).double()
        if target is not None:
            truth, title = target.log_prob(grid).exp().numpy(), f"target: {target.name}"
        else:
            truth = _histogram(reference, window)
            title = f"{reference_name} (histogram)"
        return cls(
            window=window,
            of_experts=log_q.exp().numpy(),
            fitted=mixture.mix(log_q).exp().numpy(),
            truth=truth,
            is_exact=target is not None,
            title=title,
        )

    def density_figure(self, mixture: Mixture) -> Figure:
        """The truth beside the mixture, with the regions of 50% and 90% of the mixture."""
        known = self.truth[self.truth > 0] if self.is_exact else self.fitted
        top = float(np.quantile(known, 0.999)) if self.is_exact else float(known.max())
        figure = sized_figure(9.4, 4.3)
        left, right = figure.subplots(1, 2, sharex=True, sharey=True)
        self._show(left, self.truth, top)
        image = self._show(right, self.fitted, top)
        plain(left.set_title(self.title))
        right.set_title("mixture")
        for ax in (left, right):
            self._contours(ax, self.fitted)
            few_ticks(ax, 6)
            plain(ax.set_xlabel(shorten(mixture.names[0], 40)))
        plain(left.set_ylabel(shorten(mixture.names[1], 40)))
        figure.suptitle(KEY, fontsize=9, color="0.35")
        figure.colorbar(image, ax=[left, right], label="density", extend="max", shrink=0.9)
        return figure

    def expert_figure(self, mixture: Mixture) -> Figure:
        """The density of each expert, with the regions of 50% and 90% of the mixture."""
        shown = self.truth if self.is_exact else self.of_experts.max(axis=1)
        top = float(np.quantile(shown, 0.999))
        k = len(mixture.experts)
        figure = sized_figure(max(2.9 * k + 0.9, 4.2), 3.5)
        panels = figure.subplots(1, k, sharex=True, sharey=True, squeeze=False)[0]
        for ax, name, weight, density in zip(
            panels, mixture.experts, mixture.weights.tolist(), self.of_experts.T, strict=True
        ):
            image = self._show(ax, density, top)
            self._contours(ax, self.fitted)
            few_ticks(ax, 5)
            ax.set_title(f"{name}  (weight {weight:.3f})")
            plain(ax.set_xlabel(shorten(mixture.names[0], 30)))
        plain(panels[0].set_ylabel(shorten(mixture.names[1], 30)))
        figure.suptitle(KEY, fontsize=9, color="0.35")
        figure.colorbar(image, ax=list(panels), label="density", extend="max", shrink=0.9)
        return figure

    def _show(self, ax: Axes, density: Array, top: float) -> Any:
        (left, right), (bottom, upper) = self.window
        image = ax.imshow(
            density.reshape(GRID, GRID), origin="lower", extent=(left, right, bottom, upper),
            aspect="auto", cmap=DENSITY_COLORS, vmin=0, vmax=top or None,
            interpolation="bilinear",
        )  # fmt: skip
        return image

    def _contours(self, ax: Axes, density: Array) -> None:
        centers = tuple(np.linspace(*side, 2 * GRID + 1)[1::2] for side in self.window)
        cell = np.prod([(high - low) / GRID for low, high in self.window])
        ordered = np.sort(density)[::-1]
        mass = ordered.cumsum() * cell
        places = [min(int(np.searchsorted(mass, share)), len(mass) - 1) for share in SHARES]
        levels = [float(ordered[place]) for place in places]
        draw_contours(
            ax, (centers[0], centers[1]), density.reshape(GRID, GRID), levels, CONTOUR_COLOR, 0.65
        )


def _window(
    target: ExactTarget | None, reference: Tensor
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Per axis the target's own view, or the range of nearly all reference draws."""
    if target is not None:
        (left, right), (bottom, top) = target.view
        return (left, right), (bottom, top)
    low, high = np.quantile(reference.numpy(), [0.001, 0.999], axis=0)
    margin = 0.08 * (high - low)
    low, high = (low - margin).tolist(), (high + margin).tolist()
    return (low[0], high[0]), (low[1], high[1])


def _grid(window: tuple[tuple[float, float], tuple[float, float]]) -> Tensor:
    """The centers of GRID × GRID cells as points (GRID², 2), first axis fastest."""
    axes = [np.linspace(low, high, 2 * GRID + 1)[1::2] for low, high in window]
    x, y = np.meshgrid(*axes)
    return torch.from_numpy(np.stack([x.ravel(), y.ravel()], axis=1))


def _histogram(reference: Tensor, window: tuple[tuple[float, float], tuple[float, float]]) -> Array:
    """A coarse histogram density of draws, on the grid of the density panels."""
    bins = GRID // 4
    counts, _, _ = np.histogram2d(
        reference[:, 1].numpy(), reference[:, 0].numpy(), bins=bins, range=window[::-1],
        density=True,
    )  # fmt: skip
    return np.repeat(np.repeat(counts, GRID // bins, axis=0), GRID // bins, axis=1).ravel()
