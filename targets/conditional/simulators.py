"""Conditional targets of a prior and a simulator: Bayes' rule with an exact evidence."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from amfvi.errors import InputError
from amfvi.targets.conditional.base import ConditionalTarget, distinct_rows

__all__ = ["SimulatorTarget"]


class SimulatorTarget(ConditionalTarget):
    """y from a prior, c from a simulator at y: p(y | c) = p(y) p(c | y) / p(c).

    Subclasses give the five parts below.

    Examples:
        >>> from amfvi.targets.conditional import get
        >>> target = get("linear10")
        >>> generator = torch.Generator().manual_seed(0)
        >>> y = target.sample_prior(3, generator)
        >>> c = target.simulate(y, generator)
        >>> parts = target.log_prior(y) + target.log_likelihood(c, y) - target.log_evidence(c)
        >>> bool(torch.equal(parts, target.log_prob(y, c)))
        True
    """

    @abstractmethod
    def sample_prior(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw y from the prior: float64, (n, d)."""

    @abstractmethod
    def log_prior(self, y: Tensor) -> Tensor:
        """Log p(y) in nats at ``y`` (n, d); (n,), −inf outside the support."""

    @abstractmethod
    def simulate(self, y: Tensor, generator: torch.Generator) -> Tensor:
        """Draw c given each row of ``y`` (n, d): float64, (n, given_dim)."""

    @abstractmethod
    def log_likelihood(self, given: Tensor, y: Tensor) -> Tensor:
        """Log p(c | y) in nats, row by row, of ``given`` (n, given_dim) and ``y`` (n, d)."""

    @abstractmethod
    def log_evidence(self, given: Tensor) -> Tensor:
        """Log p(c) in nats at ``given`` (n, given_dim); (n,)."""

    def _sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        y = self.sample_prior(n, generator)
        return self.simulate(y, generator), y

    def _log_prob(self, y: Tensor, given: Tensor) -> Tensor:
        rows, which = distinct_rows(given)
        evidence = self.log_evidence(rows)[which]
        if bool((evidence == -torch.inf).any()):
            row = int((evidence == -torch.inf).nonzero()[0])
            raise InputError(
                f"{self.name}: row {row} of given= is {[float(f'{v:.6g}') for v in given[row]]}, "
                "which no y leads to; give conditions that the simulator can produce"
            )
        return self.log_prior(y) + self.log_likelihood(given, y) - evidence
