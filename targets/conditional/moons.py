"""Moons: a pair of crescents that the sum of two parameters, taken without sign, leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from amfvi.targets.base import normal, uniform
from amfvi.targets.conditional.numerics import gauss_legendre, log_interval
from amfvi.targets.conditional.simulators import SimulatorTarget

__all__ = ["Moons"]

OFFSET = 0.25
"""First coordinate of the center of the crescent's arc."""

RADIUS = 0.1
"""Mean radius of the crescent."""

WIDTH = 0.01
"""Standard deviation of the crescent's radius."""

NODES = 512
"""Nodes of the quadrature over the angle."""

CHUNK = 1000
"""Conditions evaluated at a time."""


@cache
def _angles() -> tuple[Tensor, Tensor]:
    """Angles and their log weights under U(−π/2, π/2)."""
    angles, weights = gauss_legendre(-math.pi / 2, math.pi / 2, NODES)
    return angles, (weights / math.pi).log()


def _rotated(y: Tensor) -> Tensor:
    """(y₁ + y₂)/√2 and (−y₁ + y₂)/√2, (n, 2)."""
    return torch.stack([y[:, 0] + y[:, 1], y[:, 1] - y[:, 0]], dim=1) / math.sqrt(2)


@dataclass(frozen=True, repr=False)
class Moons(SimulatorTarget):
    """y ~ U(−1, 1)², c = p + (−|y₁ + y₂|, −y₁ + y₂)/√2 in two dimensions.

    p = (r cos a + 0.25, r sin a) is a point of a crescent, a ~ U(−π/2, π/2), r ~ N(0.1, 0.01²);
    that r < 0 has probability 10⁻²³ and is left out. The density of p is that of (a, r) over r:
    sbibm's own ``_likelihood`` leaves out this Jacobian.

    Examples:
        >>> Moons()
        <conditional target moons: 2 given 2, entropy -3.7927 nats>
    """

    name = "moons"
    dim = 2
    given_dim = 2
    constraints = {"y1": (-1.0, 1.0), "y2": (-1.0, 1.0)}  # noqa: RUF012
    entropy = -3.792745
    entropy_source = "H(y) + H(c | y) − H(c), the last by quadrature on a grid"
    source = "sbibm two_moons; Greenberg et al. 2019; Lueckmann et al. 2021 (arXiv:2101.04653), T.8"

    def sample_prior(self, n: int, generator: torch.Generator) -> Tensor:
        return 2 * uniform(2 * n, generator).view(n, 2) - 1

    def log_prior(self, y: Tensor) -> Tensor:
        inside = (y.abs() <= 1).all(dim=1)
        return torch.where(inside, -math.log(4), -torch.inf).to(y)

    def simulate(self, y: Tensor, generator: torch.Generator) -> Tensor:
        a = math.pi * (uniform(len(y), generator) - 0.5)
        r = RADIUS + WIDTH * normal(len(y), 1, generator)[:, 0]
        p = torch.stack([r * a.cos() + OFFSET, r * a.sin()], dim=1)
        z = _rotated(y)
        return p + torch.stack([-z[:, 0].abs(), z[:, 1]], dim=1)

    def log_likelihood(self, given: Tensor, y: Tensor) -> Tensor:
        z = _rotated(y)
        u, v = given[:, 0] + z[:, 0].abs() - OFFSET, given[:, 1] - z[:, 1]
        r = torch.hypot(u, v)
        level = math.log(WIDTH * math.sqrt(2 * math.pi)) + math.log(math.pi)
        log_p = -0.5 * ((r - RADIUS) / WIDTH).square() - level - r.log()
        return torch.where(u > 0, log_p, -torch.inf)

    def log_evidence(self, given: Tensor) -> Tensor:
        """Log of half the crescent's probability of the points from which c is reached.

        With z the rotated y, the box is |z₁| + |z₂| ≤ √2 and p = c + (|z₁|, −z₂): either sign of
        z₁ gives ¼ P(p₁ ≥ c₁, p₁ − c₁ + |p₂ − c₂| ≤ √2). At each angle that is an interval of
        radii, whose probability is known; the integral over the angle is a quadrature, off by
        2e-6 nats on average over pairs, by 0.0015 at the worst of 3,000.
        """
        angles, log_weights = (t.to(given.device) for t in _angles())
        parts = [
            torch.logsumexp(log_weights + _log_radii(c, angles), dim=1) for c in given.split(CHUNK)
        ]
        return torch.cat(parts) - math.log(2)


def _log_radii(given: Tensor, angles: Tensor) -> Tensor:
    """Log probability of the radii at each angle (k,) from which each c (n, 2) is reached."""
    cos, sin = angles.cos(), angles.sin()
    right, up = given[:, :1] - OFFSET, given[:, 1:]
    low = (right / cos).clamp(min=0)
    high = torch.full_like(low, torch.inf)
    for slope, limit in (
        (cos + sin, math.sqrt(2) + right + up),
        (cos - sin, math.sqrt(2) + right - up),
    ):  # r · slope ≤ limit
        bound = limit / slope
        high = torch.where(slope > 0, torch.minimum(high, bound), high)
        low = torch.where(slope < 0, torch.maximum(low, bound), low)
    return log_interval((low - RADIUS) / WIDTH, (high - RADIUS) / WIDTH)
