"""All that a verdict rests on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from amfvi.diagnostics.comparison import WeightedDraws
from amfvi.diagnostics.coverage import CoverageReport
from amfvi.diagnostics.departure import Departure
from amfvi.diagnostics.shift import WeightShift
from amfvi.diagnostics.thresholds import GOOD_EFFICIENCY, MAX_PLAIN_BOUND
from amfvi.sampler.runs import PosteriorSample
from amfvi.statistics import Estimate

__all__ = ["Evidence"]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that a verdict rests on.

    Attributes:
        weighted: draws of the mixture with their importance weights.
        shift: how far the weights move means and standard deviations.
        sample: of the first sampling, which started broad, or given draws; None if there is
            neither.
        refinement: of the last sampling that started from a mixture; None without one.
        coverage: what the mixture is known to lack.
        departure: of chains that started from the mixture's draws; None if none did.
        eubo: E_p[log p̃ − log q] at test draws of the sampler, nats; None if unknown.
        n_evaluations: evaluations of the density, in all.
        describe: writes out a point (d,) with the names of its parameters.
        caveat: what the density itself may get wrong, which no check sees; None if nothing
            is known.

    Examples:
        See :func:`~amfvi.diagnostics.verdict.diagnose`, which judges it:

        >>> "coverage" in Evidence.__dataclass_fields__
        True
    """

    weighted: WeightedDraws
    shift: WeightShift
    sample: PosteriorSample | None
    refinement: PosteriorSample | None
    coverage: CoverageReport
    departure: Departure | None
    eubo: Estimate | None
    n_evaluations: int
    describe: Callable[[Tensor], str]
    caveat: str | None = None

    @property
    def last_sample(self) -> PosteriorSample | None:
        """The sample that the mixture was last compared with."""
        return self.refinement or self.sample

    @property
    def needs_weights(self) -> bool:
        """Whether plain draws of the mixture are too far off, or may be."""
        few = self.weighted.importance.efficiency < GOOD_EFFICIENCY
        return few or self.shift.off > MAX_PLAIN_BOUND
