"""One mixture beside the density it should equal, and what is known of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.diagnostics.comparison import WeightedDraws
from amfvi.diagnostics.coverage import CoverageReport
from amfvi.diagnostics.departure import Departure
from amfvi.diagnostics.own_spread import OwnSpread, measure_own_spread
from amfvi.diagnostics.shift import WeightShift, measure_shift
from amfvi.diagnostics.thresholds import (
    GOOD_EFFICIENCY,
    MAX_LOG_Z_SE,
    MAX_PLAIN_BOUND,
    MAX_PLAIN_SHIFT,
    MAX_SD_NOISE,
    MAX_SD_SE,
    MAX_VARIANCE_KHAT,
    MIN_EFFICIENCY,
    MIN_REWEIGHTED_EFFICIENCY,
    NOTABLE_OUTSIDE,
)
from amfvi.errors import InputError
from amfvi.mixture import Mixture
from amfvi.sampler.modes import Mode
from amfvi.sampler.reference import ReferenceDistribution, reference_from_density
from amfvi.sampler.resolution import evaluate_constrained
from amfvi.two_stage.fit import FitSummary

__all__ = ["Assessment", "Attempt"]

MANY_PARAMETERS = 50
"""Parameters from which a fit that weights can mend is not made again: another one to as many
draws would be no nearer."""

PRECISION_MARGIN = 0.8
"""Share of the largest standard error allowed that more draws are to bring it down to."""


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """A mixture beside the density that it should equal, and what is known of it.

    Attributes:
        mixture: however it came about.
        weighted: draws of the mixture with their importance weights.
        coverage: what the mixture is known to lack.
        departure: of chains that started from its draws; None if none did.
        own_spread: of the draws of the mixture; None if it was not compared with the density.

    Examples:
        >>> sorted(Assessment.__dataclass_fields__)
        ['coverage', 'departure', 'mixture', 'own_spread', 'weighted']
    """

    mixture: Mixture
    weighted: WeightedDraws
    coverage: CoverageReport = field(default_factory=CoverageReport)
    departure: Departure | None = None
    own_spread: OwnSpread | None = None

    @cached_property
    def shift(self) -> WeightShift:
        """How far the weights move means and standard deviations."""
        return measure_shift(self.weighted, self.own_spread or self.measure_spread())

    def measure_spread(self, density: UnconstrainedDensity | None = None) -> OwnSpread:
        """Standard deviations of the mixture's draws, beside what a density supports of them.

        Raises:
            OutOfBudgetError: too few evaluations are left.
        """
        log_excess = None
        if density is not None:
            log_z = self.weighted.importance.log_z.mean

            def log_excess(x: Tensor) -> Tensor:
                try:
                    with np.errstate(all="ignore"):  # so far out a user's squares may overflow
                        log_p = evaluate_constrained(density, x)
                except InputError:  # a density that fails there supports no draws
                    log_p = x.new_full((len(x),), -math.inf)
                return log_p - self.mixture.log_prob(x) - log_z

        return measure_own_spread(self.mixture, torch.Generator().manual_seed(0), log_excess)

    @property
    def efficiency(self) -> float:
        """Effective sample size per draw, from 0 to 1."""
        return self.weighted.importance.efficiency

    @property
    def undetected(self) -> list[Mode]:
        """The modes known to be lacking."""
        return [undetected.mode for undetected in self.coverage.modes]

    def as_reference(self, density: UnconstrainedDensity) -> ReferenceDistribution:
        """The mixture, and what it lacks, as where the sampler of a density starts."""
        mixture, transform = self.mixture, density.transform

        def log_prob(y: Tensor) -> Tensor:
            return mixture.log_prob_unconstrained(y, transform)

        def sample(n: int, generator: torch.Generator) -> Tensor:
            return transform.to_unconstrained(mixture.sample((n,), generator))[0]

        return reference_from_density(
            log_prob, sample, description="the fitted mixture", modes=self.undetected
        )

    @property
    def stays(self) -> bool:
        """Whether chains started from its draws, and did not leave it."""
        return self.departure is not None and not self.departure.leaves

    @property
    def lacks_outskirts(self) -> bool:
        """Whether chains far out find more than another fit to weighted draws would mend."""
        return self.departure is not None and self.departure.outside > NOTABLE_OUTSIDE

    @property
    def is_sound(self) -> bool:
        """Whether a mixture's own draws show that weights can mend what it lacks."""
        return self.efficiency >= GOOD_EFFICIENCY and self.weighted.reliable and not self.undetected

    @property
    def is_usable(self) -> bool:
        """Whether a mixture's own draws tell enough by their weights."""
        enough = self.efficiency >= MIN_EFFICIENCY
        return enough and self.weighted.reliable and not self.undetected

    @property
    def can_be_reweighted(self) -> bool:
        """Whether draws with their weights are enough for another fit."""
        enough = self.efficiency >= MIN_REWEIGHTED_EFFICIENCY
        return enough and self.weighted.reliable and not self.undetected

    @property
    def has_many_parameters(self) -> bool:
        """Whether what it lacks is mostly due to the number of draws that it is fitted to."""
        return self.mixture.dim >= MANY_PARAMETERS

    @property
    def pays_a_look(self) -> bool:
        """Whether its weighted draws tell enough for a closer look to pay."""
        return self.is_usable if self.has_many_parameters else self.can_be_reweighted

    @property
    def draws_needed(self) -> float:
        """Weighted draws after which log Z and standard deviations are known well enough.

        Closer where plain draws seem not to be right: is it noise, weights need not be used.
        """
        log_z_se = self.weighted.importance.log_z.se
        excess = max(log_z_se / MAX_LOG_Z_SE, self.shift.sd_se / MAX_SD_SE)
        if self.shift.off > MAX_PLAIN_BOUND:
            excess = max(excess, self.shift.sd_noise / MAX_SD_NOISE)
        return len(self.weighted.x) * (excess / PRECISION_MARGIN) ** 2 if excess > 1 else 0.0

    @property
    def may_be_noise(self) -> bool:
        """Whether weights seem to change moments only for want of draws."""
        is_lacking = self.draws_needed > len(self.weighted.x)
        return is_lacking and self.shift.largest <= MAX_PLAIN_SHIFT

    @property
    def tells_spread(self) -> bool:
        """Whether the weighted draws are enough to tell every standard deviation."""
        return self.shift.variance_khat < MAX_VARIANCE_KHAT and self.shift.sd_se <= MAX_SD_SE

    @property
    def moves_moments(self) -> bool:
        """Whether weights change what the plain draws of the mixture say."""
        moves = self.shift.largest > MAX_PLAIN_SHIFT or self.shift.bound > MAX_PLAIN_BOUND
        return moves or not self.tells_spread


@dataclass(frozen=True, kw_only=True)
class Attempt(Assessment):
    """One fit to draws of a posterior, and what is known of it.

    Attributes:
        summary: how it was fitted.

    Examples:
        See :class:`~amfvi.inference.session.Session`, whose ``fit`` makes attempts:

        >>> Attempt.__dataclass_fields__["summary"].type
        'FitSummary'
    """

    summary: FitSummary
