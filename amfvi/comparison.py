"""A mixture compared with a density, at the mixture's own draws."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from amfvi.importance import Importance, khat_threshold
from amfvi.log_density import UnconstrainedDensity
from amfvi.mixture import Mixture

__all__ = ["Comparison", "compared"]


@dataclass(frozen=True)
class Comparison:
    """A mixture against the density it was fitted to, at its own draws."""

    importance: Importance
    log_weights: Tensor
    x: Tensor

    @property
    def reliable(self) -> bool:
        """Whether the tail of the weights is light enough for them to be used."""
        return self.importance.khat < khat_threshold(self.importance.draws)


def compared(
    mixture: Mixture,
    density: UnconstrainedDensity,
    draws: int,
    generator: torch.Generator,
    *,
    bound: float | None = None,
) -> Comparison:
    """Importance weights log p̃ − log q at draws of the mixture; that many calls.

    Args:
        bound: k̂ of weights that these are bounded by, if that is known.

    Raises:
        OutOfBudgetError: there are not as many calls left.
    """
    support = density.density.support
    x = mixture.sample((draws,), generator)
    inside = support.contains(x)
    log_p = torch.full((draws,), -math.inf, dtype=torch.float64)
    y, log_det = support.to_unconstrained(x[inside])
    log_p[inside] = density.log_prob(y) + log_det
    log_weights = log_p - mixture.log_prob(x)
    return Comparison(Importance.of(log_weights, bound=bound), log_weights, x)
