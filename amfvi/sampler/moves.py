"""Markov moves of many particles at once, each leaving π_β invariant.

A move adapts its step to the acceptance it sees, over all particles and from one
temperature to the next.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from amfvi.experts import Expert
from amfvi.sampler.population import Bridge, Particles

__all__ = [
    "Crossover",
    "DifferentialEvolution",
    "FromStart",
    "Hamiltonian",
    "Independence",
    "Move",
    "RandomWalk",
]

ADAPTATION = 1.5  # of the logarithm of the step, per unit of excess acceptance
MOST_LEAPFROGS = 8
DIVERGENCE = 1000.0  # nats that no accepted trajectory loses on its way


class Move(ABC):
    """A kernel with a step size of its own."""

    target_acceptance = 0.3

    def __init__(self, step: float) -> None:
        self.step = step
        self.acceptance = math.nan

    def __call__(
        self, bridge: Bridge, now: Particles, beta: float, generator: torch.Generator
    ) -> Particles:
        """The particles after one move each."""
        proposed, log_ratio = self.propose(bridge, now, beta, generator)
        log_ratio = log_ratio + bridge.log_density(proposed, beta) - bridge.log_density(now, beta)
        # NaN, from −∞ − −∞, is no improvement on where one is.
        probability = torch.nan_to_num(log_ratio, nan=-math.inf).clamp(max=0).exp()
        accepted = torch.rand(len(now), generator=generator, dtype=torch.float64) < probability
        self.acceptance = float(probability.mean())
        self.step *= math.exp(ADAPTATION * (self.acceptance - self.target_acceptance))
        return now.where(accepted, proposed)

    @abstractmethod
    def propose(
        self, bridge: Bridge, now: Particles, beta: float, generator: torch.Generator
    ) -> tuple[Particles, Tensor]:
        """Proposals, with log of the backward over the forward proposal density (n,)."""


class FromStart(Move):
    """From the start, wherever the particle is, once the start is near the posterior."""

    def __init__(self) -> None:
        super().__init__(1.0)

    def propose(
        self, bridge: Bridge, now: Particles, beta: float, generator: torch.Generator
    ) -> tuple[Particles, Tensor]:
        proposed = bridge.evaluated(bridge.start.sample(len(now), generator))
        return proposed, now.log_q - proposed.log_q


class Independence(Move):
    """From a fitted density, wherever the particle is: the move that changes modes."""

    def __init__(self, proposal: Expert) -> None:
        super().__init__(1.0)
        self.proposal = proposal

    def propose(
        self, bridge: Bridge, now: Particles, beta: float, generator: torch.Generator
    ) -> tuple[Particles, Tensor]:
        proposed = bridge.evaluated(self.proposal.sample(len(now), generator))
        log_g = self.proposal.log_prob(torch.cat([now.y, proposed.y]))
        return proposed, log_g[: len(now)] - log_g[len(now) :]


class RandomWalk(Move):
    """A Gaussian step of the shape ``factor`` (d, d)."""

    def __init__(self, factor: Tensor) -> None:
        super().__init__(2.38 / math.sqrt(len(factor)))
        self.factor = factor

    def propose(
        self, bridge: Bridge, now: Particles, beta: float, generator: torch.Generator
    ) -> tuple[Particles, Tensor]:
        noise = _normal(now.y, generator)
        return bridge.evaluated(now.y + self.step * noise @ self.factor.T), now.y.new_zeros(())


class DifferentialEvolution(Move):
    """A step along the difference of two others, which knows every mode's own shape.

    ter Braak & Vrugt 2008, with the others taken from a population that stands still.
    """

    def __init__(self, population: Tensor) -> None:
        super().__init__(2.38 / math.sqrt(2 * population.shape[1]))
        self.population = population

    def propose(
        self, bridge: Bridge, now: Particles, beta: float, generator: torch.Generator
    ) -> tuple[Particles, Tensor]:
        size = self.step * (0.5 + torch.rand(len(now), 1, generator=generator, dtype=torch.float64))
        away = size * _differences(self.population, len(now), generator)
        jitter = 1e-3 * self.step * self.population.std(dim=0) * _normal(now.y, generator)
        return bridge.evaluated(now.y + away + jitter), now.y.new_zeros(())


class Crossover(Move):
    """A few coordinates moved by the whole difference of two others (Vrugt et al. 2009).

    It changes the mode of one part of a posterior whose other parts have modes too, which
    no move of all coordinates can. Its number of coordinates adapts, not its length.
    """

    def __init__(self, population: Tensor) -> None:
        super().__init__(2.0)
        self.population = population

    def propose(
        self, bridge: Bridge, now: Particles, beta: float, generator: torch.Generator
    ) -> tuple[Particles, Tensor]:
        n, d = now.y.shape
        self.step = min(max(self.step, 1.0), float(d))
        order = torch.rand(n, d, generator=generator, dtype=torch.float64)
        chosen = order <= order.kthvalue(max(1, round(self.step)), dim=1, keepdim=True).values
        away = torch.where(chosen, _differences(self.population, n, generator), 0.0)
        away = away * (1 + 0.1 * torch.randn(n, 1, generator=generator, dtype=torch.float64))
        return bridge.evaluated(now.y + away), now.y.new_zeros(())


def _differences(population: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Of random pairs, (n, d); as likely one way as the other."""
    first, second = torch.randint(len(population), (2, n), generator=generator)
    return population[first] - population[second]


class Hamiltonian(Move):
    """Leapfrog steps with a mass of the inverse of ``factor`` · ``factor``ᵀ; MALA if one.

    Args:
        factor: lower triangular, (d, d).
        length: of a trajectory, in units in which ``factor`` is the identity.
    """

    def __init__(self, factor: Tensor, length: float | None) -> None:
        d = len(factor)
        super().__init__(1.4 * d ** (-1 / 6) if length is None else d ** (-1 / 4))
        self.factor = factor
        self.length = length
        self.target_acceptance = 0.6 if length is None else 0.75

    def propose(
        self, bridge: Bridge, now: Particles, beta: float, generator: torch.Generator
    ) -> tuple[Particles, Tensor]:
        # One random size for all particles: no trajectory can resonate for long.
        size = self.step * (0.8 + 0.4 * float(torch.rand(1, generator=generator)))
        steps = 1 if self.length is None else math.ceil(self.length / size)
        steps = max(1, min(steps, MOST_LEAPFROGS))
        momentum = _normal(now.y, generator)
        energy = momentum.square().sum(dim=1)
        after, before = now, bridge.log_density(now, beta)
        diverged = torch.zeros(len(now), dtype=torch.bool)
        momentum = momentum + 0.5 * size * bridge.gradient(now, beta) @ self.factor
        for number in range(steps):
            moved = after.y + size * momentum @ self.factor.T
            # Where a trajectory has left for nowhere, the density need not be asked again.
            after = bridge.evaluated(torch.where(diverged[:, None], now.y, moved))
            diverged |= ~(bridge.log_density(after, beta) > before - DIVERGENCE)
            last = number == steps - 1
            momentum = (
                momentum
                + (0.5 if last else 1.0) * size * bridge.gradient(after, beta) @ self.factor
            )
        log_ratio = 0.5 * (energy - momentum.square().sum(dim=1))
        return after, log_ratio.masked_fill(diverged, -math.inf)


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=torch.float64)
