"""Markov kernels that move all particles at once, each leaving π_β invariant.

A kernel adapts its step size to the acceptance it sees, over all particles and from one β
to the next.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from amfvi.experts import Expert
from amfvi.sampler.latent_walk import ADAPTATION_RATE, DIVERGENCE
from amfvi.sampler.particles import Particles
from amfvi.sampler.tempered_path import TemperedPath

__all__ = [
    "DifferentialEvolution",
    "Hamiltonian",
    "Independence",
    "IndependenceFromReference",
    "Kernel",
    "RandomWalk",
    "SubspaceDE",
]

MAX_LEAPFROG_STEPS = 8
"""Leapfrog steps in one Hamiltonian trajectory at most."""


class Kernel(ABC):
    """A Metropolis–Hastings kernel with a step size of its own.

    Subclasses implement :meth:`propose`.

    Attributes:
        target_acceptance: the mean acceptance to which the step size adapts.
        step: the step size.
        acceptance: mean acceptance probability of the last call; NaN before the first.

    Examples:
        >>> class Stay(Kernel):
        ...     def propose(self, path, particles, beta, generator):
        ...         return particles, torch.zeros(len(particles))
        >>> Stay(1.0).acceptance
        nan
    """

    target_acceptance = 0.3

    def __init__(self, step: float) -> None:
        self.step = step
        self.acceptance = math.nan

    def __call__(
        self, path: TemperedPath, particles: Particles, beta: float, generator: torch.Generator
    ) -> Particles:
        """Move every particle once."""
        proposed, log_ratio = self.propose(path, particles, beta, generator)
        log_ratio = log_ratio + path.log_density(proposed, beta) - path.log_density(particles, beta)
        # NaN, from −∞ − −∞, is a rejection.
        probability = torch.nan_to_num(log_ratio, nan=-math.inf).clamp(max=0).exp()
        accepted = torch.rand(len(particles), generator=generator, dtype=torch.float64)
        self.acceptance = float(probability.mean())
        self.step *= math.exp(ADAPTATION_RATE * (self.acceptance - self.target_acceptance))
        return particles.where(accepted < probability, proposed)

    @abstractmethod
    def propose(
        self, path: TemperedPath, particles: Particles, beta: float, generator: torch.Generator
    ) -> tuple[Particles, Tensor]:
        """Propose points, with log of the backward over the forward proposal density (n,)."""


class IndependenceFromReference(Kernel):
    """Independent proposals from the reference, for one that is near the posterior.

    Examples:
        >>> IndependenceFromReference().step
        1.0
    """

    def __init__(self) -> None:
        super().__init__(1.0)

    def propose(
        self, path: TemperedPath, particles: Particles, beta: float, generator: torch.Generator
    ) -> tuple[Particles, Tensor]:
        proposed = path.evaluate(path.reference.sample(len(particles), generator))
        return proposed, particles.log_q - proposed.log_q


class Independence(Kernel):
    """Independent proposals from a fitted density: the kernel that jumps between modes.

    Examples:
        >>> from amfvi.experts import GMM, Folds
        >>> generator = torch.Generator().manual_seed(0)
        >>> draws = torch.randn(50, 1, generator=generator, dtype=torch.float64)
        >>> folds = Folds.holdout(draws[:40], draws[40:])
        >>> proposal, _ = GMM(max_components=1).fit_folds(folds, generator=generator)
        >>> Independence(proposal).target_acceptance
        0.3
    """

    def __init__(self, proposal: Expert) -> None:
        super().__init__(1.0)
        self.proposal = proposal

    def propose(
        self, path: TemperedPath, particles: Particles, beta: float, generator: torch.Generator
    ) -> tuple[Particles, Tensor]:
        proposed = path.evaluate(self.proposal.sample(len(particles), generator))
        log_g = self.proposal.log_prob(torch.cat([particles.y, proposed.y]))
        return proposed, log_g[: len(particles)] - log_g[len(particles) :]


class RandomWalk(Kernel):
    """A Gaussian step of covariance ``factor`` · ``factor``ᵀ times the squared step size.

    Examples:
        >>> RandomWalk(torch.eye(2)).step  # 2.38 / √d (Gelman, Roberts & Gilks 1996)
        1.682...
    """

    def __init__(self, factor: Tensor) -> None:
        super().__init__(2.38 / math.sqrt(len(factor)))
        self.factor = factor

    def propose(
        self, path: TemperedPath, particles: Particles, beta: float, generator: torch.Generator
    ) -> tuple[Particles, Tensor]:
        noise = _standard_normal(particles.y, generator)
        moved = particles.y + self.step * noise @ self.factor.T
        return path.evaluate(moved), particles.y.new_zeros(())


class DifferentialEvolution(Kernel):
    """A step along the difference of two others, which has the shape of every mode.

    ter Braak & Vrugt (2008), with the others taken from a ``population`` (m, d) that
    stays as it is.

    Examples:
        >>> DifferentialEvolution(torch.zeros(10, 2)).step
        1.19
    """

    def __init__(self, population: Tensor) -> None:
        super().__init__(2.38 / math.sqrt(2 * population.shape[1]))
        self.population = population

    def propose(
        self, path: TemperedPath, particles: Particles, beta: float, generator: torch.Generator
    ) -> tuple[Particles, Tensor]:
        n = len(particles)
        size = self.step * (0.5 + torch.rand(n, 1, generator=generator, dtype=torch.float64))
        difference = size * _differences(self.population, n, generator)
        noise = _standard_normal(particles.y, generator)
        jitter = 1e-3 * self.step * self.population.std(dim=0) * noise
        return path.evaluate(particles.y + difference + jitter), particles.y.new_zeros(())


class SubspaceDE(Kernel):
    """A few coordinates moved by the whole difference of two others.

    The subspace sampling of DREAM (Vrugt et al. 2009) with the differences of ter Braak &
    Vrugt (2008). Where several parts of a posterior have modes, it changes the mode of one
    part, which no kernel that moves all coordinates can. The step size is the number of
    coordinates that move; their difference is not scaled.

    Examples:
        >>> SubspaceDE(torch.zeros(10, 5)).step
        2.0
    """

    def __init__(self, population: Tensor) -> None:
        super().__init__(2.0)
        self.population = population

    def propose(
        self, path: TemperedPath, particles: Particles, beta: float, generator: torch.Generator
    ) -> tuple[Particles, Tensor]:
        n, d = particles.y.shape
        self.step = min(max(self.step, 1.0), float(d))
        order = torch.rand(n, d, generator=generator, dtype=torch.float64)
        chosen = order <= order.kthvalue(max(1, round(self.step)), dim=1, keepdim=True).values
        difference = torch.where(chosen, _differences(self.population, n, generator), 0.0)
        difference = difference * (
            1 + 0.1 * torch.randn(n, 1, generator=generator, dtype=torch.float64)
        )
        return path.evaluate(particles.y + difference), particles.y.new_zeros(())


class Hamiltonian(Kernel):
    """Leapfrog steps with the inverse of ``factor`` · ``factor``ᵀ as mass (Neal 2011).

    Args:
        factor: lower triangular, (d, d).
        length: of a trajectory, in units in which ``factor`` is the identity; None for
            a single leapfrog step, which is MALA (Roberts & Tweedie 1996).

    Examples:
        >>> Hamiltonian(torch.eye(16), length=1.5).step
        0.5
    """

    def __init__(self, factor: Tensor, length: float | None) -> None:
        d = len(factor)
        super().__init__(1.4 * d ** (-1 / 6) if length is None else d ** (-1 / 4))
        self.factor = factor
        self.length = length
        self.target_acceptance = 0.6 if length is None else 0.75

    def propose(
        self, path: TemperedPath, particles: Particles, beta: float, generator: torch.Generator
    ) -> tuple[Particles, Tensor]:
        # One random size for all particles keeps trajectories from resonating.
        size = self.step * (
            0.8 + 0.4 * float(torch.rand(1, generator=generator, dtype=torch.float64))
        )
        n_steps = 1 if self.length is None else math.ceil(self.length / size)
        n_steps = max(1, min(n_steps, MAX_LEAPFROG_STEPS))
        momentum = _standard_normal(particles.y, generator)
        energy = momentum.square().sum(dim=1)
        end, start_log_density = particles, path.log_density(particles, beta)
        diverged = torch.zeros(len(particles), dtype=torch.bool)
        momentum = momentum + 0.5 * size * path.gradient(particles, beta) @ self.factor
        for number in range(n_steps):
            moved = end.y + size * momentum @ self.factor.T
            # Diverged trajectories stay where they began: the density can be evaluated there.
            end = path.evaluate(torch.where(diverged[:, None], particles.y, moved))
            diverged |= ~(path.log_density(end, beta) > start_log_density - DIVERGENCE)
            kick = 0.5 if number == n_steps - 1 else 1.0
            momentum = momentum + kick * size * path.gradient(end, beta) @ self.factor
        log_ratio = 0.5 * (energy - momentum.square().sum(dim=1))
        return end, log_ratio.masked_fill(diverged, -math.inf)


def _differences(population: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Differences (n, d) of random pairs, symmetric in sign."""
    first, second = torch.randint(len(population), (2, n), generator=generator)
    return population[first] - population[second]


def _standard_normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=torch.float64)
