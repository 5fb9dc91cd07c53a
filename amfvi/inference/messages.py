"""Lines of the log of an inference."""

from __future__ import annotations

from amfvi.density.log_density import LogDensity
from amfvi.diagnostics.comparison import WeightedDraws
from amfvi.diagnostics.departure import Departure
from amfvi.reporting import Reporter
from amfvi.sampler.runs import PosteriorSample

__all__ = [
    "TYPICAL_EVALUATIONS",
    "announce",
    "describe_departure",
    "describe_sample",
    "describe_weights",
]

TYPICAL_EVALUATIONS = 20_000
"""Evaluations that a posterior of a few parameters takes."""

LONG_SAMPLING = 60.0
"""Seconds of sampling above which the user is warned beforehand."""


def announce(reporter: Reporter, log_density: LogDensity) -> None:
    """Report how the density is called, and how long sampling will take if it is long.

    Examples:
        >>> class Printer(Reporter):
        ...     def log(self, line):
        ...         print(line)
        >>> announce(Printer(), LogDensity(lambda x: -(x**2).sum(dim=1), dim=1))
        log density: torch, in batches, with gradients
    """
    gradients = "with" if log_density.vectorized.differentiable else "without"
    reporter.log(f"log density: {log_density.vectorized.calling_convention}, {gradients} gradients")
    pace, n_workers = log_density.seconds_per_call, log_density.n_workers
    seconds = pace * TYPICAL_EVALUATIONS / n_workers
    if seconds > LONG_SAMPLING:
        shared = f" with {n_workers} workers" if n_workers > 1 else ""
        advice = "" if n_workers > 1 else ", pool= shares it among processes"
        reporter.warn(
            f"an evaluation of the log density takes {pace:.2g} s: the first sampling, of about "
            f"{TYPICAL_EVALUATIONS}, will take {_duration(seconds)}{shared}, and a whole fit up to "
            f"ten times that (timeout= and max_evaluations= limit it{advice})"
        )


def _duration(seconds: float) -> str:
    """A time in minutes, or in hours from one and a half."""
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def describe_sample(verb: str, sample: PosteriorSample, n_evaluations: int, seconds: float) -> str:
    """Summarize a sample in one line of a log.

    Examples:
        >>> import torch
        >>> from amfvi.density.unconstrained import UnconstrainedDensity
        >>> from amfvi.sampler.runs import sample_posterior
        >>> normal = LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), dim=1)
        >>> sample = sample_posterior(UnconstrainedDensity(normal), 200, seed=0)
        >>> describe_sample("sampled", sample, 5000, 0.5)
        'sampled ... draws from 1 mode of the density in ... log Z 0.9..., 0.5 s'
    """
    steps = f"{sample.n_temperatures} step{'s' * (sample.n_temperatures != 1)} of tempering"
    stopped = f", stopped by {sample.stopped_by}" if sample.stopped_by else ""
    return (
        f"{verb} {len(sample.x)} draws from {sample.reference} in {steps}: "
        f"log Z {sample.log_z.mean:.4f} ± {sample.log_z.se:.4f}, {n_evaluations} "
        f"evaluations, {seconds:.1f} s{stopped}"
    )


def describe_weights(weighted: WeightedDraws) -> str:
    """Summarize importance weights in one line of a log.

    Examples:
        >>> import torch
        >>> from amfvi.diagnostics.importance import ImportanceEstimate
        >>> estimate = ImportanceEstimate.from_log_weights(torch.zeros(100))
        >>> draws = WeightedDraws(x=torch.zeros(100, 1), log_weights=torch.zeros(100),
        ...                       importance=estimate)
        >>> describe_weights(draws)
        'of 100 draws of the mixture 100.0% are effective, k̂ -inf, log Z -0.0000 ± 0.0000'
    """
    importance = weighted.importance
    return (
        f"of {importance.n_draws} draws of the mixture {importance.efficiency:.1%} are effective, "
        f"k̂ {importance.khat:.2f}, log Z {importance.log_z.mean:.4f} ± {importance.log_z.se:.4f}"
    )


def describe_departure(departure: Departure) -> str:
    """Summarize what chains from a mixture's draws found, in one line of a log.

    Examples:
        >>> describe_departure(Departure(excess=0.012, excess_se=0.02, lacking=0.0))
        'chains from its draws find log p - log q 0.012 ± 0.020 above expectation'
    """
    line = (
        f"chains from its draws find log p - log q {departure.excess:.3f} ± "
        f"{departure.excess_se:.3f} above expectation"
    )
    line += f", {departure.lacking:.1%} beyond the mixture" if departure.lacking else ""
    return line + (f", {departure.outside:.0%} of a variance" if departure.outside else "")
