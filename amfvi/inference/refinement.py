"""Refine a fit to a log density while something is lacking and it helps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from amfvi.density.budget import OutOfBudgetError
from amfvi.diagnostics.agreement import runs_disagree
from amfvi.diagnostics.defensive import ensure_reliable_weights
from amfvi.diagnostics.thresholds import MAX_MENDED_SHIFT, MAX_SHIFT, MIN_GAIN, SIGNIFICANT
from amfvi.errors import FitError
from amfvi.inference.attempt import Attempt
from amfvi.inference.confirmation import confirm
from amfvi.inference.limits import ARRIVAL_RESERVE, MIN_REWEIGHTED_SHARE
from amfvi.inference.messages import describe_weights
from amfvi.inference.reweighting import sample_from_weights
from amfvi.inference.session import Session
from amfvi.randomness import generator_for
from amfvi.sampler.enrichment import enrich
from amfvi.sampler.integrability import NotIntegrableError
from amfvi.sampler.runs import PosteriorSample

__all__ = ["Samples", "refine"]

MAX_REFINEMENTS = 8
"""Most refinements, if no other number is asked for."""

MAX_MODE_REFINEMENTS = 2
"""Refinements after which a mode that is still lacking is no longer tried to be covered."""

LOOK_COST = 1.5
"""Evaluations that a second look takes, of those of the first sampling."""

MOVING_ON = ARRIVAL_RESERVE + 20_000
"""Evaluations that a second look has to leave: two rounds of moving on, and what follows."""

ENRICHMENT_RESERVE = 20_000
"""Evaluations that are left at least where some are spent on draws far out."""

MIN_KEPT = 0.5
"""Share of the efficiency that a new fit must keep to be better for another reason."""


@dataclass
class Samples:
    """The samples drawn so far.

    Attributes:
        first: the first sampling from the broad start.
        broad: every sampling from a broad start.
        refinement: the last sampling that started from a mixture.
        may_sample: whether the sampler is to be used; not where draws were given.
        evaluations: how many the first sampling took.

    Examples:
        See :func:`refine`, which adds to them:

        >>> sorted(Samples.__dataclass_fields__)
        ['broad', 'evaluations', 'first', 'may_sample', 'refinement']
    """

    first: PosteriorSample
    broad: list[PosteriorSample] = field(default_factory=list)
    refinement: PosteriorSample | None = None
    may_sample: bool = True
    evaluations: int = 0

    def __post_init__(self) -> None:
        self.broad.append(self.first)

    @property
    def last(self) -> PosteriorSample:
        """The sample that a mixture is compared with."""
        return self.refinement or self.first


def refine(session: Session, samples: Samples, attempt: Attempt) -> Attempt:
    """Sample and fit again while something is lacking, the limits allow and it helps.

    What is done depends on what is lacking: modes are added to where the sampler starts;
    a mixture whose weights are right but whose plain draws are not is fitted to its own
    weighted draws, unless chains far out find more; otherwise the sampler moves on from the
    mixture until it has arrived.

    Examples:
        >>> from amfvi.density.log_density import LogDensity
        >>> from amfvi.reporting import Reporter
        >>> from amfvi.two_stage.options import FitOptions
        >>> normal = LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), dim=1)
        >>> session = Session(normal, FitOptions(experts="gmm", n_draws=500), Reporter(), None)
        >>> samples = Samples(session.sample("sampler", "sampled"))
        >>> attempt = refine(session, samples, session.fit(samples.first, 0))
        >>> attempt.departure.leaves
        False
    """
    wanted = session.options.max_refinements
    attempt = _compress_tails(session, samples, _defend(session, attempt))
    reweighting_failed = False
    for number in range(1, (MAX_REFINEMENTS if wanted is None else wanted) + 1):
        attempt, is_done = _examine(session, samples, attempt, number)
        if is_done or samples.first.stopped_by:
            break
        if attempt.undetected and number > MAX_MODE_REFINEMENTS:
            break
        disagree = runs_disagree(samples.last, attempt.weighted)
        near = attempt.stays and not disagree and attempt.shift.largest <= MAX_MENDED_SHIFT
        reweight = attempt.can_be_reweighted and near and not reweighting_failed
        reweight = reweight and not (attempt.lacks_outskirts and _can_move_on(session, samples))
        if not reweight and not samples.may_sample:
            break
        try:
            if reweight:
                n = math.ceil(session.n_draws / max(attempt.efficiency, MIN_REWEIGHTED_SHARE))
                attempt = session.add_draws(attempt, n, f"refinement {number}")
                if not attempt.weighted.reliable:
                    reweighting_failed = True
                    continue
            elif disagree and samples.refinement is None and not attempt.undetected:
                attempt = _look_again(session, samples, attempt)
            candidate = _fit_again(session, samples, attempt, number, reweight=reweight)
        except OutOfBudgetError:
            break
        except FitError as error:  # what was fitted before stands
            session.reporter.log(f"refinement {number} failed: {error}")
            break
        if candidate is not None and _is_better(candidate, attempt):
            attempt = _succeed(session, samples, attempt, candidate)
        elif reweight:
            reweighting_failed = True
        else:
            break
    session.budget.release()
    attempt = _defend(session, attempt, is_last_resort=True)
    if attempt.departure is None:
        attempt = session.challenge(attempt)
    return confirm(session, attempt, MAX_REFINEMENTS) if attempt.pays_a_look else attempt


def _examine(
    session: Session, samples: Samples, attempt: Attempt, number: int
) -> tuple[Attempt, bool]:
    """Look closer at an attempt that may be right; and whether it then is as good as it gets."""
    if attempt.pays_a_look and attempt.departure is None:
        attempt = session.challenge(attempt)

    def agrees() -> bool:
        return attempt.stays and not runs_disagree(samples.last, attempt.weighted)

    may_be_right = attempt.is_sound and (attempt.may_be_noise or not attempt.moves_moments)
    if agrees() and (may_be_right or _is_for_want_of_draws(attempt, MAX_MENDED_SHIFT)):
        attempt = confirm(session, attempt, number)
    is_right = attempt.is_sound and not attempt.moves_moments
    return attempt, agrees() and (is_right or _is_for_want_of_draws(attempt, MAX_SHIFT))


def _is_for_want_of_draws(attempt: Attempt, largest_shift: float) -> bool:
    """Whether weights mend a mixture that another fit to as many draws would not improve."""
    can_be_mended = attempt.is_usable and attempt.shift.largest <= largest_shift
    return attempt.has_many_parameters and can_be_mended


def _compress_tails(session: Session, samples: Samples, attempt: Attempt) -> Attempt:
    """Fit to the same draws with heavy tails compressed, where a fit is not right without."""
    transform = attempt.mixture.transform
    if attempt.is_sound and not attempt.moves_moments:
        return attempt
    if transform.with_compressed_tails(samples.first.x) == transform:
        return attempt
    session.compresses_tails = True
    try:
        candidate = _defend(session, session.fit(samples.first, 0))
    except OutOfBudgetError:
        candidate = attempt
    except FitError as error:  # what was fitted before stands
        session.reporter.log(f"with compressed tails: {error}")
        candidate = attempt
    if candidate is not attempt and _is_better(candidate, attempt):
        return _succeed(session, samples, attempt, candidate)
    session.compresses_tails = False
    return attempt


def _is_better(candidate: Attempt, attempt: Attempt) -> bool:
    """Whether a new fit shows more of the mass, or the same more efficiently."""
    new, old = candidate.weighted.importance.log_z, attempt.weighted.importance.log_z
    finds_more = new.mean - old.mean > SIGNIFICANT * math.hypot(new.se, old.se)
    finds_less = old.mean - new.mean > SIGNIFICANT * math.hypot(new.se, old.se)
    if finds_more or attempt.undetected:  # an efficient mixture may lack a mode
        return True
    if finds_less or (attempt.weighted.reliable and not candidate.weighted.reliable):
        return False
    mends = candidate.weighted.reliable and not attempt.weighted.reliable
    mends = mends or (attempt.moves_moments and not candidate.moves_moments)
    mends = mends or (candidate.tells_spread and not attempt.tells_spread)
    closer = candidate.shift.largest < attempt.shift.largest
    left = attempt.departure is not None and attempt.departure.leaves
    gain = candidate.efficiency / max(attempt.efficiency, 1e-9)
    return gain > (MIN_KEPT if mends or closer or left else MIN_GAIN)


def _fit_again(
    session: Session, samples: Samples, attempt: Attempt, number: int, *, reweight: bool
) -> Attempt | None:
    """Fit to a new sample; None if there is none.

    Args:
        reweight: whether it is the mixture's own draws with their weights.
    """
    name = f"refinement {number}"
    if reweight:
        sample = sample_from_weights(attempt.weighted, session.density.dim)
        sample = _enrich(session, sample, attempt, name)
        return _defend(session, session.fit(sample, number))
    again: PosteriorSample | None
    try:
        if attempt.undetected:
            reference = attempt.as_reference(session.density)
            again = session.sample(name, "refined", reference=reference)
        else:
            again = session.move_on(samples.last, attempt, name)
    except NotIntegrableError as error:  # where an outlier of the mixture led it
        session.reporter.log(f"{name} failed: {error}")
        return None
    if again is None or again.stopped_by:
        return None
    rich = _enrich(session, again, attempt, name)
    candidate = _defend(session, session.fit(rich, number))
    samples.refinement = again
    return candidate


def _can_move_on(session: Session, samples: Samples) -> bool:
    """Whether the sampler may be used, and enough evaluations are left for it to move on."""
    left = session.budget.left
    return samples.may_sample and (left is None or left >= ARRIVAL_RESERVE)


def _enrich(
    session: Session, sample: PosteriorSample, attempt: Attempt, name: str
) -> PosteriorSample:
    """The sample with more draws far out, for a fit to learn from, if that can be afforded."""
    left = session.budget.left
    if left is not None and left < ENRICHMENT_RESERVE:
        return sample
    density = session.density.with_transform(attempt.mixture.transform)
    with session.timed("sampling"):
        return enrich(sample, density, generator_for(session.options.seed, name, "far out"))


def _look_again(session: Session, samples: Samples, attempt: Attempt) -> Attempt:
    """Sample from the broad start with twice the particles, and search what was seen.

    Not where that would leave too few evaluations to move on from what is known.
    """
    left, needed = session.budget.left, LOOK_COST * samples.evaluations + MOVING_ON
    if left is not None and left < needed:
        session.reporter.log(f"no second look: it would leave too few of {left} evaluations")
        return attempt
    look = session.sample("second look", "looked again:", particle_multiplier=2)
    samples.broad.append(look)
    report = session.search(attempt, [look])
    return attempt if report is None else replace(attempt, coverage=attempt.coverage.merge(report))


def _succeed(session: Session, samples: Samples, before: Attempt, after: Attempt) -> Attempt:
    """Replace an attempt by a later one, which inherits what is known to be lacking."""
    log_z = after.weighted.importance.log_z.mean
    inherited = before.coverage.carry_to(after.mixture, session.density, log_z)
    after = replace(after, coverage=inherited)
    # A search probes inherited modes again; without one they stand.
    report = session.search(after, samples.broad)
    return after if report is None else replace(after, coverage=report)


def _defend(session: Session, attempt: Attempt, *, is_last_resort: bool = False) -> Attempt:
    """Mend unreliable importance weights, by a defensive component if need be."""
    if attempt.weighted.reliable:
        return attempt
    with session.timed("diagnostics"):
        mixture, weighted = ensure_reliable_weights(
            attempt.mixture,
            attempt.weighted,
            session.density,
            attempt.summary.split,
            seed=session.options.seed,
            is_last_resort=is_last_resort,
        )
        session.reporter.log(describe_weights(weighted))
        tail_mass = session.tail_mass(mixture, weighted)
    coverage = attempt.coverage
    if mixture is attempt.mixture and coverage.tail_mass is not None:
        tail_mass = max(coverage.tail_mass, tail_mass or 0.0)
    if tail_mass is not None:  # else the mass measured before stands
        coverage = replace(coverage, tail_mass=tail_mass)
    return replace(attempt, mixture=mixture, weighted=weighted, coverage=coverage)
