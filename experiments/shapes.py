"""Heavier-tailed and more complex targets than the canonical six, exact all the same."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from amfvi.targets import CANONICAL, Target, get
from amfvi.targets.base import normal, uniform
from amfvi.targets.gaussian_mixture import GaussianMixtureTarget
from torch import Tensor
from torch.distributions import StudentT

__all__ = ["NAMES", "SHAPES", "shape"]


class StudentTBanana(Target):
    """x₁ = √2·t₁ and x₂ = x₁²/4 + t₂, both t of five degrees of freedom."""

    name = "student_t_banana"
    dim = 2
    source = "the canonical banana with Student-t in place of its normals"
    view = ((-8.0, 8.0), (-6.0, 16.0))

    def _log_prob(self, x: Tensor) -> Tensor:
        t = StudentT(torch.tensor(5.0, dtype=torch.float64, device=x.device))
        first = t.log_prob(x[:, 0] / math.sqrt(2)) - 0.5 * math.log(2)
        return first + t.log_prob(x[:, 1] - x[:, 0].square() / 4)

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        t = normal(2 * n, 1, generator) / (
            normal(2 * n, 5, generator).square().mean(dim=1, keepdim=True).sqrt()
        )
        first, second = t.view(2, n)
        x = math.sqrt(2) * first
        return torch.stack([x, x.square() / 4 + second], dim=1)


class EightGaussians(GaussianMixtureTarget):
    """Eight narrow Gaussians on a circle of radius 3, sd 0.3."""

    name = "eight_gaussians"
    dim = 2
    source = "a common test of flows (Grathwohl et al. 2019)"
    view = ((-4.5, 4.5), (-4.5, 4.5))
    means = tuple((3 * math.cos(k * math.pi / 4), 3 * math.sin(k * math.pi / 4)) for k in range(8))
    covariances = (((0.09, 0.0), (0.0, 0.09)),) * 8


class Checkerboard(Target):
    """Uniform on the eight dark squares of a 4 × 4 board of side 1, centred at the origin."""

    name = "checkerboard"
    dim = 2
    entropy = math.log(8)
    entropy_source = "uniform on an area of 8"
    source = "a common test of flows (Grathwohl et al. 2019)"
    view = ((-2.5, 2.5), (-2.5, 2.5))

    def _log_prob(self, x: Tensor) -> Tensor:
        column, row = (x + 2).floor().unbind(dim=1)
        on_board = ((x >= -2) & (x < 2)).all(dim=1)
        dark = (column + row) % 2 == 0
        return torch.where(on_board & dark, -math.log(8), -math.inf).double()

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        square = torch.randint(8, (n,), generator=generator)
        row = square // 2
        column = 2 * (square % 2) + row % 2
        within = uniform(2 * n, generator).view(n, 2)
        return torch.stack([column, row], dim=1) - 2 + within


NODES = 500  # of the quadrature along an arm; at most .07 apart, which the noise smooths over
TURNS = 2.0
SPIRAL_NOISE = 0.1
CHUNK = 5_000


@lru_cache(maxsize=1)
def _spiral() -> tuple[Tensor, Tensor]:
    """Nodes on both arms (2·NODES, 2), and their log weights (2·NODES,)."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    arm = _arm(torch.from_numpy((nodes + 1) / 2))
    log_weights = torch.from_numpy(np.log(weights / 4))  # half an arm, half of [−1, 1]
    return torch.cat([arm, -arm]), log_weights.repeat(2)


def _arm(share: Tensor) -> Tensor:
    angle = 2 * math.pi * TURNS * share
    radius = 0.3 + 2.7 * share
    return radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)


class Spiral(Target):
    """Two arms of two turns, evenly in the angle, plus N(0, 0.1² I)."""

    name = "spiral"
    dim = 2
    source = "a common test of flows (Grathwohl et al. 2019), by quadrature along the arms"
    view = ((-3.6, 3.6), (-3.6, 3.6))

    def _log_prob(self, x: Tensor) -> Tensor:
        centres, log_weights = (t.to(x.device) for t in _spiral())
        constant = math.log(2 * math.pi * SPIRAL_NOISE**2)
        parts = [
            torch.logsumexp(
                log_weights - torch.cdist(chunk, centres).square() / (2 * SPIRAL_NOISE**2), dim=1
            )
            for chunk in x.split(CHUNK)
        ]
        return torch.cat(parts) - constant

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        arm = _arm(uniform(n, generator))
        sign = torch.where(uniform(n, generator) < 0.5, 1.0, -1.0)[:, None]
        return sign * arm + SPIRAL_NOISE * normal(n, 2, generator)


SHAPES: dict[str, type[Target]] = {
    one.name: one for one in (StudentTBanana, EightGaussians, Checkerboard, Spiral)
}


def shape(name: str) -> Target:
    """A canonical target or one of these."""
    found = SHAPES[name]() if name in SHAPES else get(name)
    if not isinstance(found, Target):
        raise ValueError(f"{name} has no exact draws")
    return found


NAMES = (*CANONICAL, *SHAPES)
