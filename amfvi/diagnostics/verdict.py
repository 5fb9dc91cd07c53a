"""Decide whether to trust a fit to a log density."""

from __future__ import annotations

import math

from amfvi.diagnostics.evidence import Evidence
from amfvi.diagnostics.importance import khat_threshold
from amfvi.diagnostics.reasons import CHECKS, undetected_modes
from amfvi.diagnostics.report import Diagnostics, Verdict
from amfvi.diagnostics.thresholds import MIN_SHARE, WELL_SEARCHED_DIM

__all__ = ["diagnose"]


def diagnose(evidence: Evidence) -> Diagnostics:
    """Judge a fit and collect its diagnostics.

    Any reason against the fit makes the verdict "do not trust"; without one, the
    effective sample size decides between weighted and plain draws.

    Examples:
        >>> import torch
        >>> from amfvi.diagnostics.agreement import runs_disagree
        >>> from amfvi.diagnostics.comparison import WeightedDraws
        >>> from amfvi.diagnostics.coverage import CoverageReport
        >>> from amfvi.diagnostics.departure import Departure
        >>> from amfvi.diagnostics.shift import WeightShift
        >>> from amfvi.density.log_density import LogDensity
        >>> from amfvi.density.unconstrained import UnconstrainedDensity
        >>> from amfvi.diagnostics.importance import ImportanceEstimate
        >>> from amfvi.sampler.runs import sample_posterior
        >>> normal = UnconstrainedDensity(LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), 1))
        >>> sample, log_weights = sample_posterior(normal, 200, seed=0), torch.zeros(500) + 0.92
        >>> importance = ImportanceEstimate.from_log_weights(log_weights)
        >>> weighted = WeightedDraws(x=sample.x, log_weights=log_weights, importance=importance)
        >>> shift = WeightShift(mean=0.0, sd=0.0, bound=0.02)
        >>> evidence = Evidence(weighted=weighted, shift=shift, sample=sample, refinement=None,
        ...                     eubo=None,
        ...                     departure=Departure(excess=0.0, excess_se=0.01, lacking=0.0),
        ...                     coverage=CoverageReport(searched=True, tail_mass=0.0),
        ...                     n_evaluations=5000, describe=normal.describe)
        >>> print(diagnose(evidence).verdict, runs_disagree(sample, weighted))
        trust False
    """
    importance = evidence.weighted.importance
    verdict, reasons = _judge(evidence)
    refinement, eubo, sample = evidence.refinement, evidence.eubo, evidence.sample
    return Diagnostics(
        verdict=verdict,
        reasons=(*reasons, _scope(evidence)),
        log_z=importance.log_z.mean,
        log_z_se=_log_z_se(evidence),
        log_z_sampler=sample.log_z.mean if sample else None,
        log_z_sampler_se=sample.log_z.se if sample else None,
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
        start=sample.reference if sample else None,
    )


def _log_z_se(evidence: Evidence) -> float:
    """The standard error of log Z, which allows for modes that are too small to be reported.

    Those that were found count in full. In more than a few dimensions one may not have been
    found; its mass is taken for uniform up to the reportable share.
    """
    se = math.hypot(evidence.weighted.importance.log_z.se, evidence.coverage.unmentioned_mass)
    if evidence.weighted.x.shape[1] <= WELL_SEARCHED_DIM:
        return se
    return math.hypot(se, MIN_SHARE / math.sqrt(12))


def _judge(evidence: Evidence) -> tuple[Verdict, list[str]]:
    """The verdict and what it rests on."""
    importance, shift = evidence.weighted.importance, evidence.shift
    against = [reason for check in CHECKS if (reason := check(evidence)) is not None]
    against += undetected_modes(evidence)
    if against:
        return Verdict.DO_NOT_TRUST, against
    effective = (
        f"{importance.efficiency:.0%} of its draws are effective, k̂ is {importance.khat:.2f}"
    )
    if evidence.needs_weights:
        off = f"{shift.off:.2f} sd" if shift.off < 1 else "more than a standard deviation"
        return Verdict.USE_WITH_IMPORTANCE_WEIGHTS, [
            f"{effective}, and moments of plain draws may be off by {off}: "
            "weighted draws are reliable, plain ones approximate"
        ]
    return Verdict.TRUST, [effective]


def _scope(evidence: Evidence) -> str:
    """What no check can show."""
    sample = evidence.sample
    if sample is None:
        scope = "nothing is known of modes that no search reached"
    elif sample.is_given:
        scope = "nothing is known of modes that neither the given draws nor a search reached"
    else:
        scope = (
            "nothing is known of modes that no start reached (the sampler started from "
            f"{sample.reference})"
        )
    if not evidence.coverage.searched:
        scope += (
            "; too few evaluations were left to search for modes that the mixture lacks, "
            "so it may lack some"
        )
    if evidence.coverage.tail_mass is None:
        scope += "; its tails were not measured"
    return scope if evidence.caveat is None else f"{evidence.caveat}; {scope}"
