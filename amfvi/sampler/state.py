"""The state of a run of the sampler between two values of β."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from amfvi.sampler.particles import Particles

__all__ = ["HISTORY_PER_TEMPERATURE", "SamplerState"]

HISTORY_PER_TEMPERATURE = 2_000
"""Particles that are kept from each β at most."""


@dataclass(kw_only=True)
class SamplerState:
    """All that changes from one β to the next.

    Attributes:
        particles: at ``beta``, chain after chain.
        n_chains: number of chains that the particles come from.
        beta: inverse temperature reached, in [0, 1].
        log_z: estimate of the log normalizing constant at ``beta``, nats.
        log_z_variance: its variance.
        betas: every β so far, from 0.
        steps: step size of each kernel, by name.
        acceptance: acceptance of each kernel at the last β, by name.
        history: some particles of every earlier β, with their log densities.

    Examples:
        >>> y, none = torch.zeros(4, 1), torch.empty(4, 0)
        >>> particles = Particles(y=y, log_p=y[:, 0], log_q=y[:, 0], grad_p=none, grad_q=none)
        >>> state = SamplerState.at_reference(particles)
        >>> state.remember()
        >>> [part.shape for part in state.joined_history()]
        [torch.Size([4, 1]), torch.Size([4])]
    """

    particles: Particles
    n_chains: int
    beta: float = 0.0
    log_z: float = 0.0
    log_z_variance: float = 0.0
    betas: list[float] = field(default_factory=lambda: [0.0])
    steps: dict[str, float] = field(default_factory=dict)
    acceptance: dict[str, float] = field(default_factory=dict)
    history: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    @classmethod
    def at_reference(cls, particles: Particles) -> SamplerState:
        """Begin at β = 0 with independent draws of the reference distribution."""
        return cls(particles=particles, n_chains=len(particles))

    def remember(self) -> None:
        """Add some of the particles to the history, evenly spaced over them."""
        particles = self.particles
        stride = math.ceil(len(particles) / HISTORY_PER_TEMPERATURE)
        rows = torch.arange(0, len(particles), stride)
        self.history.append((particles.y[rows], particles.log_p[rows]))

    def joined_history(self) -> tuple[Tensor, Tensor]:
        """All points of the history (k, d) with their log densities (k,)."""
        y, log_p = zip(*self.history, strict=True)
        return torch.cat(y), torch.cat(log_p)
