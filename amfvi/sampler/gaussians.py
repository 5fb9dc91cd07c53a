"""A mixture of Gaussians around the modes of a density, wider than its curvature says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from amfvi.sampler.factors import factorize_covariance
from amfvi.sampler.modes import Mode

__all__ = ["GaussianMixture", "gaussians_at"]

ORIGIN_SCALES = (1.0, 3.0, 10.0)
"""Standard deviations of the Gaussians around the origin of unconstrained space."""

MODE_SCALES = (1.0, 1.7, 3.0)
"""Factors by which the Gaussian of a mode's curvature is widened."""

TAIL_SCALES = (10.0, 40.0)
"""Factors by which the Gaussian around all modes is widened to reach heavy tails."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GaussianMixture:
    """A normalized mixture of Gaussians.

    Attributes:
        weights: shape (k,), summing to one.
        means: shape (k, d).
        factors: Cholesky factors of the covariances, (k, d, d).
        n_modes: number of modes of the density that it was made from.
        has_pilot: whether pilot chains showed where the mass is.

    Examples:
        >>> standard = gaussians_at([], dim=2)
        >>> standard.sample(3, torch.Generator().manual_seed(0)).shape
        torch.Size([3, 2])
        >>> standard.log_prob(torch.zeros(1, 2).double())
        tensor([-2.8222], dtype=torch.float64)
    """

    weights: Tensor
    means: Tensor
    factors: Tensor
    n_modes: int
    has_pilot: bool = False

    def log_prob(self, y: Tensor) -> Tensor:
        """Log density in nats at points (n, d); (n,)."""
        k, d = self.means.shape
        stacked, shift, level = self._whitening
        scores = (y @ stacked).unflatten(1, (k, d)) - shift
        return torch.logsumexp(level - 0.5 * scores.square().sum(dim=2), dim=1)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw ``n`` points (n, d), float64."""
        which = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.means.shape[1], generator=generator, dtype=torch.float64)
        return self.means[which] + (self.factors[which] @ noise[:, :, None]).squeeze(2)

    @cached_property
    def _whitening(self) -> tuple[Tensor, Tensor, Tensor]:
        """Inverse factors side by side (d, k·d), whitened means (k, d), log peaks (k,)."""
        k, d = self.means.shape
        inverse = torch.linalg.inv(self.factors)
        shift = (inverse @ self.means[:, :, None]).squeeze(2)
        log_det = self.factors.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        level = self.weights.log() - log_det - 0.5 * d * math.log(2 * math.pi)
        return inverse.reshape(k * d, d).T.contiguous(), shift, level


def gaussians_at(
    modes: Sequence[Mode],
    dim: int,
    *,
    each: bool = True,
    broad: bool = True,
    far: Sequence[Tensor] = (),
) -> GaussianMixture:
    """Center widened Gaussians at modes.

    Args:
        modes: each with the covariance of its curvature.
        dim: of unconstrained space.
        each: whether there are Gaussians at each single mode.
        broad: whether there are also Gaussians around all modes together, and around the
            origin, for densities whose mode is not where their mass is, such as a funnel's.
        far: covariances of further Gaussians around the heaviest mode, the first one.

    Examples:
        >>> mode = Mode(
        ...     point=torch.ones(1).double(), log_density=0.0, covariance=torch.eye(1).double()
        ... )
        >>> gaussians_at([mode], 1, broad=False).factors.flatten()
        tensor([1.0000, 1.7000, 3.0000], dtype=torch.float64)
    """
    weights: list[float] = []
    means: list[Tensor] = []
    covariances: list[Tensor] = []

    def add(weight: float, mean: Tensor, covariance: Tensor, scales: tuple[float, ...]) -> None:
        weights.extend([weight / len(scales)] * len(scales))
        means.extend([mean] * len(scales))
        covariances.extend(scale**2 * covariance for scale in scales)

    if broad:
        add(0.25, torch.zeros(dim).double(), torch.eye(dim).double(), ORIGIN_SCALES)
    if each:
        for mode in modes:
            add(0.5 / len(modes), mode.point, mode.covariance, MODE_SCALES)
    if modes and broad:
        points = torch.stack([mode.point for mode in modes])
        center = points.mean(dim=0)
        between = (points - center).T @ (points - center) / len(points)
        total = between + torch.stack([mode.covariance for mode in modes]).mean(dim=0)
        add(0.15, center, total, MODE_SCALES)
        add(0.1, center, total, TAIL_SCALES)
    for covariance in far:
        add(0.2 / len(far), modes[0].point, covariance, (1.0,))
    total_weight = sum(weights)
    return GaussianMixture(
        weights=torch.tensor([w / total_weight for w in weights], dtype=torch.float64),
        means=torch.stack(means) if means else torch.empty(0, dim),
        factors=(
            factorize_covariance(torch.stack(covariances))
            if covariances
            else torch.empty(0, dim, dim)
        ),
        n_modes=len(modes),
    )
