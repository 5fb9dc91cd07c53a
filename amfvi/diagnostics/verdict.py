"""Decide whether to trust a fit to a log density."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from amfvi.diagnostics.comparison import WeightedDraws
from amfvi.diagnostics.coverage import CoverageReport
from amfvi.diagnostics.importance import khat_threshold
from amfvi.diagnostics.report import Diagnostics, Verdict
from amfvi.diagnostics.thresholds import (
    GOOD_EFFICIENCY,
    LOG_Z_TOLERANCE,
    RUN_LOG_Z_TOLERANCE,
    RUN_MEAN_TOLERANCE,
)
from amfvi.sampler.runs import PosteriorSample
from amfvi.statistics import Estimate

__all__ = ["Evidence", "diagnose", "runs_disagree"]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that a verdict rests on.

    Attributes:
        weighted: draws of the mixture with their importance weights.
        sample: of the first sampling, which started broad.
        refinement: of the last sampling that started from a mixture; None without one.
        coverage: what the mixture is known to lack.
        eubo: E_p[log p̃ − log q] at test draws of the sampler, nats; None if unknown.
        n_evaluations: evaluations of the density, in all.
        describe: writes out a point (d,) with the names of its parameters.

    Examples:
        See :func:`diagnose`, which judges it:

        >>> "coverage" in Evidence.__dataclass_fields__
        True
    """

    weighted: WeightedDraws
    sample: PosteriorSample
    refinement: PosteriorSample | None
    coverage: CoverageReport
    eubo: Estimate | None
    n_evaluations: int
    describe: Callable[[Tensor], str]

    @property
    def last_sample(self) -> PosteriorSample:
        """The sample that the mixture was last compared with."""
        return self.refinement or self.sample


def diagnose(evidence: Evidence) -> Diagnostics:
    """Judge a fit and collect its diagnostics.

    Any reason against the fit makes the verdict "do not trust"; without one, the
    effective sample size decides between weighted and plain draws.

    Examples:
        >>> import torch
        >>> from amfvi.density.log_density import LogDensity
        >>> from amfvi.density.unconstrained import UnconstrainedDensity
        >>> from amfvi.diagnostics.importance import ImportanceEstimate
        >>> from amfvi.sampler.runs import sample_posterior
        >>> normal = UnconstrainedDensity(LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), 1))
        >>> sample, log_weights = sample_posterior(normal, 200, seed=0), torch.zeros(500) + 0.92
        >>> importance = ImportanceEstimate.from_log_weights(log_weights)
        >>> weighted = WeightedDraws(x=sample.x, log_weights=log_weights, importance=importance)
        >>> evidence = Evidence(weighted=weighted, sample=sample, refinement=None, eubo=None,
        ...                     coverage=CoverageReport(searched=True, tail_mass=0.0),
        ...                     n_evaluations=5000, describe=normal.describe)
        >>> print(diagnose(evidence).verdict, runs_disagree(sample, weighted))
        trust False
    """
    importance = evidence.weighted.importance
    against = [reason for check in CHECKS if (reason := check(evidence)) is not None]
    against += _undetected_modes(evidence)
    if against:
        verdict, reasons = Verdict.DO_NOT_TRUST, against
    elif importance.efficiency < GOOD_EFFICIENCY:
        verdict = Verdict.USE_WITH_IMPORTANCE_WEIGHTS
        reasons = [
            f"{importance.efficiency:.0%} of the mixture's draws are effective and k̂ is "
            f"{importance.khat:.2f}: weighted draws are reliable, plain ones approximate"
        ]
    else:
        verdict = Verdict.TRUST
        reasons = [
            f"{importance.efficiency:.0%} of its draws are effective, k̂ is {importance.khat:.2f}"
        ]
    refinement, eubo = evidence.refinement, evidence.eubo
    return Diagnostics(
        verdict=verdict,
        reasons=(*reasons, _scope(evidence)),
        log_z=importance.log_z.mean,
        log_z_se=importance.log_z.se,
        log_z_sampler=evidence.sample.log_z.mean,
        log_z_sampler_se=evidence.sample.log_z.se,
        log_z_refinement=refinement.log_z.mean if refinement else None,
        log_z_refinement_se=refinement.log_z.se if refinement else None,
        elbo=importance.elbo.mean,
        elbo_se=importance.elbo.se,
        eubo=eubo.mean if eubo else None,
        eubo_se=eubo.se if eubo else None,
        ess=importance.ess,
        khat=importance.khat,
        khat_threshold=khat_threshold(importance.n_draws),
        n_draws=importance.n_draws,
        n_evaluations=evidence.n_evaluations,
        start=evidence.sample.reference,
    )


def runs_disagree(sample: PosteriorSample, weighted: WeightedDraws) -> bool:
    """Whether the sampler's runs disagree, or saw less mass than the mixture shows.

    They may have seen more: a flow extends beyond its draws, and its own draws are
    weighted exactly.

    Examples:
        See :func:`diagnose`:

        >>> runs_disagree.__annotations__["return"]
        'bool'
    """
    difference = weighted.importance.log_z.mean - sample.log_z.mean
    saw_less = weighted.reliable and difference > _log_z_tolerance(weighted, sample)
    return saw_less or _means_of_runs(sample) is not None or _log_z_of_runs(sample) is not None


def _stopped(evidence: Evidence) -> str | None:
    stopped_by = evidence.sample.stopped_by
    return None if stopped_by is None else f"the sampler was stopped by {stopped_by}"


def _unreliable_weights(evidence: Evidence) -> str | None:
    importance = evidence.weighted.importance
    threshold = khat_threshold(importance.n_draws)
    if importance.khat < threshold:
        return None
    return (
        f"k̂ is {importance.khat:.2f}, not below {threshold:.2f}: the posterior has tails or "
        "parts that the mixture covers too thinly for weights to mend (heavy tails? add the "
        "expert tmm)"
    )


def _log_z_of_mixture_and_sampler(evidence: Evidence) -> str | None:
    log_z, sample = evidence.weighted.importance.log_z, evidence.last_sample
    if abs(log_z.mean - sample.log_z.mean) <= _log_z_tolerance(evidence.weighted, sample):
        return None
    return (
        f"log Z is {log_z.mean:.3f} by the mixture and {sample.log_z.mean:.3f} by the sampler, "
        "further apart than their errors"
    )


def _disagreeing_means(evidence: Evidence) -> str | None:
    return _means_of_runs(evidence.last_sample)


def _disagreeing_log_z(evidence: Evidence) -> str | None:
    return _log_z_of_runs(evidence.last_sample)


def _means_of_runs(sample: PosteriorSample) -> str | None:
    if len(sample.log_z_of_runs) < 2:
        return None
    if not sample.max_mean_discrepancy_in_sd > RUN_MEAN_TOLERANCE:
        return None
    return (
        f"two runs of the sampler differ by {sample.max_mean_discrepancy_in_sd:.2f} standard "
        "deviations in the mean of a parameter"
    )


def _log_z_of_runs(sample: PosteriorSample) -> str | None:
    if len(sample.log_z_of_runs) < 2:
        return None
    first, second = sample.log_z_of_runs
    difference = abs(first.mean - second.mean)
    if not difference > max(RUN_LOG_Z_TOLERANCE, 4 * math.hypot(first.se, second.se)):
        return None
    return f"two runs of the sampler differ by {difference:.2f} in log Z"


def _upper_bound(evidence: Evidence) -> str | None:
    importance, eubo = evidence.weighted.importance, evidence.eubo
    if eubo is None or not importance.efficiency > 0:
        return None
    excess = eubo.mean - importance.log_z.mean
    allowed = max(RUN_LOG_Z_TOLERANCE, 3 * math.log(1 / importance.efficiency)) + 2 * eubo.se
    if not excess > allowed:
        return None
    return (
        f"draws of the sampler put log Z at {eubo.mean:.2f} at most, {excess:.2f} above what the "
        "mixture's own draws give: it lacks parts that they visit"
    )


def _tails(evidence: Evidence) -> str | None:
    if not evidence.coverage.tail_mass:
        return None
    return (
        "the mixture lacks tails or parts far out with about "
        f"{_of_whole(evidence.coverage.tail_mass):.0%} of the mass"
    )


CHECKS = (
    _stopped,
    _unreliable_weights,
    _log_z_of_mixture_and_sampler,
    _disagreeing_means,
    _disagreeing_log_z,
    _upper_bound,
    _tails,
)
"""What may count against a fit: each gives a reason, or None."""


def _undetected_modes(evidence: Evidence) -> list[str]:
    return [
        f"the mixture lacks a mode at {evidence.describe(undetected.x)} with about "
        f"{_of_whole(undetected.share):.0%} of the mass"
        for undetected in evidence.coverage.modes
    ]


def _of_whole(share: float) -> float:
    """The share of the whole mass, from one relative to what the mixture covers."""
    return share / (1 + share)


def _scope(evidence: Evidence) -> str:
    """What no check can show."""
    scope = (
        "nothing is known of modes that no start reached (the sampler started from "
        f"{evidence.sample.reference})"
    )
    if not evidence.coverage.searched:
        scope += (
            "; too few evaluations were left to search for modes that the mixture lacks, "
            "so it may lack some"
        )
    if evidence.coverage.tail_mass is None:
        scope += "; its tails were not measured"
    return scope


def _log_z_tolerance(weighted: WeightedDraws, sample: PosteriorSample) -> float:
    """Nats that the log Z of a mixture and of a sampler may differ."""
    return max(LOG_Z_TOLERANCE, 4 * math.hypot(weighted.importance.log_z.se, sample.log_z.se))
