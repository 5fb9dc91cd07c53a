"""Markov chains in the latent space of a flow, where a bent ridge is straight.

The posterior, pulled back through a flow fitted to its draws, is nearly a standard normal
where the draws are, so that long steps are accepted there; and it continues smoothly beyond
them (Hoffman et al. 2019, arXiv:1903.03704). Chains that walk away from the draws show what
these lack.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.experts.flows.bijection import BijectiveExpert
from amfvi.sampler.resolution import evaluate_where_possible

__all__ = ["LatentChains", "LatentState", "LatentWalk", "walk_in_latent_space"]

ADAPTATION_RATE = 1.5
"""Change of the logarithm of a step size per unit of acceptance above the target."""

DIVERGENCE = 1000.0
"""Loss of log density, in nats, from which a trajectory counts as diverged."""

LEAPFROG_STEPS = 8
"""Leapfrog steps in one Hamiltonian trajectory."""

MAX_MAGNITUDE = 1e100
"""Absolute value of a coordinate beyond which a chain does not go."""

SMALLEST_STEP = 0.3
"""Smallest step size of a chain, as a share of the largest of all chains."""

TARGET_ACCEPTANCE = 0.75
"""Acceptance to which the step size of Hamiltonian trajectories adapts."""

TARGET_ACCEPTANCE_OF_RANDOM_WALK = 0.3
"""Acceptance to which the step size adapts where there is no gradient."""


@dataclass(frozen=True, kw_only=True)
class LatentWalk:
    """States of the chains after their first quarter.

    Attributes:
        y: in unconstrained space, (k, d), time after time.
        log_p: their log densities, (k,), nats.
        last: the last state of each chain, (chains, d).

    Examples:
        >>> walk = LatentWalk(y=torch.zeros(2, 3), log_p=torch.zeros(2), last=torch.ones(1, 3))
        >>> walk.last.shape
        torch.Size([1, 3])
    """

    y: Tensor
    log_p: Tensor
    last: Tensor


@dataclass(frozen=True)
class LatentState:
    """Where chains are.

    Attributes:
        u, y: in latent and in unconstrained space, (chains, d).
        log_p, log_latent: log densities over unconstrained and over latent space, (chains,).
        gradient: of the latter, (chains, d).

    Examples:
        >>> list(LatentState.__dataclass_fields__)
        ['u', 'y', 'log_p', 'log_latent', 'gradient']
    """

    u: Tensor
    y: Tensor
    log_p: Tensor
    log_latent: Tensor
    gradient: Tensor

    def where(self, chosen: Tensor, other: LatentState) -> LatentState:
        column = chosen[:, None]
        return LatentState(
            torch.where(column, other.u, self.u),
            torch.where(column, other.y, self.y),
            torch.where(chosen, other.log_p, self.log_p),
            torch.where(chosen, other.log_latent, self.log_latent),
            torch.where(column, other.gradient, self.gradient),
        )


def walk_in_latent_space(
    density: UnconstrainedDensity,
    flow: BijectiveExpert,
    start: Tensor,
    n_evaluations: int,
    generator: torch.Generator,
) -> LatentWalk:
    """Walk from points (k, d) in unconstrained space by chains that leave the posterior
    invariant: Hamiltonian trajectories, or a random walk where there is no gradient.

    Args:
        flow: its first member is the map.
        n_evaluations: of the density, about.

    Raises:
        OutOfBudgetError: a limit was reached.

    Examples:
        >>> from amfvi.density.log_density import LogDensity
        >>> from amfvi.experts import MAF
        >>> generator = torch.Generator().manual_seed(0)
        >>> density = UnconstrainedDensity(LogDensity(lambda x: -0.5 * x.square().sum(1), 2))
        >>> draws = 0.5 * torch.randn(300, 2, generator=generator).double()
        >>> flow = MAF(layers=1, max_steps=25).fit(draws, folds=2)
        >>> walk = walk_in_latent_space(density, flow, draws[:50], 5000, generator)
        >>> 0.8 < float(walk.y.std()) < 1.2
        True
    """
    chains = LatentChains(density, flow)
    state = chains.evaluate(chains.to_latent(start))
    n_steps = LEAPFROG_STEPS if density.differentiable else 1
    visited = []
    for _ in range(max(1, round(n_evaluations / (n_steps * len(start))))):
        state, _ = chains.move(state, generator)
        visited.append(state)
    visited = visited[len(visited) // 4 :]
    return LatentWalk(
        y=torch.cat([state.y for state in visited]),
        log_p=torch.cat([state.log_p for state in visited]),
        last=state.y,
    )


class LatentChains:
    """The posterior pulled back through the first member of a flow, and its kernels.

    Args:
        density: over unconstrained space.
        flow: its first member is the map.

    Examples:
        See :func:`walk_in_latent_space`, which runs them:

        >>> LatentChains.move.__annotations__["generator"]
        'torch.Generator'
    """

    def __init__(self, density: UnconstrainedDensity, flow: BijectiveExpert) -> None:
        self.density = density
        self.flow = flow.of_first_member()
        self._step = 0.3 if density.differentiable else 2.38 / math.sqrt(density.dim)

    def move(
        self, state: LatentState, generator: torch.Generator, *, adapt: bool = True
    ) -> tuple[LatentState, float]:
        """Move every chain once: by a trajectory, or at random where there is no gradient.

        Also the mean acceptance probability, to which the step size adapts unless ``adapt``
        is False.
        """
        # Different step sizes for different chains, for regions of different width.
        shares = SMALLEST_STEP ** torch.rand(
            len(state.u), 1, generator=generator, dtype=torch.float64
        )
        if self.density.differentiable:
            kernel, target = self.move_by_trajectory, TARGET_ACCEPTANCE
        else:
            kernel, target = self.move_at_random, TARGET_ACCEPTANCE_OF_RANDOM_WALK
        state, acceptance = kernel(state, self._step * shares, generator)
        if adapt:
            self._step *= math.exp(ADAPTATION_RATE * (acceptance - target))
        return state, acceptance

    @torch.no_grad()
    def to_latent(self, y: Tensor) -> Tensor:
        return self.flow.forward(y.to(self.flow.device)[None])[0][0].cpu()

    def evaluate(self, u: Tensor) -> LatentState:
        u = u.detach().requires_grad_()
        with torch.set_grad_enabled(self.density.differentiable):
            mapped, log_dets = self.flow.inverse(u.to(self.flow.device)[None])
            y, log_det = mapped[0].cpu(), log_dets[0].cpu()
        inside = (y.detach().abs() < MAX_MAGNITUDE).all(dim=1) & log_det.detach().isfinite()
        at = torch.where(inside[:, None], y.detach(), 0.0)
        log_p, gradient = evaluate_where_possible(
            self.density, at, gradient=self.density.differentiable
        )
        log_p = torch.where(inside, log_p, -math.inf)
        if self.density.differentiable:
            product = (y * gradient).sum(dim=1) + log_det
            usable = torch.where(inside & (log_p > -math.inf), product, 0.0)
            (latent_gradient,) = torch.autograd.grad(usable.sum(), u)
            latent_gradient = torch.nan_to_num(latent_gradient, nan=0.0, posinf=0.0, neginf=0.0)
        else:
            latent_gradient = torch.zeros_like(u)
        return LatentState(u.detach(), at, log_p, log_p + log_det.detach(), latent_gradient)

    def move_by_trajectory(
        self, state: LatentState, sizes: Tensor, generator: torch.Generator
    ) -> tuple[LatentState, float]:
        momentum = torch.randn(state.u.shape, generator=generator, dtype=torch.float64)
        energy = state.log_latent - 0.5 * momentum.square().sum(dim=1)
        end = state
        momentum = momentum + 0.5 * sizes * state.gradient
        for number in range(LEAPFROG_STEPS):
            end = self.evaluate(end.u + sizes * momentum)
            kick = 0.5 if number == LEAPFROG_STEPS - 1 else 1.0
            momentum = momentum + kick * sizes * end.gradient
            diverged = ~(end.log_latent > state.log_latent - DIVERGENCE)
            end = end.where(diverged, state)  # where the density can be evaluated
            energy = torch.where(diverged, math.inf, energy)
        log_ratio = end.log_latent - 0.5 * momentum.square().sum(dim=1) - energy
        return self.accept(state, end, log_ratio, generator)

    def move_at_random(
        self, state: LatentState, sizes: Tensor, generator: torch.Generator
    ) -> tuple[LatentState, float]:
        noise = torch.randn(state.u.shape, generator=generator, dtype=torch.float64)
        proposed = self.evaluate(state.u + sizes * noise)
        return self.accept(state, proposed, proposed.log_latent - state.log_latent, generator)

    @staticmethod
    def accept(
        state: LatentState, proposed: LatentState, log_ratio: Tensor, generator: torch.Generator
    ) -> tuple[LatentState, float]:
        """The next state by Metropolis and Hastings, and the mean acceptance probability."""
        probability = torch.nan_to_num(log_ratio, nan=-math.inf).clamp(max=0).exp()
        uniform = torch.rand(len(log_ratio), generator=generator, dtype=torch.float64)
        return state.where(uniform < probability, proposed), float(probability.mean())
