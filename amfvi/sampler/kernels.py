"""Which moves a temperature is given, and whose turn it is."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from amfvi.errors import FitError
from amfvi.experts import GMM, Folds
from amfvi.sampler.moves import (
    Crossover,
    DifferentialEvolution,
    FromStart,
    Hamiltonian,
    Independence,
    Move,
    RandomWalk,
)
from amfvi.sampler.population import Bridge, Particles
from amfvi.weighting import effective_sample_size

__all__ = ["HIGH_DIM", "moves_for", "whose_turn"]

HIGH_DIM = 10  # above it, one leapfrog step no longer gets far, and chains mix slowly
TRAJECTORY = 1.5
WORTHWHILE = 0.05  # acceptance from which independence moves take every second turn
NEARLY_EXACT = 0.5  # acceptance above which they take three in four at the last β
HOPELESS = 0.02  # acceptance below which they are not tried again
POOL = 2000  # particles whose differences moves are made of
PROPOSAL = GMM(max_components=40, tolerance=1e-3, max_iterations=100)
PROPOSAL_IN_HIGH_DIM = GMM(max_components=4, patience=1, tolerance=1e-3, max_iterations=50)


def moves_for(
    bridge: Bridge,
    now: Particles,
    weight: Tensor,
    beta: float,
    steps: Mapping[str, float],
    acceptance: Mapping[str, float],
    generator: torch.Generator,
) -> dict[str, Move]:
    """The moves for one temperature, shaped by the reweighted particles.

    Args:
        weight: of the particles ``now`` (n,), towards ``beta``.
        steps, acceptance: of the moves at the temperature before, by name.
    """
    d = now.y.shape[1]
    moves: dict[str, Move] = {}
    if bridge.start.fitted:
        moves["independence"] = FromStart()
    elif acceptance.get("independence", 1.0) >= HOPELESS:
        proposal = _proposal(now.y, weight, generator)
        if proposal is not None:
            moves["independence"] = proposal
    spread = _factor(now.y, weight)
    rows = torch.multinomial(weight, min(len(now), POOL), True, generator=generator)
    if bridge.gradients:
        length = None if d <= HIGH_DIM else TRAJECTORY
        moves["hamiltonian"] = Hamiltonian(spread, length)
        local = _inverse_factor(bridge.gradient(now, beta), weight)
        if local is not None:
            moves["local hamiltonian"] = Hamiltonian(local, length)
    else:
        moves["differential evolution"] = DifferentialEvolution(now.y[rows])
        moves["random walk"] = RandomWalk(spread)
    if d > 1:
        moves["crossover"] = Crossover(now.y[rows])
    for name, move in moves.items():
        move.step = steps.get(name, move.step)
    return moves


def whose_turn(moves: dict[str, Move], number: int, *, final: bool) -> tuple[str, Move]:
    """Whose turn it is: independence every second time while it is accepted.

    Three times in four at the last temperature, if nearly every proposal is.
    """
    independent = moves.get("independence")
    others = [name for name in moves if name != "independence"]
    if independent is not None:
        tried = independent.acceptance
        every = 4 if final and tried > NEARLY_EXACT else 2
        own_turn = number % every < every - 1
        if number == 0 or (own_turn and tried >= WORTHWHILE):
            return "independence", independent
        number = number // every if tried >= WORTHWHILE else number
    name = others[number % len(others)]
    return name, moves[name]


def _proposal(y: Tensor, weight: Tensor, generator: torch.Generator) -> Independence | None:
    """A Gaussian mixture of the weighted particles; None where there are too few."""
    alive = weight > 0
    y, weight = y[alive], weight[alive]
    if effective_sample_size(weight) < 2 * (y.shape[1] + 1):
        return None
    fold = torch.where(torch.arange(len(y)) % 5 == 4, 0, -1)
    try:
        config = PROPOSAL if y.shape[1] <= HIGH_DIM else PROPOSAL_IN_HIGH_DIM
        expert, _ = config.fit(Folds(y, fold, weight), generator=generator)
    except FitError:
        return None
    return Independence(expert)


def _factor(y: Tensor, weight: Tensor) -> Tensor:
    """Cholesky factor of the weighted covariance, shrunk where particles are few."""
    share = (weight / weight.sum())[:, None]
    centred = y - (share * y).sum(dim=0)
    scale = (share * centred.square()).sum(dim=0).sqrt().clamp(min=1e-300)
    standard = centred / scale
    correlation = standard.T @ (share * standard)
    worth = effective_sample_size(weight)
    shrink = min(1.0, len(correlation) / (worth + 1))
    identity = torch.eye(len(correlation), dtype=torch.float64)
    correlation = (1 - shrink) * correlation + (shrink + 1e-9) * identity
    return scale[:, None] * torch.linalg.cholesky(correlation)


def _inverse_factor(gradient: Tensor, weight: Tensor) -> Tensor | None:
    """L with L Lᵀ the inverse of the mean of ∇ log π ∇ log πᵀ (Titsias 2023).

    Between modes it is the shape within a mode. None where gradients are useless.
    """
    share = (weight / weight.sum())[:, None]
    scale = (share * gradient.square()).sum(dim=0).sqrt()
    if not bool((scale > 1e-12).all() and scale.isfinite().all()):
        return None
    standard = gradient / scale
    d = len(scale)
    information = standard.T @ (share * standard) + 1e-6 * torch.eye(d, dtype=torch.float64)
    upper = torch.linalg.cholesky(information).inverse().T
    return upper / scale[:, None]
