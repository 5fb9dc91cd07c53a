"""Fit a mixture to a log density: sample, attempt, refine, defend, judge."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from amfvi.density.budget import OutOfBudgetError
from amfvi.density.log_density import LogDensity
from amfvi.diagnostics.comparison import WeightedDraws
from amfvi.diagnostics.defensive import ensure_reliable_weights
from amfvi.diagnostics.report import Diagnostics
from amfvi.diagnostics.thresholds import GOOD_EFFICIENCY, MIN_GAIN
from amfvi.diagnostics.verdict import Evidence, diagnose, runs_disagree
from amfvi.errors import FitError
from amfvi.inference.messages import TYPICAL_EVALUATIONS, announce, describe_weights
from amfvi.inference.session import Attempt, Session
from amfvi.mixture import Mixture
from amfvi.reporting import Reporter
from amfvi.sampler.checkpoint import SamplerCheckpoint
from amfvi.sampler.runs import PosteriorSample
from amfvi.two_stage.fit import FitSummary
from amfvi.two_stage.options import FitOptions

__all__ = ["Inference", "infer"]

DEFAULT_REFINEMENTS = 2
"""Most refinements, if none are asked for."""


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
    samples = _Samples(_first_sample(session))
    attempt = _first_attempt(session, samples)
    attempt = _refine(session, samples, attempt)
    attempt = _defend(session, attempt)
    return _judge(session, samples, attempt)


@dataclass
class _Samples:
    """The samples drawn so far.

    Attributes:
        first: the first sampling from the broad start.
        broad: every sampling from a broad start.
        refinement: the last sampling that started from a mixture.
    """

    first: PosteriorSample
    broad: list[PosteriorSample] = field(default_factory=list)
    refinement: PosteriorSample | None = None

    def __post_init__(self) -> None:
        self.broad.append(self.first)

    @property
    def last(self) -> PosteriorSample:
        """The sample that a mixture is compared with."""
        return self.refinement or self.first


def _first_sample(session: Session) -> PosteriorSample:
    """Sample from the broad start.

    Raises:
        FitError: the limits end before there is a draw.
    """
    try:
        return session.sample("sampler", "sampled")
    except OutOfBudgetError as error:
        density = session.log_density
        limit = f"{error.limit}={getattr(session.options, error.limit):g}"
        raise FitError(
            f"{limit} is too little: {density.n_evaluations} evaluations at "
            f"{density.seconds_per_call:.2g} s each were made before there was anything to fit, "
            f"about {TYPICAL_EVALUATIONS} are needed"
        ) from None


def _first_attempt(session: Session, samples: _Samples) -> Attempt:
    """Fit to the first sample and search for what the fit lacks."""
    # The comparison may use all evaluations left, and is made even when time is up.
    session.budget.release(timed=False)
    attempt = session.fit(samples.first, 0)
    session.budget.release()
    report = session.search(attempt, samples.broad)
    return attempt if report is None else replace(attempt, coverage=report)


def _refine(session: Session, samples: _Samples, attempt: Attempt) -> Attempt:
    """Sample and fit again from the mixture while that helps or something is lacking."""
    wanted = session.options.max_refinements
    for number in range(1, (DEFAULT_REFINEMENTS if wanted is None else wanted) + 1):
        disagree = runs_disagree(samples.last, attempt.weighted)
        good = attempt.efficiency >= GOOD_EFFICIENCY and not attempt.undetected
        if (good and not disagree) or samples.first.stopped_by:
            break
        try:
            if disagree and samples.refinement is None and not attempt.undetected:
                attempt = _look_again(session, samples, attempt)
            again = session.sample(
                f"refinement {number}", "refined", reference=session.reference_from(attempt)
            )
            if again.stopped_by:
                break
            candidate = session.fit(again, number)
        except OutOfBudgetError:
            break
        samples.refinement = again
        gain = candidate.efficiency / max(attempt.efficiency, 1e-9)
        sound = candidate.weighted.reliable or not attempt.weighted.reliable
        # An efficient mixture may lack a mode, so efficiency alone does not decide.
        if (gain > 1 and sound) or attempt.undetected:
            attempt = _succeed(session, samples, attempt, candidate)
        if gain < MIN_GAIN and not attempt.undetected:
            break
    return attempt


def _look_again(session: Session, samples: _Samples, attempt: Attempt) -> Attempt:
    """Sample from the broad start with twice the particles, and search what was seen."""
    look = session.sample("second look", "looked again:", particle_multiplier=2)
    samples.broad.append(look)
    report = session.search(attempt, [look])
    return attempt if report is None else replace(attempt, coverage=attempt.coverage.merge(report))


def _succeed(session: Session, samples: _Samples, before: Attempt, after: Attempt) -> Attempt:
    """Replace an attempt by a later one, which inherits what is known to be lacking."""
    log_z = after.weighted.importance.log_z.mean
    inherited = before.coverage.carry_to(after.mixture, session.density, log_z)
    after = replace(after, coverage=inherited)
    # A search probes inherited modes again; without one they stand.
    report = session.search(after, samples.broad)
    return after if report is None else replace(after, coverage=report)


def _defend(session: Session, attempt: Attempt) -> Attempt:
    """Mend unreliable importance weights, by a defensive component if need be."""
    if attempt.weighted.reliable:
        return attempt
    with session.timed("diagnostics"):
        mixture, weighted = ensure_reliable_weights(
            attempt.mixture,
            attempt.weighted,
            session.density,
            attempt.summary.split.folds,
            seed=session.options.seed,
        )
        session.reporter.log(describe_weights(weighted))
        tail_mass = session.tail_mass(mixture, weighted)
    coverage = attempt.coverage
    if tail_mass is not None:  # else the mass measured before stands
        coverage = replace(coverage, tail_mass=tail_mass)
    return replace(attempt, mixture=mixture, weighted=weighted, coverage=coverage)


def _judge(session: Session, samples: _Samples, attempt: Attempt) -> Inference:
    """Reach the verdict on all evidence."""
    with session.timed("diagnostics"):
        diagnostics = diagnose(
            Evidence(
                weighted=attempt.weighted,
                sample=samples.first,
                refinement=samples.refinement,
                coverage=attempt.coverage,
                eubo=session.eubo(attempt.mixture, attempt.summary.split),
                n_evaluations=session.budget.spent,
                describe=session.density.describe,
            )
        )
    return Inference(
        mixture=attempt.mixture,
        summary=replace(attempt.summary, seconds=dict(session.seconds)),
        diagnostics=diagnostics,
        weighted=attempt.weighted,
    )
