"""Fit a conditional mixture to pairs: both stages, as for draws of one posterior."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from amfvi.conditional.bounds import choose_bounds
from amfvi.conditional.familiarity import Familiarity
from amfvi.conditional.mixture import ConditionalMixture
from amfvi.conditional.pairs import Pairs, PairSplit, split_pairs
from amfvi.conditional.reflection import reflect
from amfvi.conditional.spread import widen
from amfvi.device import resolve_device
from amfvi.experts import Expert, ExpertConfig, FitReport
from amfvi.experts.parallel import one_thread
from amfvi.randomness import generator_for
from amfvi.reporting import Reporter
from amfvi.simulation.prior import Prior
from amfvi.two_stage.experts import fit_experts
from amfvi.two_stage.options import FitOptions
from amfvi.two_stage.weights import WeightFit, fit_weights

__all__ = ["ConditionalSummary", "fit_pairs"]


@dataclass(frozen=True, kw_only=True)
class ConditionalSummary:
    """How a conditional mixture was fitted.

    Attributes:
        split: the pairs by role; those for testing were seen by nothing.
        reports: training of each expert, by name.
        weights: stage two, with the path of the weights.
        seconds: wall-clock time of "stage_one" and "stage_two".
        prior: what the parameters were drawn from; None if unknown.

    Examples:
        >>> sorted(ConditionalSummary.__dataclass_fields__)
        ['prior', 'reports', 'seconds', 'split', 'weights']
    """

    split: PairSplit
    reports: Mapping[str, FitReport]
    weights: WeightFit
    seconds: Mapping[str, float]
    prior: Prior | None = None


def fit_pairs(
    pairs: Pairs, options: FitOptions, *, reporter: Reporter | None = None
) -> tuple[ConditionalMixture, ConditionalSummary]:
    """Fit experts to pairs, widen them, then fit weights, which are one set for all conditions.

    The weights rest on densities at held-out rows by members that did not train on them: an
    ensemble remembers its rows, which would look as if experts complemented each other.

    Raises:
        UsageError: an expert that has no conditional form.
        FitError: an expert or the weights could not be fitted.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> c = torch.randn(200, 1, generator=generator, dtype=torch.float64)
        >>> y = 2 * c + torch.randn(200, 1, generator=generator, dtype=torch.float64)
        >>> model, summary = fit_pairs(Pairs.from_arrays(y, c), FitOptions(experts="gmm"))
        >>> model, summary.weights.weights
        (ConditionalMixture(d = 1 given 1, gmm: 1.000), array([1.]))
    """
    started = time.monotonic()
    split = split_pairs(pairs, options.test_share, options.seed, options.folds)
    with one_thread():  # small fits, which a second thread slows down
        split = split.with_transform(choose_bounds(split, options.seed))
        familiarity = Familiarity.fit(split.given, split.fold, seed=options.seed)
    fitted = fit_experts(
        _suitable(options.configs, split.folds.dim, reporter),
        split.folds,
        seed=options.seed,
        device=resolve_device(options.device),
        reporter=reporter,
        timeout=options.timeout,
        cluster=options.cluster,
    )
    stage_one_done = time.monotonic()
    reflected = {name: reflect(each.expert, split.transform) for name, each in fitted.items()}
    experts = {
        name: widen(expert, split.folds, generator_for(options.seed, "spread", name))
        for name, expert in reflected.items()
    }
    weights = _fit_weights(experts, split, options)
    model = ConditionalMixture(
        experts,
        torch.from_numpy(weights.weights),
        transform=split.transform,
        names=pairs.draws.names,
        given_names=pairs.given_names,
        familiarity=familiarity,
    )
    summary = ConditionalSummary(
        split=split,
        reports={name: each.report for name, each in fitted.items()},
        weights=weights,
        seconds={
            "stage_one": stage_one_done - started,
            "stage_two": time.monotonic() - stage_one_done,
        },
        prior=pairs.prior,
    )
    return model, summary


def _suitable(
    configs: Mapping[str, ExpertConfig], dim: int, reporter: Reporter | None
) -> Mapping[str, ExpertConfig]:
    """The experts that can be fitted to so many parameters; all of them if none can."""
    fitting = {
        name: config
        for name, config in configs.items()
        if config.max_dim is None or dim <= config.max_dim
    }
    if not fitting:
        return configs  # their own errors say why
    for name in configs.keys() - fitting.keys():
        most = configs[name].max_dim
        (reporter or Reporter()).log(f"{name} left out: at most {most} parameter, found {dim}")
    return fitting


def _fit_weights(experts: Mapping[str, Expert], split: PairSplit, options: FitOptions) -> WeightFit:
    log_q = [expert.log_prob_out_of_fold(split.folds) for expert in experts.values()]
    return fit_weights(
        torch.stack(log_q, dim=1), options.weight_rule, beta=options.momentum,
        sample_weight=split.folds.heldout_sample_weight,
    )  # fmt: skip
