"""Both stages in order: fit experts to draws that are already split, then weigh them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from amfvi.device import resolve_device
from amfvi.experts import FitReport
from amfvi.experts.matrix import log_densities, optimism_corrected_log_densities
from amfvi.mixture import Mixture
from amfvi.reporting import Reporter
from amfvi.statistics import normalize_to_sum
from amfvi.two_stage.experts import FittedExpert, fit_experts
from amfvi.two_stage.options import FitOptions
from amfvi.two_stage.pruning import prune
from amfvi.two_stage.split import Split
from amfvi.two_stage.weights import OPTIMAL_RULES, WeightFit, fit_weights

__all__ = ["FitSummary", "fit_split"]


@dataclass(frozen=True, kw_only=True)
class FitSummary:
    """How a mixture was fitted.

    Attributes:
        split: the draws by role; ``split.test`` was seen by nothing.
        reports: training of each expert, by name.
        weights: stage two, with the path of the weights.
        seconds: wall-clock time of "stage_one" and "stage_two"; of a fit to a log density
            also of "sampling" and "diagnostics", each summed over all attempts.

    Examples:
        >>> import amfvi
        >>> summary = amfvi.fit("bimodal", experts="gmm", n_draws=200).summary
        >>> list(summary.reports), sorted(summary.seconds)
        (['gmm'], ['stage_one', 'stage_two'])
    """

    split: Split
    reports: Mapping[str, FitReport]
    weights: WeightFit
    seconds: Mapping[str, float]


def fit_split(
    split: Split,
    options: FitOptions,
    *,
    timeout: float | None = None,
    reporter: Reporter | None = None,
    prunes: bool = True,
) -> tuple[Mixture, FitSummary]:
    """Fit both stages to draws that are already split; a pure function of its arguments.

    Args:
        timeout: seconds for stage one; those of ``options`` are for a whole fit.
        prunes: whether experts that are worth nothing get weight zero.

    Raises:
        FitError: an expert or the weights could not be fitted.

    Examples:
        >>> from amfvi import targets
        >>> from amfvi.two_stage.split import split_target
        >>> split = split_target(targets.get("bimodal"), 200, seed=0)
        >>> mixture, summary = fit_split(split, FitOptions(experts="gmm"))
        >>> mixture.weights, summary.weights.converged
        (tensor([1.], dtype=torch.float64), True)
    """
    started = time.monotonic()
    device = resolve_device(options.device)
    fitted = fit_experts(
        options.configs,
        split.folds,
        seed=options.seed,
        device=device,
        reporter=reporter,
        timeout=timeout,
        cluster=options.cluster,
    )
    stage_one_done = time.monotonic()
    weights = _fit_weights(split, fitted, options, device, prunes)
    summary = FitSummary(
        split=split,
        reports={name: expert.report for name, expert in fitted.items()},
        weights=weights,
        seconds={
            "stage_one": stage_one_done - started,
            "stage_two": time.monotonic() - stage_one_done,
        },
    )
    mixture = Mixture(
        {name: expert.expert for name, expert in fitted.items()},
        normalize_to_sum(torch.from_numpy(weights.weights)),
        transform=split.transform,
        names=split.names,
        scale=split.scale,
    )
    return mixture, summary


def _fit_weights(
    split: Split,
    fitted: Mapping[str, FittedExpert],
    options: FitOptions,
    device: torch.device,
    prunes: bool,
) -> WeightFit:
    """Stage two, on draws of its own where there are any, else on the held-out draws."""
    experts = {name: expert.expert for name, expert in fitted.items()}
    sample_weight = None
    # The Jacobian of the transform shifts each row by a constant, which changes no weight.
    if split.weight_draws is not None:
        y = split.transform.to_unconstrained(split.weight_draws)[0]
        log_q = log_densities(experts, y.to(device))
    else:
        folds = split.folds_for_weights
        log_q = optimism_corrected_log_densities(experts, folds)
        sample_weight = folds.heldout_sample_weight
    weights = fit_weights(
        log_q, options.weight_rule, beta=options.momentum, sample_weight=sample_weight
    )
    if prunes and options.weight_rule in OPTIMAL_RULES:
        return prune(weights, log_q, sample_weight=sample_weight)
    return weights
