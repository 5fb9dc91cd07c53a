"""Targets in any number of dimensions, exact in all of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from amfvi.targets.base import Target, normal
from torch import Tensor

__all__ = ["SCALABLE", "DeepFunnel", "LongBanana", "ThreeGaussians"]


class ThreeGaussians(Target):
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
        centred = (x - self._means[:, None]).mT
        scores = torch.linalg.solve_triangular(self._factors, centred, upper=False)
        log_det = self._factors.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        level = log_det + 0.5 * self.dim * math.log(2 * math.pi) + math.log(3)
        return torch.logsumexp(-0.5 * scores.square().sum(dim=1) - level[:, None], dim=0)

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        which = torch.randint(3, (n,), generator=generator)
        noise = normal(n, self.dim, generator)
        return self._means[which] + (self._factors[which] @ noise[:, :, None]).squeeze(2)


class LongBanana(Target):
    """Every second coordinate is bent by the one before it: N(0, 2), then N(x²/4, 1).

    An odd last coordinate is N(0, 1). The whole is turned by a fixed random rotation, so
    that no coordinate knows of the pairs.
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


class DeepFunnel(Target):
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


SCALABLE: dict[str, Callable[[int], Target]] = {
    one.name: one for one in (ThreeGaussians, LongBanana, DeepFunnel)
}
