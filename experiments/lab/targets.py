"""Targets of the studies beside those of the package, exact all the same.

Some are heavier-tailed or more complex than the canonical six, the others exist in any
number of dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import StudentT

from amfvi.targets import CANONICAL, ExactTarget, get
from amfvi.targets.base import normal, uniform
from amfvi.targets.gaussian_mixture import GaussianMixtureTarget
from amfvi.targets.noisy_curves import NoisyCurvesTarget

__all__ = ["NAMES", "SCALABLE", "SHAPES", "exact_target"]



class StudentTBanana(ExactTarget):
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


class Checkerboard(ExactTarget):
    """Uniform on the eight dark squares of a 4 × 4 board of side 1, centered at the origin."""

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


class ThreeGaussians(ExactTarget):
    """Three equally likely Gaussians, 4 apart, each an autoregression of its own correlation."""

    name = "three_gaussians"
    source = "stationary first-order autoregressions, correlations .9, 0 and −.7"

    def __init__(self, dim: int) -> None:
        self.dim = dim  # type: ignore[misc]
        position = torch.arange(dim, dtype=torch.float64)
        gaps = (position[:, None] - position).abs()
        self._factors = torch.stack(
            [torch.linalg.cholesky(torch.tensor(c).double() ** gaps) for c in (0.9, 0.0, -0.7)]
        )
        self._means = torch.zeros(3, dim, dtype=torch.float64)
        self._means[1, 0], self._means[2, 1] = 4.0, 4.0

    def _log_prob(self, x: Tensor) -> Tensor:
        centered = (x - self._means[:, None]).mT
        scores = torch.linalg.solve_triangular(self._factors, centered, upper=False)
        log_det = self._factors.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        level = log_det + 0.5 * self.dim * math.log(2 * math.pi) + math.log(3)
        return torch.logsumexp(-0.5 * scores.square().sum(dim=1) - level[:, None], dim=0)

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        which = torch.randint(3, (n,), generator=generator)
        noise = normal(n, self.dim, generator)
        return self._means[which] + (self._factors[which] @ noise[:, :, None]).squeeze(2)


class LongBanana(ExactTarget):
    """Every second coordinate is bent by the one before it: N(0, 2), then N(x²/4, 1).

    An odd last coordinate is N(0, 1). A fixed random rotation mixes all coordinates.
    """

    name = "long_banana"
    source = "the canonical banana, in every pair of coordinates"

    def __init__(self, dim: int) -> None:
        self.dim = dim  # type: ignore[misc]
        generator = torch.Generator().manual_seed(dim)
        self._rotation = torch.linalg.qr(normal(dim, dim, generator)).Q

    def _log_prob(self, x: Tensor) -> Tensor:
        z = x @ self._rotation
        pairs = 2 * (self.dim // 2)
        straight, bent, rest = z[:, 0:pairs:2], z[:, 1:pairs:2], z[:, pairs:]
        square = straight.square() / 2 + (bent - straight.square() / 4).square()
        level = 0.5 * (self.dim * math.log(2 * math.pi) + (self.dim // 2) * math.log(2))
        return -0.5 * (square.sum(dim=1) + rest.square().sum(dim=1)) - level

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        z = normal(n, self.dim, generator)
        pairs = 2 * (self.dim // 2)
        z[:, 0:pairs:2] *= math.sqrt(2)
        z[:, 1:pairs:2] += z[:, 0:pairs:2].square() / 4
        return z @ self._rotation.T


class DeepFunnel(ExactTarget):
    """Neal's funnel, milder with d so that all of it can be drawn: v ~ N(0, 1), xᵢ ~ N(0, eᵛ)."""

    name = "deep_funnel"
    source = "Neal 2003, Annals of Statistics 31:705, with a standard deviation of 1 for v"

    def __init__(self, dim: int) -> None:
        self.dim = dim  # type: ignore[misc]

    def _log_prob(self, x: Tensor) -> Tensor:
        v, rest = x[:, 0], x[:, 1:]
        scaled = rest.square().sum(dim=1) * torch.exp(-v)
        level = self.dim * math.log(2 * math.pi)
        return -0.5 * (v.square() + scaled + (self.dim - 1) * v + level)

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        noise = normal(n, self.dim, generator)
        v = noise[:, :1]
        return torch.cat([v, noise[:, 1:] * torch.exp(v / 2)], dim=1)

SHAPES: dict[str, type[ExactTarget]] = {
    shape.name: shape for shape in (StudentTBanana, EightGaussians, Checkerboard, Spiral)
}
"""Targets in two dimensions by name."""

SCALABLE: dict[str, Callable[[int], ExactTarget]] = {
    target.name: target for target in (ThreeGaussians, LongBanana, DeepFunnel)
}
"""Targets in any number of dimensions, by name."""

NAMES = (*CANONICAL, *SHAPES)
"""Names of the targets in two dimensions."""


def exact_target(name: str) -> ExactTarget:
    """Get a target of the package or of :data:`SHAPES` that has exact draws.

    Raises:
        TypeError: the target has no exact draws.
    """
    target = SHAPES[name]() if name in SHAPES else get(name)
    if not isinstance(target, ExactTarget):
        raise TypeError(f"{name}: expected a target with exact draws, found {target!r}")
    return target
