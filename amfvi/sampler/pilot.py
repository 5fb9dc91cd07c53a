"""Pilot chains: where the mass is when optimization only leads away from it.

The density of a hierarchical model rises without end into the neck of a funnel, where there is
next to no mass. Chains that start where optimizations do find the mass instead.
"""

from __future__ import annotations

import torch
from torch import Tensor

from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.experts import RBIG
from amfvi.experts.flows.gaussianization import Gaussianization
from amfvi.experts.whitening import Whitening
from amfvi.sampler.factors import shrunk_factor
from amfvi.sampler.latent_walk import LEAPFROG_STEPS, walk_in_latent_space
from amfvi.sampler.modes import Mode

__all__ = ["PILOT_EVALUATIONS", "are_stationary", "walk_pilot"]

N_CHAINS = 64
"""Hamiltonian chains."""

ROUNDS = 4
"""Times that the chains' spread is measured, which the trajectories of the next round follow."""

MOVES = 30
"""Trajectories of a chain in one round."""

PILOT_EVALUATIONS = ROUNDS * N_CHAINS * (MOVES * LEAPFROG_STEPS + 1)
"""Evaluations of the density that the chains take."""

MAX_RISE = 1.0
"""Nats by which the density of a mode may still rise within its own curvature."""


def are_stationary(density: UnconstrainedDensity, modes: list[Mode]) -> Tensor:
    """Whether a density with gradients no longer rises at its modes, (k,).

    By half of the squared Newton decrement, what a quadratic function would still rise.

    Raises:
        OutOfBudgetError: a limit was reached.

    Examples:
        >>> from amfvi.density.log_density import LogDensity
        >>> normal = UnconstrainedDensity(LogDensity(lambda x: -0.5 * x.square().sum(1), 1))
        >>> def at(x):
        ...     return Mode(point=torch.tensor([x]).double(), log_density=-0.5 * x * x,
        ...                 covariance=torch.eye(1).double())
        >>> are_stationary(normal, [at(0.0), at(2.0)])
        tensor([ True, False])
    """
    points = torch.stack([mode.point for mode in modes])
    gradients = density.log_prob_and_gradient(points)[1]
    covariances = torch.stack([mode.covariance for mode in modes])
    rise = 0.5 * torch.einsum("ki,kij,kj->k", gradients, covariances, gradients)
    return rise <= MAX_RISE


def walk_pilot(
    density: UnconstrainedDensity, starts: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Center (d,) and covariance (d, d) of where Hamiltonian chains come to.

    Args:
        starts: points of positive density, (n, d), the densest first; their spread is that of the
            first trajectories.

    Raises:
        OutOfBudgetError: a limit was reached.

    Examples:
        >>> from amfvi.density.log_density import LogDensity
        >>> density = UnconstrainedDensity(LogDensity(lambda x: -0.5 * (x - 3).square().sum(1), 1))
        >>> starts = torch.randn(100, 1, generator=torch.Generator().manual_seed(0)).double()
        >>> center, covariance = walk_pilot(density, starts, torch.Generator().manual_seed(0))
        >>> round(float(center)), 0.7 < float(covariance) < 1.4
        (3, True)
    """
    last, y = starts[:N_CHAINS], starts
    for _ in range(ROUNDS):
        factor = shrunk_factor(y, y.new_ones(len(y)))
        whitening = Whitening.from_factor(y.mean(dim=0)[None], factor[None])
        linear = Gaussianization(RBIG(), whitening, [])
        n = LEAPFROG_STEPS * MOVES * len(last)
        walk = walk_in_latent_space(density, linear, last, n, generator)
        last, y = walk.last, walk.y
    factor = shrunk_factor(y, y.new_ones(len(y)))
    return y.mean(dim=0), factor @ factor.T
