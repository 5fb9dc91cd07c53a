"""Whether a mixture may stand for a posterior: measured, then judged, with reasons."""

from __future__ import annotations

import math

from amfvi.comparison import Comparison
from amfvi.diagnostics import DO_NOT_TRUST, TRUST, USE_WITH_WEIGHTS, Diagnostics
from amfvi.importance import khat_threshold
from amfvi.log_density import OutOfBudgetError, UnconstrainedDensity
from amfvi.metrics.likelihood import Estimate
from amfvi.missing import Missed
from amfvi.mixture import Mixture
from amfvi.sampler.replicas import PosteriorSample
from amfvi.split import Split

__all__ = ["doubtful", "judged"]

GOOD_EFFICIENCY = 0.5  # of the mixture's own draws, above which they need no weights
SAME_LOG_Z = 0.1  # nats that two estimates may differ whatever errors they claim
SAME_RUNS = 0.5  # nats that two runs' log Z, or a bound and log Z, may differ
SAME_MEANS = 0.2  # standard deviations that two runs' means may differ


def judged(
    comparison: Comparison,
    sample: PosteriorSample,
    split: Split,
    mixture: Mixture,
    density: UnconstrainedDensity,
    missed: Missed,
    *,
    refined: PosteriorSample | None,
) -> Diagnostics:
    """The diagnostics of a fit, verdict included.

    Args:
        sample: of the first sampling, which started broad.
        refined: of the last sampling that started from a mixture, if there was one.
    """
    found, threshold = comparison.importance, khat_threshold(comparison.importance.draws)
    eubo = _eubo(mixture, split, density)
    last = refined or sample
    against: list[str] = []
    if sample.stopped_by is not None:
        against.append(f"the sampler was stopped by {sample.stopped_by}")
    if not found.khat < threshold:
        against.append(
            f"k̂ is {found.khat:.2f}, not below {threshold:.2f}: the posterior has tails or parts "
            "that the mixture covers too thinly for weights to mend (heavy tails? the expert tmm)"
        )
    if not abs(found.log_z.mean - last.log_z.mean) <= _allowed(comparison, last):
        against.append(
            f"log Z is {found.log_z.mean:.3f} by the mixture and {last.log_z.mean:.3f} by the "
            f"sampler, further apart than their errors"
        )
    against += _contradictions(last)
    if eubo is not None and found.efficiency > 0:
        excess = eubo.mean - found.log_z.mean
        if excess > max(SAME_RUNS, 3 * math.log(1 / found.efficiency)) + 2 * eubo.se:
            against.append(
                f"draws of the sampler put log Z at {eubo.mean:.2f} at most, {excess:.2f} above "
                "what the mixture's own draws give: it lacks parts that they visit"
            )
    against += [
        f"the mixture lacks a mode at {density.density.described(mode.x)} with about "
        f"{mode.share:.0%} of the mass"
        for mode in missed.modes
    ]
    if missed.far_out:
        against.append(
            f"the mixture lacks tails or parts far out with about {missed.far_out:.0%} of the mass"
        )
    scope = (
        f"nothing is known of modes that no start reached (the sampler started from {sample.start})"
    )
    if not missed.searched:
        scope += "; there were no calls left to search for modes that the mixture lacks"
    if against:
        verdict, reasons = DO_NOT_TRUST, against
    elif found.efficiency < GOOD_EFFICIENCY:
        verdict = USE_WITH_WEIGHTS
        reasons = [
            f"{found.efficiency:.0%} of the mixture's draws are effective and k̂ is "
            f"{found.khat:.2f}: weighted draws are reliable, plain ones approximate"
        ]
    else:
        verdict = TRUST
        reasons = [f"{found.efficiency:.0%} of its draws are effective, k̂ is {found.khat:.2f}"]
    return Diagnostics(
        verdict=verdict,
        reasons=(*reasons, scope),
        log_z=found.log_z.mean,
        log_z_se=found.log_z.se,
        log_z_sampler=last.log_z.mean,
        log_z_sampler_se=last.log_z.se,
        elbo=found.elbo.mean,
        elbo_se=found.elbo.se,
        eubo=eubo.mean if eubo else None,
        eubo_se=eubo.se if eubo else None,
        ess=found.ess,
        khat=found.khat,
        khat_threshold=threshold,
        draws=found.draws,
        calls=density.budget.spent,
        start=sample.start,
    )


def doubtful(sample: PosteriorSample, comparison: Comparison) -> bool:
    """Whether a sampler contradicts itself, or saw less than the mixture shows there is.

    It may show more: a flow goes on where draws end, and its own draws are weighed exactly.
    """
    difference = comparison.importance.log_z.mean - sample.log_z.mean
    saw_less = comparison.reliable and difference > _allowed(comparison, sample)
    return saw_less or bool(_contradictions(sample))


def _contradictions(sample: PosteriorSample) -> list[str]:
    """What the two runs of a sampler disagree in."""
    if len(sample.log_z_of_runs) < 2:
        return []
    found = []
    if sample.disagreement > SAME_MEANS:
        found.append(
            f"two runs of the sampler differ by {sample.disagreement:.2f} standard deviations "
            "in the mean of a parameter"
        )
    one, other = sample.log_z_of_runs
    apart = abs(one.mean - other.mean)
    if apart > max(SAME_RUNS, 4 * math.hypot(one.se, other.se)):
        found.append(f"two runs of the sampler differ by {apart:.2f} in log Z")
    return found


def _allowed(comparison: Comparison, sample: PosteriorSample) -> float:
    """Nats that the log Z of a mixture and of a sampler may differ."""
    return max(SAME_LOG_Z, 4 * math.hypot(comparison.importance.log_z.se, sample.log_z.se))


def _eubo(mixture: Mixture, split: Split, density: UnconstrainedDensity) -> Estimate | None:
    """E_p[log p̃ − log q] at test draws of the sampler; None without any, or without calls."""
    if split.test is None:
        return None
    y, log_det = density.density.support.to_unconstrained(split.test)
    try:
        log_p = density.log_prob(y) + log_det
    except OutOfBudgetError:
        return None
    return Estimate.of(log_p - mixture.log_prob(split.test), split.test_weight)
