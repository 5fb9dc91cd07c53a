"""Lorenz: a noisy coordinate of the Lorenz attractor half a time unit after another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from amfvi.randomness import generator_for
from amfvi.targets.base import normal
from amfvi.targets.conditional.base import ConditionalTarget, distinct_rows
from amfvi.targets.conditional.numerics import runge_kutta

__all__ = ["Lorenz"]

STEP = 0.01
"""Time step of the Runge–Kutta method."""

TRAJECTORIES = 10_000
"""Trajectories followed, from different points."""

BURN_IN = 1000
"""Steps until they are on the attractor and have forgotten where they began."""

FRAMES = 100
"""Pairs taken from each trajectory."""

EVERY = 25
"""Steps between the frames; y is two frames after c."""

NOISE = 0.5
"""Standard deviation of either observation."""

CELL = 0.05
"""Spacing of the grid to which pairs are assigned."""

EDGE = 22.0
"""Where the grid ends; the coordinate stays within 20 on the attractor."""

VARIANCE = NOISE**2 - CELL**2 / 6
"""Of the normals around the nodes; dividing a pair among them adds CELL²/6 on average."""

ROWS = 1000
"""Conditions, or points, evaluated at a time."""


def _derivative(state: Tensor) -> Tensor:
    """Right-hand side of the Lorenz equations, σ = 10, ρ = 28, β = 8/3; (3, n)."""
    x, y, z = state
    return torch.stack([10 * (y - x), x * (28 - z) - y, x * y - (8 / 3) * z])


@cache
def _pairs() -> Tensor:
    """Pairs x(t), x(t + 0.5) on the attractor, (2 · 10⁶, 2).

    The equations do not change when x and y change signs, so each pair stands for two.
    """
    state = 5 * normal(3, TRAJECTORIES, generator_for(63, "lorenz"))
    state[2] += 25
    state = runge_kutta(_derivative, state, STEP, BURN_IN)
    frames = [state[0]]
    for _ in range(FRAMES + 1):
        state = runge_kutta(_derivative, state, STEP, EVERY)
        frames.append(state[0])
    x = torch.stack(frames)
    pairs = torch.stack([x[:-2].flatten(), x[2:].flatten()], dim=1)
    return torch.cat([pairs, -pairs])


@cache
def _grid() -> tuple[Tensor, Tensor]:
    """Nodes (k,) of either axis, and the mass of the pairs at each pair of nodes, (k, k).

    A pair is divided among the four nodes around it in proportion to its closeness, which keeps
    its mean (Hockney and Eastwood 1988, cloud in cell).
    """
    pairs = _pairs()
    n = round(2 * EDGE / CELL) + 1
    place = (pairs + EDGE) / CELL
    low = place.floor().long()
    upper = place - low
    mass = torch.zeros(n * n, dtype=torch.float64)
    for right in (0, 1):
        for up in (0, 1):
            share = torch.where(torch.tensor([right, up]) == 1, upper, 1 - upper).prod(dim=1)
            mass.index_add_(0, (low[:, 0] + right) * n + low[:, 1] + up, share)
    return torch.linspace(-EDGE, EDGE, n, dtype=torch.float64), mass.view(n, n) / len(pairs)


@dataclass(frozen=True, repr=False)
class Lorenz(ConditionalTarget):
    """c = x(t) + N(0, 0.5²), y = x(t + 0.5) + N(0, 0.5²), x a coordinate of the attractor.

    The attractor is 2 · 10⁶ pairs of a fixed simulation, computed once a process. Draws are those
    pairs with noise, and their density is a sum of normals around them. Its sum over pairs is
    made one over a grid, with the variance of the normals less what the grid adds: 3e-5 nats off at
    most over 100 pairs. Simulations with other seeds, each an attractor of its own, differ in log p
    by 0.02 nats (standard deviation over draws; at most 0.12) and by 3e-4 in its mean.

    Examples:
        >>> Lorenz()
        <conditional target lorenz: 1 given 1, entropy 3.0340 nats>
    """

    name = "lorenz"
    dim = 1
    given_dim = 1
    entropy = 3.034  # 3.032 to 3.034 in three simulations
    entropy_source = "quadrature on a grid"
    source = "Lorenz 1963, Deterministic nonperiodic flow, equations 25–27"

    def _sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        pairs = _pairs()
        rows = torch.randint(len(pairs), (n,), generator=generator)
        drawn = pairs[rows] + NOISE * normal(n, 2, generator)
        return drawn[:, :1].clone(), drawn[:, 1:].clone()

    def _log_prob(self, y: Tensor, given: Tensor) -> Tensor:
        nodes, mass = (t.to(y.device) for t in _grid())
        rows, which = distinct_rows(given)
        log_p = [_log_sums(part, nodes, mass) for part in rows.split(ROWS)]
        log_weights = torch.cat(log_p)  # of the normals around each node of y
        parts = [
            torch.logsumexp(log_weights[row] - (points - nodes).square() / (2 * VARIANCE), dim=1)
            for points, row in zip(y.split(ROWS), which.split(ROWS), strict=True)
        ]
        return torch.cat(parts) - 0.5 * math.log(2 * math.pi * VARIANCE)


def _log_sums(c: Tensor, nodes: Tensor, mass: Tensor) -> Tensor:
    """Log probability of each node of y given c (m, 1), shape (m, k)."""
    log_kernel = -(c - nodes).square() / (2 * VARIANCE)
    occupied = mass.sum(dim=1) > 0
    log_kernel = log_kernel - log_kernel[:, occupied].max(dim=1, keepdim=True).values
    weights = torch.where(occupied, log_kernel, -torch.inf).exp() @ mass
    return (weights / weights.sum(dim=1, keepdim=True)).log()
