"""The figures of a run, written as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from amfvi.posterior import Posterior
from amfvi.randomness import generator_for
from amfvi.runs.corner import corner_figure
from amfvi.runs.density_figures import Plane
from amfvi.runs.log import SamplerPath
from amfvi.runs.marginal_figures import expert_marginals, interval_figure
from amfvi.runs.sampler_figure import sampler_figure
from amfvi.runs.style import styled, write_figures
from amfvi.runs.training_figures import training_figure, weight_figure
from amfvi.targets import ExactTarget
from amfvi.two_stage.fit import FitSummary

__all__ = ["draw_figures"]

N_EXACT = 20_000
"""Exact draws of a target that was fitted by its log density."""

N_EXPERT_DRAWS = 4_000
"""Draws of each expert for its marginals."""

MIN_DIM_FOR_INTERVALS = 3
"""Parameters from which all their intervals are a figure of its own."""


def draw_figures(
    posterior: Posterior,
    summary: FitSummary,
    draws: Tensor,
    target: ExactTarget | None,
    directory: Path,
    *,
    seed: int = 0,
    paths: Sequence[SamplerPath] = (),
) -> list[Path]:
    """Write the figures of a run as PNG files.

    Args:
        summary: how the mixture was fitted.
        draws: of the mixture, (n, d), shown beside the reference draws.
        target: where the true density is known; None elsewhere.
        directory: an existing directory.
        seed: seed of the draws of single experts.
        paths: of the runs of the sampler.

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
        ['draws', 'density', 'experts', 'training', 'weights']
    """
    with styled():
        figures = _figures(posterior, summary, draws, target, seed, paths)
        return write_figures(figures, directory)


def _figures(
    posterior: Posterior,
    summary: FitSummary,
    draws: Tensor,
    target: ExactTarget | None,
    seed: int,
    paths: Sequence[SamplerPath],
) -> dict[str, Figure]:
    reference, name = _reference(posterior, summary, target, seed)
    names, ours, others = posterior.names, draws.numpy(), reference.numpy()
    figures = {"draws": corner_figure(ours, others, names, reference_name=name)}
    if posterior.dim >= MIN_DIM_FOR_INTERVALS:
        figures["intervals"] = interval_figure(ours, others, names, reference_name=name)
    if posterior.dim == 2:
        plane = Plane.of(posterior, target, reference, name)
        figures["density"] = plane.density_figure(posterior)
        figures["experts"] = plane.expert_figure(posterior)
    else:
        generator = torch.Generator().manual_seed(seed)
        made = {
            expert: (weight, posterior.sample_expert(expert, N_EXPERT_DRAWS, generator).numpy())
            for expert, weight in zip(posterior.experts, posterior.weights.tolist(), strict=True)
        }
        figures["experts"] = expert_marginals(ours, others, made, names, reference_name=name)
    if posterior.diagnostics is not None:
        log_weights = posterior.weighted_draws().log_weights.numpy()
        figures["sampler"] = sampler_figure(posterior.diagnostics, log_weights, paths)
    figures["training"] = training_figure(posterior, summary, target)
    figures["weights"] = weight_figure(summary)
    return figures


def _reference(
    posterior: Posterior, summary: FitSummary, target: ExactTarget | None, seed: int
) -> tuple[Tensor, str]:
    """The draws that the mixture is compared with, all there are, and whose they are."""
    if posterior.diagnostics is None:
        name = "reference draws" if target is None else "exact draws"
        return summary.split.equally_weighted_draws, name
    if target is not None:
        return target.sample(N_EXACT, generator_for(seed, "reference of figures")), "exact draws"
    is_given = posterior.diagnostics.start == "the given draws"
    return (
        summary.split.equally_weighted_draws,
        "given draws" if is_given else "draws of the sampler",
    )
