"""Targets of the studies beside those of the package, exact all the same.

Some are heavier-tailed or more complex than the canonical six, the others exist in any
number of dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.distributions import StudentT

from amfvi.targets import CANONICAL, ExactTarget, Funnel, get
from amfvi.targets.base import normal, uniform
from amfvi.targets.gaussian_mixture import GaussianMixtureTarget
from amfvi.targets.noisy_curves import NoisyCurvesTarget

__all__ = ["NAMES", "SCALABLE", "SHAPES", "exact_target"]


class StudentTBanana(ExactTarget):
    """x₁ = √2·t₁ and x₂ = x₁²/4 + t₂, both t of five degrees of freedom."""

    name = "student_t_banana"
    dim = 2
    source = "the canonical banana with Student-t in place of its normals"

    @property
    def view(self) -> tuple[tuple[float, float], ...]:
        return ((-8.0, 8.0), (-6.0, 16.0))

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
    means = tuple((3 * math.cos(k * math.pi / 4), 3 * math.sin(k * math.pi / 4)) for k in range(8))
    covariances = (((0.09, 0.0), (0.0, 0.09)),) * 8


class Checkerboard(ExactTarget):
    """Uniform on the eight dark squares of a 4 × 4 board of side 1, centered at the origin."""

    name = "checkerboard"
    dim = 2
    entropy_source = "uniform on an area of 8"
    source = "a common test of flows (Grathwohl et al. 2019)"

    @property
    def entropy(self) -> float:
        return math.log(8)

    @property
    def view(self) -> tuple[tuple[float, float], ...]:
        return ((-2.5, 2.5), (-2.5, 2.5))

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
    noise = 0.1
    nodes = 500  # at most .07 apart

    @property
    def view(self) -> tuple[tuple[float, float], ...]:
        return ((-3.6, 3.6), (-3.6, 3.6))

    @classmethod
    def curves(cls, t: Tensor) -> tuple[Tensor, Tensor]:
        angle = 4 * math.pi * t
        radius = 0.3 + 2.7 * t
        arm = radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
        return arm, -arm


@dataclass(frozen=True, kw_only=True, repr=False)
class ThreeGaussians(ExactTarget):
    """Three equally likely Gaussians, 4 apart, each an autoregression of its own correlation.

    Attributes:
        dim: number of parameters.
    """

    name = "three_gaussians"
    source = "stationary first-order autoregressions, correlations .9, 0 and −.7"
    dim: int

    @cached_property
    def _factors(self) -> Tensor:
        """Lower Cholesky factors, (3, d, d)."""
        position = torch.arange(self.dim, dtype=torch.float64)
        gaps = (position[:, None] - position).abs()
        return torch.stack(
            [torch.linalg.cholesky(torch.tensor(c).double() ** gaps) for c in (0.9, 0.0, -0.7)]
        )

    @cached_property
    def _means(self) -> Tensor:
        """(3, d)."""
        means = torch.zeros(3, self.dim, dtype=torch.float64)
        means[1, 0], means[2, 1] = 4.0, 4.0
        return means

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


@dataclass(frozen=True, kw_only=True, repr=False)
class LongBanana(ExactTarget):
    """Every second coordinate is bent by the one before it: N(0, 2), then N(x²/4, 1).

    An odd last coordinate is N(0, 1). A fixed random rotation mixes all coordinates.

    Attributes:
        dim: number of parameters.
    """

    name = "long_banana"
    source = "the canonical banana, in every pair of coordinates"
    dim: int

    @cached_property
    def _rotation(self) -> Tensor:
        """(d, d)."""
        generator = torch.Generator().manual_seed(self.dim)
        return torch.linalg.qr(normal(self.dim, self.dim, generator)).Q

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


def deep_funnel(dim: int) -> Funnel:
    """Make Neal's funnel with a standard deviation of 1, so that all of it can be drawn."""
    return Funnel(dim=dim, sd=1.0)


SHAPES: dict[str, type[ExactTarget]] = {
    shape.name: shape for shape in (StudentTBanana, EightGaussians, Checkerboard, Spiral)
}
"""Targets in two dimensions by name."""

SCALABLE: dict[str, Callable[[int], ExactTarget]] = {
    "three_gaussians": lambda dim: ThreeGaussians(dim=dim),
    "long_banana": lambda dim: LongBanana(dim=dim),
    "deep_funnel": deep_funnel,
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
