"""How familiar a condition is: its density among the conditions that a fit has seen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from amfvi.experts import GMM, Expert
from amfvi.experts.folds import Folds
from amfvi.randomness import generator_for

__all__ = ["Familiarity"]

MAX_REFERENCES = 5_000
"""Training conditions whose densities are kept."""


@dataclass(frozen=True, kw_only=True)
class Familiarity:
    """A Gaussian mixture of the conditions, with their densities as the reference.

    Attributes:
        density: of the conditions.
        reference: log densities of training conditions in nats, each by a member that did not
            train on it, ascending, (m,).

    Examples:
        >>> c = torch.randn(500, 1, generator=torch.Generator().manual_seed(0)).double()
        >>> familiarity = Familiarity.fit(c, torch.arange(500) % 5, seed=0)
        >>> p = familiarity.p_value(torch.tensor([[0.0], [6.0]]).double())
        >>> bool(p[0] > 0.5), bool(p[1] < 0.01)
        (True, True)
    """

    density: Expert
    reference: Tensor

    @classmethod
    def fit(cls, given: Tensor, fold: Tensor, *, seed: int) -> Familiarity:
        """Fit to conditions (n, g) with their folds (n,)."""
        folds = Folds(given, fold)
        density, _ = GMM().fit_folds(folds, generator=generator_for(seed, "conditions"))
        reference = density.log_prob_out_of_fold(folds).sort().values
        return cls(
            density=density, reference=reference[:: max(1, len(reference) // MAX_REFERENCES)]
        )

    def p_value(self, given: Tensor) -> Tensor:
        """Share of the reference that is no denser than each condition (m, g); (m,)."""
        rank = torch.searchsorted(self.reference, self.density.log_prob(given), right=True)
        return (rank + 1).double() / (len(self.reference) + 1)
