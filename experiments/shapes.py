"""Heavier-tailed and more complex targets than the canonical six, exact all the same."""

from __future__ import annotations

import math

import torch
from amfvi.targets import CANONICAL, Target, get
from amfvi.targets.base import normal, uniform
from amfvi.targets.gaussian_mixture import GaussianMixtureTarget
from amfvi.targets.noisy_curves import NoisyCurvesTarget
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


class Spiral(NoisyCurvesTarget):
    """Two arms of two turns, evenly in the angle, plus N(0, 0.1² I)."""

    name = "spiral"
    source = "a common test of flows (Grathwohl et al. 2019), by quadrature along the arms"
    view = ((-3.6, 3.6), (-3.6, 3.6))
    noise = 0.1
    nodes = 500  # at most .07 apart

    @classmethod
    def curves(cls, t: Tensor) -> tuple[Tensor, Tensor]:
        angle = 4 * math.pi * t
        radius = 0.3 + 2.7 * t
        arm = radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
        return arm, -arm


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
