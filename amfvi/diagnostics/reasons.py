"""What may count against a fit: one function for each reason."""

from __future__ import annotations

import math

from amfvi.diagnostics.agreement import log_z_of_runs, log_z_tolerance, means_of_runs
from amfvi.diagnostics.evidence import Evidence
from amfvi.diagnostics.importance import khat_threshold
from amfvi.diagnostics.thresholds import (
    MAX_DEPARTURE,
    MAX_LOG_Z_SE,
    MAX_PLAIN_SHIFT,
    MAX_SD_SE,
    MAX_SHIFT,
    MAX_UNRESOLVED_SHARE,
    MAX_VARIANCE_KHAT,
    MAX_WEIGHTED_SD_NOISE,
    MIN_EFFICIENCY,
    RUN_LOG_Z_TOLERANCE,
    SIGNIFICANT,
)

__all__ = ["CHECKS", "undetected_modes"]


def _stopped(evidence: Evidence) -> str | None:
    stopped_by = None if evidence.sample is None else evidence.sample.stopped_by
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
    if sample is None:
        return None
    if abs(log_z.mean - sample.log_z.mean) <= log_z_tolerance(evidence.weighted, sample):
        return None
    return (
        f"log Z is {log_z.mean:.3f} by the mixture and {sample.log_z.mean:.3f} by {sample.origin}, "
        "further apart than their errors"
    )


def _disagreeing_means(evidence: Evidence) -> str | None:
    return None if evidence.last_sample is None else means_of_runs(evidence.last_sample)


def _disagreeing_log_z(evidence: Evidence) -> str | None:
    return None if evidence.last_sample is None else log_z_of_runs(evidence.last_sample)


def _upper_bound(evidence: Evidence) -> str | None:
    importance, eubo = evidence.weighted.importance, evidence.eubo
    if eubo is None or not importance.efficiency > 0:
        return None
    excess = eubo.mean - importance.log_z.mean
    allowed = max(RUN_LOG_Z_TOLERANCE, 3 * math.log(1 / importance.efficiency)) + 2 * eubo.se
    if not excess > allowed:
        return None
    return (
        f"{_draws_of(evidence)} put log Z at {eubo.mean:.2f} at most, {excess:.2f} above what the "
        "mixture's own draws give: it lacks parts that they visit"
    )


def _lower_than_bound(evidence: Evidence) -> str | None:
    importance, eubo = evidence.weighted.importance, evidence.eubo
    if eubo is None or not importance.efficiency > 0:
        return None
    deficit = importance.log_z.mean - eubo.mean
    if not deficit > max(MAX_DEPARTURE, SIGNIFICANT * math.hypot(eubo.se, importance.log_z.se)):
        return None
    return (
        f"{_draws_of(evidence)} put log Z at {eubo.mean:.2f} at most, {deficit:.2f} below what the "
        "mixture's own draws give: they have not reached all that the mixture shows"
    )


def _draws_of(evidence: Evidence) -> str:
    is_given = evidence.sample is not None and evidence.sample.is_given
    return "the given draws" if is_given else "draws of the sampler"


def _few_effective_draws(evidence: Evidence) -> str | None:
    importance = evidence.weighted.importance
    if importance.efficiency >= MIN_EFFICIENCY:
        return None
    return (
        f"only {importance.efficiency:.1%} of the mixture's draws are effective, too few to tell "
        "what it lacks"
    )


def _uncertain_evidence(evidence: Evidence) -> str | None:
    importance = evidence.weighted.importance
    if importance.log_z.se <= MAX_LOG_Z_SE:
        return None
    return (
        f"the standard error of log Z is {importance.log_z.se:.3f} and k̂ {importance.khat:.2f}: "
        "too much hangs on a few draws (raise max_evaluations=)"
    )


def _shift(evidence: Evidence) -> str | None:
    shift = evidence.shift
    if shift.largest <= MAX_SHIFT:
        return None
    moved = [f"move a mean by {shift.mean:.2f} standard deviations"] if shift.mean > 0 else []
    moved += [f"widen a standard deviation by {shift.sd:.0%}"] if shift.sd > 0 else []
    return (
        f"importance weights {' and '.join(moved)}: the mixture is not near enough for weights to "
        "mend it all"
    )


def _variance_of_few(evidence: Evidence) -> str | None:
    khat = evidence.shift.variance_khat
    if khat < MAX_VARIANCE_KHAT:
        return None
    return (
        f"k̂ of a variance is {khat:.2f}, not below {MAX_VARIANCE_KHAT:.2f}: it comes from far "
        "out, where the mixture is too thin for weights to mend it"
    )


def _uncertain_sd(evidence: Evidence) -> str | None:
    if evidence.shift.sd_se <= MAX_SD_SE:
        return None
    return (
        f"a standard deviation is known to {evidence.shift.sd_se:.0%} only: a few draws of large "
        "weight carry it, which the mixture covers too thinly"
    )


def _too_few_for_an_sd(evidence: Evidence) -> str | None:
    noise = evidence.shift.sd_noise
    if noise <= MAX_WEIGHTED_SD_NOISE or not evidence.needs_weights:
        return None
    return (
        f"plain draws may be off, and {evidence.weighted.importance.n_draws} weighted ones are too "
        f"few: they tell a standard deviation to {noise:.1%} (raise max_evaluations=)"
    )


def _disputed_sd(evidence: Evidence) -> str | None:
    dispute = evidence.shift.dispute
    if dispute <= MAX_PLAIN_SHIFT or not evidence.needs_weights:
        return None
    return (
        f"two sets of weighted draws differ by {math.expm1(dispute):.0%} in a standard deviation "
        "that comes from far out: it is not known"
    )


def _departure(evidence: Evidence) -> str | None:
    departure = evidence.departure
    if departure is None:
        return (
            "too few evaluations were left to start chains from the mixture's draws and see "
            "whether they leave it (raise max_evaluations=)"
        )
    if not departure.leaves:
        return None
    return "chains that start from the mixture's draws leave it: " + "; ".join(departure.found)


def _unresolved(evidence: Evidence) -> str | None:
    sample = evidence.last_sample
    share = 0.0 if sample is None else sample.unresolved_share
    if share <= MAX_UNRESOLVED_SHARE:
        return None
    return (
        f"{share:.1%} of the draws are nearer to a bound than floating-point numbers resolve: is "
        "every prior proper, and is the mass at the bound meant?"
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
    _lower_than_bound,
    _few_effective_draws,
    _uncertain_evidence,
    _shift,
    _variance_of_few,
    _uncertain_sd,
    _too_few_for_an_sd,
    _disputed_sd,
    _departure,
    _unresolved,
    _tails,
)
"""What may count against a fit: each gives a reason, or None."""


def undetected_modes(evidence: Evidence) -> list[str]:
    """One reason for each mode that the mixture lacks.

    Examples:
        See :func:`~amfvi.diagnostics.verdict.diagnose`:

        >>> undetected_modes.__annotations__["return"]
        'list[str]'
    """
    return [
        f"the mixture lacks a mode at {evidence.describe(undetected.x)} with about "
        f"{_of_whole(undetected.share):.0%} of the mass"
        for undetected in evidence.coverage.modes
    ]


def _of_whole(share: float) -> float:
    """The share of the whole mass, from one relative to what the mixture covers."""
    return share / (1 + share)
