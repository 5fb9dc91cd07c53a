"""Fit a mixture to a log density: sample, attempt, refine, defend, judge."""

from __future__ import annotations

from dataclasses import dataclass, replace

from amfvi.density.budget import OutOfBudgetError
from amfvi.density.log_density import LogDensity
from amfvi.diagnostics.comparison import WeightedDraws, measure_eubo
from amfvi.diagnostics.evidence import Evidence
from amfvi.diagnostics.repeatability import require_repeatable
from amfvi.diagnostics.report import Diagnostics
from amfvi.diagnostics.verdict import diagnose
from amfvi.errors import FitError
from amfvi.inference.attempt import Assessment, Attempt
from amfvi.inference.limits import CHALLENGE_RESERVE
from amfvi.inference.messages import TYPICAL_EVALUATIONS, announce
from amfvi.inference.refinement import Samples, refine
from amfvi.inference.session import Session
from amfvi.mixture import Mixture
from amfvi.reporting import Reporter
from amfvi.sampler.checkpoint import SamplerCheckpoint
from amfvi.sampler.runs import PosteriorSample
from amfvi.statistics import Estimate
from amfvi.two_stage.fit import FitSummary
from amfvi.two_stage.options import FitOptions

__all__ = ["Inference", "infer", "judge", "require_no_noise"]


@dataclass(frozen=True, kw_only=True)
class Inference:
    """A mixture fitted to a log density, and what is known of it.

    Attributes:
        mixture: the fit.
        summary: how it was fitted, with seconds per phase summed over all attempts.
        diagnostics: the verdict and the numbers it rests on.
        weighted: draws of the mixture with their importance weights.

    Examples:
        See :func:`infer`, which returns it:

        >>> sorted(Inference.__dataclass_fields__)
        ['diagnostics', 'mixture', 'summary', 'weighted']
    """

    mixture: Mixture
    summary: FitSummary
    diagnostics: Diagnostics
    weighted: WeightedDraws


def infer(
    log_density: LogDensity,
    options: FitOptions,
    *,
    reporter: Reporter | None = None,
    checkpoint: SamplerCheckpoint | None = None,
) -> Inference:
    """Fit a mixture to a posterior given by its unnormalized log density.

    The sampler's draws are fitted as any draws are; the mixture is then compared with
    the density at its own draws, and modes that it lacks are searched for. While they are
    too unlike, the sampler starts again from the mixture and what it lacks, and the
    experts are fitted to what it returns. The same is done where the runs of the sampler
    disagree or the mixture shows mass that they did not see, after a second look: the
    sampler from its broad start with twice the particles. Evidence against a fit
    accumulates: what one search found is known to all later ones.

    Args:
        checkpoint: where the sampler saves its state, and resumes from.

    Raises:
        InputError: a broken density, or one that is zero at every point tried.
        FitError: an expert or the weights could not be fitted, or the limits are too
            small for a single fit.

    Examples:
        >>> normal = LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), dim=1)
        >>> inference = infer(normal, FitOptions(experts="gmm", n_draws=500))
        >>> str(inference.diagnostics.verdict)
        'trust'
    """
    session = Session(log_density, options, reporter or Reporter(), checkpoint)
    announce(session.reporter, log_density)
    sample = _first_sample(session)
    samples = Samples(sample, evaluations=session.budget.spent)
    first = _first_attempt(session, samples)
    attempt = refine(session, samples, first)
    if attempt.mixture is not first.mixture:
        require_no_noise(session, attempt)
    with session.timed("diagnostics"):
        eubo = measure_eubo(attempt.mixture, session.density, attempt.summary.split)
    return judge(session, samples, attempt, eubo)


def _first_sample(session: Session) -> PosteriorSample:
    """Sample from the broad start.

    Raises:
        FitError: the limits end before there is a draw.
    """
    try:
        return session.sample("sampler", "sampled")
    except OutOfBudgetError as error:
        density = session.log_density
        raise FitError(
            f"{error} is too little: {session.budget.spent} evaluations at "
            f"{density.seconds_per_call:.2g} s each were made before there was anything to fit, "
            f"about {TYPICAL_EVALUATIONS} are needed"
        ) from None


def _first_attempt(session: Session, samples: Samples) -> Attempt:
    """Fit to the first sample and search for what the fit lacks."""
    # The comparison may use all evaluations left, and is made even when time is up.
    session.budget.release(timed=False)
    attempt = session.fit(samples.first, 0)
    require_no_noise(session, attempt)
    session.budget.release(kept=CHALLENGE_RESERVE)
    report = session.search(attempt, samples.broad)
    return attempt if report is None else replace(attempt, coverage=report)


def require_no_noise(session: Session, attempt: Assessment) -> None:
    """Require that the density gives the same values at the mixture's draws again.

    Raises:
        InputError: it does not.

    Examples:
        See :func:`infer`, which begins with it:

        >>> require_no_noise.__annotations__["return"]
        'None'
    """
    weighted = attempt.weighted
    log_p = weighted.log_weights + attempt.mixture.log_prob(weighted.x)
    with session.timed("diagnostics"):
        require_repeatable(session.density, weighted.x, log_p)


def judge(session: Session, samples: Samples, attempt: Attempt, eubo: Estimate | None) -> Inference:
    """Reach the verdict on all evidence.

    Args:
        eubo: E_p[log p̃ − log q] at draws of the posterior, nats; None if unknown.

    Examples:
        See :func:`infer`, which ends with it:

        >>> judge.__annotations__["return"]
        'Inference'
    """
    with session.timed("diagnostics"):
        diagnostics = diagnose(
            Evidence(
                weighted=attempt.weighted,
                shift=attempt.shift,
                sample=samples.first,
                refinement=samples.refinement,
                coverage=attempt.coverage,
                departure=attempt.departure,
                eubo=eubo,
                n_evaluations=session.budget.spent,
                describe=session.density.describe,
                caveat=session.density.log_density.caveat,
            )
        )
    return Inference(
        mixture=attempt.mixture,
        summary=replace(attempt.summary, seconds=dict(session.seconds)),
        diagnostics=diagnostics,
        weighted=attempt.weighted,
    )
