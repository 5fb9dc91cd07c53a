"""Particles with what is known about them, between a start and a posterior."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from amfvi.log_density import UnconstrainedDensity
from amfvi.sampler.start import Start

__all__ = ["Bridge", "Particles"]


@dataclass(frozen=True)
class Particles:
    """Points with log densities and, where gradients are used, those too.

    Attributes:
        y: shape (n, d).
        log_p, log_q: of the posterior, unnormalised, and of the start, (n,), nats.
        grad_p, grad_q: their gradients, (n, d); empty (n, 0) where not used.
    """

    y: Tensor
    log_p: Tensor
    log_q: Tensor
    grad_p: Tensor
    grad_q: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def at(self, rows: Tensor) -> Particles:
        return Particles(*(part[rows] for part in self._parts))

    def where(self, chosen: Tensor, other: Particles) -> Particles:
        """``other`` in the rows that are ``chosen`` (n,), these elsewhere."""
        return Particles(
            *(
                torch.where(chosen if mine.ndim == 1 else chosen[:, None], theirs, mine)
                for mine, theirs in zip(self._parts, other._parts, strict=True)
            )
        )

    @staticmethod
    def joined(parts: list[Particles]) -> Particles:
        return Particles(
            *(torch.cat(column) for column in zip(*(p._parts for p in parts), strict=True))
        )

    @property
    def _parts(self) -> list[Tensor]:
        return [getattr(self, field.name) for field in fields(self)]


@dataclass(frozen=True)
class Bridge:
    """The tempered path π_β ∝ start^(1−β) · posterior^β.

    Attributes:
        gradients: whether moves may use gradients of the posterior. A start without
            gradients is then steered by the posterior's alone: any drift leaves π_β
            invariant, as long as moves are accepted by π_β itself.
    """

    start: Start
    density: UnconstrainedDensity
    gradients: bool

    def evaluated(self, y: Tensor) -> Particles:
        """Particles at ``y`` (n, d); one call of the density each."""
        nothing = y.new_zeros(len(y), 0)
        if not self.gradients:
            return Particles(y, self.density.log_prob(y), self.start.log_prob(y), nothing, nothing)
        log_p, grad_p = self.density.log_prob_and_gradient(y)
        if self.start.differentiable:
            log_q, grad_q = self.start.log_prob_and_gradient(y)
        else:
            log_q, grad_q = self.start.log_prob(y), grad_p
        return Particles(y, log_p, log_q, grad_p, grad_q)

    @staticmethod
    def log_density(particles: Particles, beta: float) -> Tensor:
        """log π_β up to a constant, (n,); −∞ where start or posterior has none."""
        if beta == 1.0:  # free of where the start is zero
            return particles.log_p
        return (1 - beta) * particles.log_q + beta * particles.log_p

    @staticmethod
    def gradient(particles: Particles, beta: float) -> Tensor:
        """∇ log π_β, (n, d)."""
        return (1 - beta) * particles.grad_q + beta * particles.grad_p
