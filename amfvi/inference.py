"""From a log density to a mixture with a verdict: sample, fit, compare, refine."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from amfvi.defence import defended, fitted_guard, replaced_by
from amfvi.diagnostics import Diagnostics
from amfvi.draws import Draws
from amfvi.errors import AmfviWarning, FitError
from amfvi.experts import ExpertConfig
from amfvi.importance import khat_threshold
from amfvi.log_density import Budget, LogDensity, OutOfBudgetError, UnconstrainedDensity
from amfvi.mixture import Mixture
from amfvi.randomness import stream
from amfvi.sampler.checkpoint import SamplerCheckpoint
from amfvi.sampler.replicas import PosteriorSample, sample_posterior
from amfvi.sampler.start import scattered, start_at, start_from_mixture
from amfvi.sampler.tempering import SamplerProgress
from amfvi.split import Split, split_draws
from amfvi.stage_one import StageOneProgress
from amfvi.two_stages import BETA, FOLDS, N_DRAWS, TEST_FRACTION, FitSummary, fit_split
from amfvi.verdict import Comparison, compared, judged, lacking

__all__ = ["Inference", "infer"]

COMPARED = 5_000  # draws of the mixture at which it is compared with the density
ENOUGH = 0.5  # effective share of them above which there is little to refine
BETTER = 1.1  # factor of that share that makes a further round worth it
MOST_ROUNDS = 2
NEARLY_EXACT = 0.9  # effective share above which a high k̂ asks for
MORE = 4  # times as many draws
DEFENCE = 0.05  # weight of a component for the tails, where one is needed
TYPICAL_CALLS = 20_000  # that a posterior of a few parameters needs
LONG = 60.0  # seconds of sampling that are worth a word beforehand
SEARCH_STARTS = 8
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
    the density at its own draws. While they are too unlike, the sampler starts again
    from the mixture, nearer than it was, and the experts are fitted to what it returns.

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
    started = time.monotonic()
    reserve = 0 if max_calls is None else int(RESERVED_SHARE * max_calls)
    sampling = Budget(
        None if max_calls is None else max_calls - reserve,
        None if time_limit is None else SAMPLING_SHARE * time_limit,
    )
    unconstrained = UnconstrainedDensity(density, budget=sampling, device=device)
    gradients = "with" if unconstrained.differentiable else "without"
    say(f"log density: {density.batched.form}, {gradients} gradients")
    wanted = round(n_draws / (1 - test_fraction))
    if (pace := density.seconds_a_call) * TYPICAL_CALLS > LONG:
        say(
            f"warning: a call of the log density takes {pace:.2g} s; the sampler will need some "
            f"{TYPICAL_CALLS} and take {pace * TYPICAL_CALLS / 3600:.1f} h (--timeout and "
            "--max-calls stop it, and a run that is interrupted goes on from where it was)"
        )
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
    sampled = time.monotonic()
    _describe(say, "sampled", sample, sampling.spent, sampled - started)

    def fitted(to: PosteriorSample) -> tuple[Mixture, FitSummary]:
        left = None
        if time_limit is not None:
            left = max(time_limit - (time.monotonic() - started), 1e-3)
        return fit_split(
            _split(density, to, test_fraction, seed, folds),
            configs,
            rule=rule,
            beta=beta,
            seed=seed,
            device=device,
            time_limit=left,
            progress=progress,
        )

    mixture, summary = fitted(sample)
    # The comparison is worth more than the time it takes.
    sampling.deadline = None
    sampling.max_calls = max_calls
    draws = COMPARED if max_calls is None else max(min(COMPARED, reserve // 2), 1)
    comparison = compared(mixture, unconstrained, draws, stream(seed, "compare", 0))
    say(_efficiency(comparison))
    refined: PosteriorSample | None = None
    for number in range(1, (MOST_ROUNDS if rounds is None else rounds) + 1):
        late = time_limit is not None and time.monotonic() - started > SAMPLING_SHARE * time_limit
        if comparison.importance.efficiency >= ENOUGH or late or sample.stopped_by:
            break
        try:
            again = sample_posterior(
                unconstrained,
                wanted,
                seed=seed,
                start=start_from_mixture(mixture, density.support),
                purpose=f"refinement {number}",
                progress=sampler_progress,
                checkpoint=checkpoint,
            )
            _describe(say, "refined", again, sampling.spent, time.monotonic() - started)
            if again.stopped_by:
                break
            candidate, its_summary = fitted(again)
            its_comparison = compared(
                candidate, unconstrained, draws, stream(seed, "compare", number)
            )
        except OutOfBudgetError:
            break
        say(_efficiency(its_comparison))
        gain = its_comparison.importance.efficiency / max(comparison.importance.efficiency, 1e-9)
        refined = again
        if gain > 1:
            mixture, summary, comparison = candidate, its_summary, its_comparison
        if gain < BETTER:
            break
    if not _reliable(comparison):
        mixture, comparison = _with_reliable_weights(
            mixture, summary.split, unconstrained, comparison, seed
        )
        say(_efficiency(comparison))
    diagnostics = judged(
        comparison,
        sample,
        summary.split,
        mixture,
        unconstrained,
        _missed(mixture, unconstrained, comparison, seed),
        refined=refined,
    )
    mixture.diagnostics = diagnostics
    mixture.log_density = density
    seconds = {"sampling": sampled - started, **summary.seconds}
    return Inference(mixture, summary, diagnostics, comparison, seconds)


def _with_reliable_weights(
    mixture: Mixture,
    split: Split,
    density: UnconstrainedDensity,
    comparison: Comparison,
    seed: int,
) -> tuple[Mixture, Comparison]:
    """First more draws, then a guard, where k̂ says that weights are unreliable.

    Where nearly all weights are equal, k̂ is drawn upwards by the few that are not, until
    there are enough of them. The weights of a mixture with a guard are at most those of
    the guard alone over its share, so their tail is no heavier than its.
    """
    found = comparison
    try:
        if comparison.importance.efficiency > NEARLY_EXACT:
            more = MORE * comparison.importance.draws
            found = compared(mixture, density, more, stream(seed, "compare", "more"))
        if _reliable(found):
            return mixture, found
        guard = fitted_guard(split, seed=seed, device=mixture.device)
        alone = replaced_by(mixture, guard)
        bound = compared(alone, density, comparison.importance.draws, stream(seed, "guard alone"))
        if not _reliable(bound):
            return mixture, found
        candidate = defended(mixture, guard, DEFENCE)
        draws = found.importance.draws
        tried = compared(
            candidate, density, draws, stream(seed, "defended"), bound=bound.importance.khat
        )
        return candidate, tried
    except OutOfBudgetError:
        return mixture, found  # and the verdict will say what that is worth


def _reliable(comparison: Comparison) -> bool:
    return comparison.importance.khat < khat_threshold(comparison.importance.draws)


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
    mixture: Mixture, density: UnconstrainedDensity, comparison: Comparison, seed: int
) -> list[str]:
    """What searches from fresh starts find that the mixture lacks; nothing without calls."""
    user = density.density
    try:
        if user.prior is not None or user.box is not None:
            starts = start_at(density, stream(seed, "search")).sample(
                SEARCH_STARTS, stream(seed, "search")
            )
        else:
            starts = scattered(density, stream(seed, "search"))[0][:SEARCH_STARTS]
        log_z = comparison.importance.log_z.mean
        return lacking(mixture, density, log_z, starts, stream(seed, "search", "mass"))
    except OutOfBudgetError:
        return []


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
