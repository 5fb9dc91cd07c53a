"""From a log density to a mixture with a verdict: sample, fit, compare, refine."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from amfvi.comparison import Comparison, compared
from amfvi.defence import with_reliable_weights
from amfvi.diagnostics import Diagnostics
from amfvi.draws import Draws
from amfvi.errors import AmfviWarning, FitError
from amfvi.experts import ExpertConfig
from amfvi.log_density import Budget, LogDensity, OutOfBudgetError, UnconstrainedDensity
from amfvi.missing import Missed, missed_by, missed_far_out
from amfvi.mixture import Mixture
from amfvi.randomness import stream
from amfvi.sampler.checkpoint import SamplerCheckpoint
from amfvi.sampler.replicas import PosteriorSample, sample_posterior
from amfvi.sampler.start import start_from_mixture
from amfvi.sampler.tempering import SamplerProgress
from amfvi.split import Split, split_draws
from amfvi.stage_one import StageOneProgress
from amfvi.two_stages import BETA, FOLDS, N_DRAWS, TEST_FRACTION, FitSummary, fit_split
from amfvi.verdict import doubtful, judged

__all__ = ["Inference", "infer"]

COMPARED = 5_000  # draws of the mixture at which it is compared with the density
FEWEST_COMPARED = 200  # however little time there is
ENOUGH = 0.5  # effective share of them above which there is little to refine
BETTER = 1.1  # factor of that share that makes a further round worth it
MOST_ROUNDS = 2
TYPICAL_CALLS = 20_000  # that a posterior of a few parameters needs
LONG = 60.0  # seconds of sampling that are worth a word beforehand
SAMPLING_SHARE = 0.6  # of a time limit
RESERVED_SHARE = 0.2  # of a limit of calls, for the comparison


@dataclass(frozen=True)
class Inference:
    """A mixture, how it was fitted, and what is known of it."""

    mixture: Mixture
    summary: FitSummary
    diagnostics: Diagnostics
    comparison: Comparison
    seconds: Mapping[str, float]


def infer(
    density: LogDensity,
    configs: Mapping[str, ExpertConfig],
    *,
    n_draws: int = N_DRAWS,
    test_fraction: float = TEST_FRACTION,
    rule: str = "ema",
    beta: float = BETA,
    folds: int = FOLDS,
    seed: int = 0,
    device: torch.device | str = "cpu",
    time_limit: float | None = None,
    max_calls: int | None = None,
    rounds: int | None = None,
    checkpoint: SamplerCheckpoint | None = None,
    progress: StageOneProgress | None = None,
    sampler_progress: SamplerProgress | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Inference:
    """Fit a mixture to a posterior given by its unnormalised log density.

    The sampler's draws are fitted as any draws are; the mixture is then compared with
    the density at its own draws, and modes that it lacks are looked for. While they are
    too unlike the sampler starts again from the mixture and what it lacks, nearer than it
    was, and the experts are fitted to what it returns. So it does where its runs contradict
    each other or the mixture shows mass that they did not see, after a second look: the
    sampler from its broad start with twice the particles, for modes that the first lost.

    Args:
        n_draws: draws to fit to; test draws come on top.
        time_limit: seconds for everything; sampling takes at most a good half.
        max_calls: of the density.
        rounds: most refinements; 2 if not given.
        checkpoint: where the sampler saves how far it is, and goes on from.
        say: told what has been found, a line at a time.

    Raises:
        InputError: a broken density, or one that is −∞ wherever it was tried.
        FitError: an expert or the weights could not be fitted.
    """
    clock = _Clock(time_limit)
    budget = Budget(
        None if max_calls is None else max_calls - int(RESERVED_SHARE * max_calls),
        clock.left(SAMPLING_SHARE),
    )
    unconstrained = UnconstrainedDensity(density, budget=budget, device=device)
    _announce(say, density)
    wanted = round(n_draws / (1 - test_fraction))
    try:
        sample = sample_posterior(
            unconstrained, wanted, seed=seed, progress=sampler_progress, checkpoint=checkpoint
        )
    except OutOfBudgetError as error:
        limit = str(error) if max_calls is None else f"--max-calls {max_calls}"
        raise FitError(
            f"{limit} is too little: {density.calls} calls at {density.seconds_a_call:.2g} s a "
            f"call were made before there was anything to fit, some {TYPICAL_CALLS} are needed"
        ) from None
    sampling = clock.elapsed
    _describe(say, "sampled", sample, budget.spent, sampling)

    def attempt(draws: PosteriorSample, number: int) -> _Attempt:
        """A fit to draws of the sampler, compared with the density."""
        mixture, summary = fit_split(
            _split(density, draws, test_fraction, seed, folds),
            configs,
            rule=rule,
            beta=beta,
            seed=seed,
            device=device,
            time_limit=clock.left(),
            progress=progress,
        )
        affordable = clock.affordable(unconstrained.seconds_a_point)
        if budget.max_calls is not None:
            affordable = min(affordable, (budget.max_calls - budget.spent) // 2)
        size = max(min(COMPARED, affordable), 1)
        found = compared(mixture, unconstrained, size, stream(seed, "compare", number))
        say(_efficiency(found))
        return _Attempt(mixture, summary, found)

    budget.max_calls, budget.deadline = max_calls, None  # there has to be a comparison
    best = attempt(sample, 0)
    budget.deadline = clock.deadline
    missed = _missed(best, unconstrained, sample, seed)
    last: PosteriorSample | None = None
    for number in range(1, (MOST_ROUNDS if rounds is None else rounds) + 1):
        doubted = doubtful(last or sample, best.comparison)
        if (best.efficiency >= ENOUGH and not missed.modes and not doubted) or sample.stopped_by:
            break
        try:
            if doubted and last is None and not missed.modes:  # one may have been lost
                look = sample_posterior(
                    unconstrained,
                    wanted,
                    seed=seed,
                    effort=2,
                    purpose="second look",
                    progress=sampler_progress,
                    checkpoint=checkpoint,
                )
                _describe(say, "looked again:", look, budget.spent, clock.elapsed)
                missed = _missed(best, unconstrained, look, seed)
            again = sample_posterior(
                unconstrained,
                wanted,
                seed=seed,
                start=start_from_mixture(
                    best.mixture, density.support, [mode.optimum for mode in missed.modes]
                ),
                purpose=f"refinement {number}",
                progress=sampler_progress,
                checkpoint=checkpoint,
            )
            _describe(say, "refined", again, budget.spent, clock.elapsed)
            if again.stopped_by:
                break
            candidate = attempt(again, number)
        except OutOfBudgetError:
            break
        last, gain = again, candidate.efficiency / max(best.efficiency, 1e-9)
        sound = candidate.comparison.reliable or not best.comparison.reliable
        if (gain > 1 and sound) or missed.modes:  # an efficient mixture may lack a half
            best = candidate
            missed = _missed(best, unconstrained, sample, seed)
        if gain < BETTER and not missed.modes:
            break
    mixture, comparison = best.mixture, best.comparison
    if not comparison.reliable:
        mixture, comparison = with_reliable_weights(
            mixture, comparison, best.summary.split, unconstrained, seed
        )
        say(_efficiency(comparison))
        missed = replace(missed, far_out=_far_out(mixture, unconstrained, comparison, seed))
    mixture.log_density = density
    mixture.diagnostics = judged(
        comparison, sample, best.summary.split, mixture, unconstrained, missed, refined=last
    )
    return Inference(
        mixture,
        best.summary,
        mixture.diagnostics,
        comparison,
        {"sampling": sampling, **best.summary.seconds},
    )


@dataclass(frozen=True)
class _Attempt:
    mixture: Mixture
    summary: FitSummary
    comparison: Comparison

    @property
    def efficiency(self) -> float:
        return self.comparison.importance.efficiency


class _Clock:
    """Seconds since the start, and what is left of a limit."""

    def __init__(self, limit: float | None) -> None:
        self._started = time.monotonic()
        self._limit = limit

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._started

    @property
    def deadline(self) -> float | None:
        return None if self._limit is None else self._started + self._limit

    def left(self, share: float = 1.0) -> float | None:
        """Seconds left of a share of the limit, None where there is none."""
        return None if self._limit is None else max(share * self._limit - self.elapsed, 1e-3)

    def affordable(self, seconds_a_call: float) -> int:
        """Calls that half of the time left will do, a few hundred in any case."""
        left = self.left()
        if left is None:
            return COMPARED
        return max(FEWEST_COMPARED, int(left / 2 / max(seconds_a_call, 1e-9)))


def _split(
    density: LogDensity, sample: PosteriorSample, test_fraction: float, seed: int, folds: int
) -> Split:
    with warnings.catch_warnings():  # what is odd about the draws, the verdict will tell
        warnings.simplefilter("ignore", AmfviWarning)
        draws = Draws.of(
            sample.x,
            names=density.names,
            support=density.support,
            weights=sample.weight,
            chain=sample.run,
            source="the sampler",
        )
    return split_draws(draws, test_fraction, seed, folds)


def _missed(
    fit: _Attempt, density: UnconstrainedDensity, sample: PosteriorSample, seed: int
) -> Missed:
    """What a search finds, if there are calls left for one."""
    try:
        return missed_by(
            fit.mixture, density, fit.comparison, sample, stream(seed, "search", "mass")
        )
    except OutOfBudgetError:
        return Missed(searched=False)


def _far_out(
    mixture: Mixture, density: UnconstrainedDensity, comparison: Comparison, seed: int
) -> float:
    try:
        log_z = comparison.importance.log_z.mean
        return missed_far_out(mixture, density, log_z, stream(seed, "search", "tails"))
    except OutOfBudgetError:
        return 0.0


def _announce(say: Callable[[str], None], density: LogDensity) -> None:
    """How the density is called, and how long that will take if it is long."""
    gradients = "with" if density.batched.differentiable else "without"
    say(f"log density: {density.batched.form}, {gradients} gradients")
    pace = density.seconds_a_call
    if pace * TYPICAL_CALLS > LONG:
        say(
            f"warning: a call of the log density takes {pace:.2g} s; the sampler will need some "
            f"{TYPICAL_CALLS} and take {pace * TYPICAL_CALLS / 3600:.1f} h (--timeout and "
            "--max-calls stop it, and a run that is interrupted goes on from where it was)"
        )


def _describe(
    say: Callable[[str], None], what: str, sample: PosteriorSample, calls: int, seconds: float
) -> None:
    stopped = f", stopped by {sample.stopped_by}" if sample.stopped_by else ""
    say(
        f"{what} {len(sample.x)} draws from {sample.start} over {sample.temperatures} "
        f"temperatures: log Z {sample.log_z.mean:.4f} ± {sample.log_z.se:.4f}, {calls} calls, "
        f"{seconds:.1f} s{stopped}"
    )


def _efficiency(comparison: Comparison) -> str:
    found = comparison.importance
    return (
        f"of {found.draws} draws of the mixture {found.efficiency:.1%} are effective, "
        f"k̂ {found.khat:.2f}, log Z {found.log_z.mean:.4f} ± {found.log_z.se:.4f}"
    )
