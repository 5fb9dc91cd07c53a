"""Particles: points with the densities at both ends of the tempered path."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

__all__ = ["Particles"]


@dataclass(frozen=True, kw_only=True)
class Particles:
    """Points in unconstrained space with their log densities and, if used, gradients.

    Attributes:
        y: shape (n, d).
        log_p: log density of the posterior, unnormalized, (n,), nats.
        log_q: log density of the reference distribution, (n,), nats.
        grad_p, grad_q: gradients of both, (n, d); empty (n, 0) where not used.

    Examples:
        >>> y, none = torch.tensor([[0.0], [1.0]]), torch.empty(2, 0)
        >>> particles = Particles(y=y, log_p=-y[:, 0], log_q=-y[:, 0], grad_p=none, grad_q=none)
        >>> particles.at(torch.tensor([1])).y
        tensor([[1.]])
    """

    y: Tensor
    log_p: Tensor
    log_q: Tensor
    grad_p: Tensor
    grad_q: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def at(self, rows: Tensor) -> Particles:
        """Select particles by row numbers or a mask."""
        return Particles(**{name: part[rows] for name, part in self._parts.items()})

    def where(self, chosen: Tensor, other: Particles) -> Particles:
        """Take ``other`` in the rows that are ``chosen`` (n,), these particles elsewhere."""
        return Particles(
            **{
                name: torch.where(
                    chosen if mine.ndim == 1 else chosen[:, None], other._parts[name], mine
                )
                for name, mine in self._parts.items()
            }
        )

    @staticmethod
    def concatenate(groups: list[Particles]) -> Particles:
        """Join groups of particles, one below the other."""
        names = [field.name for field in fields(Particles)]
        return Particles(
            **{name: torch.cat([getattr(group, name) for group in groups]) for name in names}
        )

    @property
    def _parts(self) -> dict[str, Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self)}
