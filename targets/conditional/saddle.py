"""Saddle: the state after five time units of an equation with two saddle-node bifurcations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from amfvi.targets.base import normal, uniform
from amfvi.targets.conditional.base import ConditionalTarget, distinct_rows
from amfvi.targets.conditional.numerics import runge_kutta

__all__ = ["Saddle"]

TIME = 5.0
"""Time at which the state is observed."""

N_STEPS = 100
"""Runge–Kutta steps up to that time; the state is off by 0.0014 at most, between the
equilibria, where few states are."""

NOISE = 0.05
"""Standard deviation of the observation."""

RANGE = 0.8
"""The condition is uniform between −0.8 and 0.8."""

START_SD = 0.7
"""Standard deviation of the initial state."""

CELLS = 256
"""Intervals into which initial states are divided."""

FURTHEST = 5.5
"""Where the outermost of them end, in standard deviations; 4e-8 of the mass lies beyond."""

TABLE = 801
"""Conditions at which a division of the initial states is worked out."""

CHUNK = 200
"""Conditions evaluated at a time."""

POINTS = 2000
"""Points evaluated at a time."""


def _state(start: Tensor, c: Tensor) -> Tensor:
    """The state at ``TIME`` of dx/dt = c + x − x³ from ``start``."""
    return runge_kutta(
        lambda x: torch.addcmul(x, x * x, x, value=-1) + c, start, TIME / N_STEPS, N_STEPS
    )


@cache
def _edges() -> Tensor:
    """Edges of intervals of initial states, in standard deviations: (TABLE, CELLS + 1).

    As narrow in probability as in the state that follows, a half of each: near an unstable
    equilibrium a state far apart may follow from initial states close together.
    """
    quantiles = torch.linspace(0, 1, 2 * CELLS + 1, dtype=torch.float64)
    z = torch.special.ndtri(quantiles).clamp(-FURTHEST, FURTHEST)
    c = torch.linspace(-RANGE, RANGE, TABLE, dtype=torch.float64)[:, None]
    x = _state((START_SD * z).expand(TABLE, -1), c)
    x = (x - x[:, :1]) / (x[:, -1:] - x[:, :1])
    both = ((x + quantiles) / 2).cummax(dim=1).values
    wanted = torch.linspace(0, 1, CELLS + 1, dtype=torch.float64).expand(TABLE, -1).contiguous()
    right = torch.searchsorted(both, wanted).clamp(1, 2 * CELLS)
    below, above = both.gather(1, right - 1), both.gather(1, right)
    share = ((wanted - below) / (above - below).clamp(min=1e-300)).clamp(0, 1)
    return torch.lerp(z[right - 1], z[right], share)


def _components(c: Tensor) -> tuple[Tensor, Tensor]:
    """States (m, 2 · CELLS) and their log probabilities, a discrete p(x(5) | c) at c (m, 1).

    Within an interval of initial states the state is taken as uniform between those of the two
    ends, and integrated by two Gauss nodes.
    """
    edges = _edges().to(c.device)
    row = ((c[:, 0] + RANGE) * (TABLE - 1) / (2 * RANGE)).round().long().clamp(0, TABLE - 1)
    z = edges[row]
    mass = torch.special.ndtr(z)
    mass[:, 0], mass[:, -1] = 0.0, 1.0
    x = _state(START_SD * z, c)
    middle, half = (x[:, 1:] + x[:, :-1]) / 2, x.diff(dim=1) / 2
    states = torch.cat([middle - half / math.sqrt(3), middle + half / math.sqrt(3)], dim=1)
    return states, (mass.diff(dim=1) / 2).log().repeat(1, 2)


@dataclass(frozen=True, repr=False)
class Saddle(ConditionalTarget):
    """dx/dt = c + x − x³, c ~ U(−0.8, 0.8), x(0) ~ N(0, 0.7²), y = x(5) + N(0, 0.05²).

    There are two stable equilibria where |c| < 2/(3√3) ≈ 0.385. The density is a mixture of
    normals over 256 intervals of x(0), chosen for each c. Over 300 pairs it was off
    by 2e-6 nats on average and 0.0025 at most from one over 20,000 intervals.

    Examples:
        >>> Saddle()
        <conditional target saddle: 1 given 1, entropy -1.0105 nats>
    """

    name = "saddle"
    dim = 1
    given_dim = 1
    entropy = -1.010452
    entropy_source = "quadrature on a grid"
    source = "the normal form of the cusp; Strogatz 2015, section 3.6"

    def _sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        c = RANGE * (2 * uniform(n, generator)[:, None] - 1)
        x = _state(START_SD * normal(n, 1, generator), c)
        return c, x + NOISE * normal(n, 1, generator)

    def _log_prob(self, y: Tensor, given: Tensor) -> Tensor:
        rows, which = distinct_rows(given)
        order = which.argsort()
        log_p = torch.empty_like(y[:, 0])
        start = 0
        for first in range(0, len(rows), CHUNK):
            states, log_masses = _components(rows[first : first + CHUNK])
            stop = int(torch.searchsorted(which[order], first + CHUNK))
            for part in order[start:stop].split(POINTS):
                here = which[part] - first
                scores = (y[part] - states[here]) / NOISE
                log_p[part] = torch.logsumexp(log_masses[here] - 0.5 * scores.square(), dim=1)
            start = stop
        return log_p - math.log(NOISE * math.sqrt(2 * math.pi))
