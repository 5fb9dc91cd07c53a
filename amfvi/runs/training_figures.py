"""The figures of how a mixture was fitted: training curves and the path of the weights."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from amfvi.mixture import Mixture
from amfvi.runs.style import expert_colors, sized_figure
from amfvi.targets import ExactTarget
from amfvi.two_stage.fit import FitSummary

__all__ = ["training_figure", "weight_figure"]


def training_figure(mixture: Mixture, summary: FitSummary, target: ExactTarget | None) -> Figure:
    """Draw the training curve of each expert.

    Examples:
        >>> import amfvi
        >>> posterior = amfvi.fit("bimodal", experts="gmm", n_draws=200)
        >>> len(training_figure(posterior, posterior.summary, None).axes)
        1
    """
    k = len(summary.reports)
    figure = sized_figure(max(3.2 * k + 0.4, 5.4), 3.3)
    panels = figure.subplots(1, k, squeeze=False)[0]
    # Curves are in unconstrained space, where a target's entropy holds only unbounded.
    entropy = (
        target.entropy if target is not None and not mixture.constraints.is_constrained else None
    )
    for ax, (name, report), color in zip(
        panels, summary.reports.items(), expert_colors(), strict=False
    ):
        steps = [c.step for c in report.history]
        ax.plot(steps, [c.train_nll for c in report.history], color=color, lw=1, ls=":")
        ax.plot(steps, [c.heldout_nll for c in report.history], color=color, lw=1.6)
        ax.plot(report.best_step, report.heldout_nll, "o", color=color, ms=6)
        if entropy is not None:
            ax.axhline(entropy, color="k", lw=0.8, ls="--")
        curve = np.array([c.heldout_nll for c in report.history])
        low = min(curve.min(), min(c.train_nll for c in report.history))
        low = low if entropy is None else min(low, entropy)
        high = np.quantile(curve, 0.97)
        margin = 0.08 * max(high - low, 1e-3)
        ax.set_ylim(low - margin, high + margin)
        ax.set_title(f"{name}  ({report.seconds:.1f} s)", fontsize=10)
        ax.set_xlabel(mixture.experts[name].config.step_name)
    panels[0].set_ylabel("negative log density (nats)")
    styles = [("held-out", "-", "k", None), ("training", ":", "k", None), ("kept", "", "k", "o")]
    handles = [
        panels[0].plot([], [], ls=style, color=color, marker=marker, label=label)[0]
        for label, style, color, marker in styles
    ]
    if entropy is not None:
        handles.append(panels[0].plot([], [], "k--", lw=0.8, label="entropy of the target")[0])
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def weight_figure(summary: FitSummary) -> Figure:
    """Draw the path of the weights in stage two.

    Examples:
        >>> import amfvi
        >>> posterior = amfvi.fit("bimodal", experts="gmm", n_draws=200)
        >>> weight_figure(posterior.summary).axes[0].get_ylabel()
        'weight'
    """
    fitted = summary.weights
    figure = sized_figure(6.4, 3.6)
    ax = figure.subplots()
    for name, path, color in zip(summary.reports, fitted.path.T, expert_colors(), strict=False):
        ax.plot(fitted.path_steps + 1, path, color=color, lw=1.8, label=f"{name}  {path[-1]:.3f}")
    ax.set_xscale("log")
    ax.set_ylim(-0.03, 1.03)
    ax.set_xlabel("update + 1")
    ax.set_ylabel("weight")
    momentum = "" if fitted.beta is None else f", β = {fitted.beta:g}"
    ax.set_title(
        f"stage two: {fitted.weight_rule}{momentum} on {fitted.n} draws; "
        f"within {max(fitted.gap, 0):.1g} nats of the best weights",
        fontsize=10,
    )
    ax.legend()
    return figure
