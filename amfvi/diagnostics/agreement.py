"""Whether runs of the sampler agree with each other and with a mixture."""

from __future__ import annotations

import math

from amfvi.diagnostics.comparison import WeightedDraws
from amfvi.diagnostics.thresholds import (
    LOG_Z_TOLERANCE,
    MAX_SAMPLER_ERROR,
    RUN_LOG_Z_TOLERANCE,
    RUN_MEAN_TOLERANCE,
)
from amfvi.sampler.runs import PosteriorSample

__all__ = ["log_z_of_runs", "log_z_tolerance", "means_of_runs", "runs_disagree"]


def runs_disagree(sample: PosteriorSample, weighted: WeightedDraws) -> bool:
    """Whether the sampler's runs disagree, or saw less mass than the mixture shows.

    They may have seen more: a flow extends beyond its draws, and its own draws are
    weighted exactly.

    Examples:
        See :func:`~amfvi.diagnostics.verdict.diagnose`:

        >>> runs_disagree.__annotations__["return"]
        'bool'
    """
    difference = weighted.importance.log_z.mean - sample.log_z.mean
    saw_less = weighted.reliable and difference > log_z_tolerance(weighted, sample)
    return saw_less or means_of_runs(sample) is not None or log_z_of_runs(sample) is not None


def means_of_runs(sample: PosteriorSample) -> str | None:
    """A reason if the means of two runs of the sampler are too far apart.

    Examples:
        See :func:`~amfvi.diagnostics.verdict.diagnose`:

        >>> means_of_runs.__annotations__["return"]
        'str | None'
    """
    if len(sample.log_z_of_runs) < 2:
        return None
    if not sample.max_mean_discrepancy_in_sd > RUN_MEAN_TOLERANCE:
        return None
    return (
        f"two runs of the sampler differ by {sample.max_mean_discrepancy_in_sd:.2f} standard "
        "deviations in the mean of a parameter"
    )


def log_z_of_runs(sample: PosteriorSample) -> str | None:
    """A reason if the log Z of two runs of the sampler are too far apart.

    Examples:
        See :func:`~amfvi.diagnostics.verdict.diagnose`:

        >>> log_z_of_runs.__annotations__["return"]
        'str | None'
    """
    if len(sample.log_z_of_runs) < 2:
        return None
    first, second = sample.log_z_of_runs
    difference = abs(first.mean - second.mean)
    if not difference > max(RUN_LOG_Z_TOLERANCE, 4 * math.hypot(first.se, second.se)):
        return None
    return f"two runs of the sampler differ by {difference:.2f} in log Z"


def log_z_tolerance(weighted: WeightedDraws, sample: PosteriorSample) -> float:
    """Nats that the log Z of a mixture and of a sampler may differ.

    Examples:
        See :func:`~amfvi.diagnostics.verdict.diagnose`:

        >>> log_z_tolerance.__annotations__["return"]
        'float'
    """
    # Noise does not buy tolerance without end.
    noise = 4 * math.hypot(weighted.importance.log_z.se, sample.log_z.se)
    return max(LOG_Z_TOLERANCE, min(noise, MAX_SAMPLER_ERROR))
