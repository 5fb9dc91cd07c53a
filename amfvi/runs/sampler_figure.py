"""The figure of a fit to a log density: temperatures, evidence and importance weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from amfvi.decimals import plus_minus
from amfvi.diagnostics.report import Diagnostics
from amfvi.runs.log import SamplerPath
from amfvi.runs.style import MIXTURE_COLOR, REFERENCE_COLOR, WARNING_COLOR, sized_figure

__all__ = ["sampler_figure"]

Array = NDArray[np.float64]

PATH_COLORS = ("#0072b2", "#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#d55e00")
"""Colors of the runs of the sampler, in their order."""

MAX_PATHS_NAMED = 6
"""Most runs of the sampler that the legend names."""

SMALLEST_RATIO = 1e-4
"""Weight relative to the mean up to which all weights are in one cell."""

MAX_SHOWN_DISTANCE = 50.0
"""Nats from the mixture's log Z up to which an estimate or a bound is on the axis."""


def sampler_figure(
    diagnostics: Diagnostics, log_weights: Array, paths: Sequence[SamplerPath]
) -> Figure:
    """Draw the temperatures of the sampler, the evidence, and the importance weights.

    Args:
        log_weights: log p̃ − log q at draws of the mixture, (n,), nats.
        paths: of the runs of the sampler; none where the draws were given.

    Examples:
        >>> import amfvi
        >>> normal = amfvi.LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), dim=1)
        >>> posterior = amfvi.fit(normal, experts="gmm", n_draws=500)
        >>> weights = posterior.weighted_draws().log_weights.numpy()
        >>> [ax.get_xlabel() for ax in sampler_figure(posterior.diagnostics, weights, []).axes]
        ['log Z (nats)', 'importance weight / mean weight']
    """
    shown = [path for path in paths if len(path.betas) > 0]
    columns = 3 if shown else 2
    figure = sized_figure(3.6 * columns, 3.3)
    panels = list(figure.subplots(1, columns, squeeze=False)[0])
    if shown:
        _temperatures(panels[0], shown)
    _evidence(panels[-2], diagnostics)
    _weights(panels[-1], diagnostics, log_weights)
    return figure


def _temperatures(ax: Axes, paths: Sequence[SamplerPath]) -> None:
    for number, path in enumerate(paths):
        label = f"run {number + 1}" if number < MAX_PATHS_NAMED else None
        ax.plot(
            np.arange(1, len(path.betas) + 1), path.betas, ".-", lw=1.2, ms=4, label=label,
            color=PATH_COLORS[number % len(PATH_COLORS)],
        )  # fmt: skip
    ax.set_yscale("log")
    ax.set_ylim(top=1.6)
    ax.axhline(1, color="0.7", lw=0.8, zorder=0)
    ax.set_xlabel("step of tempering")
    ax.set_ylabel("inverse temperature β")
    ax.set_title("temperatures, to the posterior at β = 1")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="lower right", fontsize=8)


def _evidence(ax: Axes, found: Diagnostics) -> None:
    origin = "given draws" if found.start == "the given draws" else "sampler"
    rows = [
        ("mixture", found.log_z, found.log_z_se, MIXTURE_COLOR),
        (origin, found.log_z_sampler, found.log_z_sampler_se, "0.25"),
        ("refinement", found.log_z_refinement, found.log_z_refinement_se, "0.25"),
        ("lower bound", found.elbo, found.elbo_se, REFERENCE_COLOR),
        ("upper bound", found.eubo, found.eubo_se, REFERENCE_COLOR),
    ]
    kept = [
        (name, value, se, color)
        for name, value, se, color in rows
        if value is not None and math.isfinite(value)
    ]
    off = [abs(value - found.log_z) > MAX_SHOWN_DISTANCE for _, value, _, _ in kept]
    for place, ((_, value, se, color), is_off) in enumerate(zip(kept, off, strict=True)):
        noise = se if se is not None and math.isfinite(se) and se > 0 else None
        text = plus_minus(value, noise, 3 if noise is not None and noise > 0.01 else 4)
        if is_off and not all(off):  # so that the others can be told apart
            side, ha, arrow = (0.02, "left", "◂ ") if value < found.log_z else (0.98, "right", " ▸")
            text = arrow + text if ha == "left" else text + arrow
            ax.text(side, place, text, transform=ax.get_yaxis_transform(), ha=ha, va="center",
                    fontsize=8, color="0.2")  # fmt: skip
            continue
        ax.errorbar(value, place, xerr=2 * (noise or 0.0), fmt="o", ms=5, capsize=3, color=color)
        ax.annotate(
            text, (value, place), (0, 7),
            textcoords="offset points", ha="center", fontsize=8, color="0.2",
        )  # fmt: skip
    if math.isfinite(found.log_z):
        ax.axvline(found.log_z, color=MIXTURE_COLOR, lw=0.8, alpha=0.4, zorder=0)
    ax.set_yticks(range(len(kept)), [row[0] for row in kept])
    ax.set_ylim(len(kept) - 0.5, -0.7)
    ax.margins(x=0.28)
    ax.ticklabel_format(axis="x", useOffset=False)
    ax.locator_params(axis="x", nbins=4)
    ax.set_xlabel("log Z (nats)")
    ax.set_title("evidence, ± 2 standard errors")


def _weights(ax: Axes, found: Diagnostics, log_weights: Array) -> None:
    finite = log_weights[np.isfinite(log_weights)]
    peak = finite.max() if len(finite) else 0.0
    weights = np.exp(np.where(np.isfinite(log_weights), log_weights, -np.inf) - peak)
    ratio = np.maximum(weights / max(float(weights.mean()), 1e-300), SMALLEST_RATIO)
    low, high = min(np.log10(ratio.min()), -1.0), max(np.log10(ratio.max()), 1.0)
    edges = np.logspace(low - 0.05, high + 0.05, 45)
    draws, _ = np.histogram(ratio, edges)
    mass, _ = np.histogram(ratio, edges, weights=weights)
    ax.stairs(draws / len(ratio), edges, fill=True, color=REFERENCE_COLOR, alpha=0.45, lw=0,
              label="share of draws")  # fmt: skip
    ax.stairs(mass / max(mass.sum(), 1e-300), edges, color=MIXTURE_COLOR, lw=1.5,
              label="share of weight")  # fmt: skip
    ax.axvline(1, color="0.6", lw=0.8, ls=":")
    ax.set_xscale("log")
    ax.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    ax.set_xlabel("importance weight / mean weight")
    reliable = found.khat < found.khat_threshold
    ax.set_title(
        f"k̂ {found.khat:.2f} ({'below' if reliable else 'not below'} "
        f"{found.khat_threshold:.2f}), {found.ess / found.n_draws:.0%} effective",
        color="black" if reliable else WARNING_COLOR,
    )
    ax.legend(loc="upper left", fontsize=8)
