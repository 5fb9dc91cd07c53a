"""Sinus: the inverse of a wavy function, one to three values of y for one c."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from amfvi.targets.base import normal, uniform
from amfvi.targets.conditional.numerics import gauss_legendre
from amfvi.targets.conditional.simulators import SimulatorTarget

__all__ = ["Sinus"]

NOISE = 0.05
"""Standard deviation of c given y."""

NODES = 500
"""Nodes of the quadrature over y, closer than half of the least sd of y that the noise leaves."""

CHUNK = 2000
"""Conditions evaluated at a time."""


def _log_normal(x: Tensor, mean: Tensor) -> Tensor:
    return -0.5 * ((x - mean) / NOISE).square() - math.log(NOISE * math.sqrt(2 * math.pi))


def _curve(y: Tensor) -> Tensor:
    return y + 0.3 * (2 * math.pi * y).sin()


@cache
def _nodes() -> tuple[Tensor, Tensor]:
    """The curve at the nodes, and their log weights."""
    nodes, weights = gauss_legendre(0.0, 1.0, NODES)
    return _curve(nodes), weights.log()


@cache
def _entropy_of_c() -> float:
    c, weights = gauss_legendre(-0.6, 1.6, 1000)  # beyond both ends of the curve by 10 sd
    log_p = Sinus().log_evidence(c[:, None])
    return float(-(weights * log_p.exp() * log_p).sum())


@dataclass(frozen=True, repr=False)
class Sinus(SimulatorTarget):
    """y ~ U(0, 1), c = y + 0.3 sin 2πy + N(0, 0.05²).

    Examples:
        >>> Sinus()
        <conditional target sinus: 1 given 1, entropy -1.2263 nats>
    """

    name = "sinus"
    dim = 1
    given_dim = 1
    constraints = {"y": (0.0, 1.0)}  # noqa: RUF012
    entropy_source = "H(c | y) − H(c), the latter by quadrature"
    source = "Bishop 1994, Mixture density networks, section 5"

    @property
    def entropy(self) -> float:
        return 0.5 * math.log(2 * math.pi * math.e * NOISE**2) - _entropy_of_c()

    def sample_prior(self, n: int, generator: torch.Generator) -> Tensor:
        return uniform(n, generator)[:, None]

    def log_prior(self, y: Tensor) -> Tensor:
        inside = (y[:, 0] >= 0) & (y[:, 0] <= 1)
        return torch.where(inside, 0.0, -torch.inf).to(y)

    def simulate(self, y: Tensor, generator: torch.Generator) -> Tensor:
        return _curve(y) + NOISE * normal(len(y), 1, generator)

    def log_likelihood(self, given: Tensor, y: Tensor) -> Tensor:
        return _log_normal(given, _curve(y))[:, 0]

    def log_evidence(self, given: Tensor) -> Tensor:
        """Log ∫ p(c | y) dy in nats, by quadrature."""
        curve, log_weights = (t.to(given.device) for t in _nodes())
        parts = [
            torch.logsumexp(log_weights + _log_normal(c, curve), dim=1) for c in given.split(CHUNK)
        ]
        return torch.cat(parts)
