"""Gaussians: far from the origin, of extreme and unequal scales, correlated, large offsets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from experiments.lab.densities.known import (
    LOG_TWO_PI,
    KnownDensity,
    jax_function,
    random_rotation,
    torch_function,
)
from experiments.lab.densities.parts import normals

__all__ = ["Gaussian", "gaussian_densities"]


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """x = mean + factor u with u ~ N(0, I), and a constant added to the log density.

    Attributes:
        mean: (d,).
        factor: (d, d), of full rank.
        offset: nats.
    """

    mean: Tensor
    factor: Tensor
    offset: float = 0.0

    @cached_property
    def _inverse(self) -> Tensor:
        """Inverse of the factor, (d, d); rows first scaled, since scales may differ by 1e16."""
        scale = self.factor.norm(dim=1)
        return torch.linalg.inv(self.factor / scale[:, None]) / scale

    @property
    def log_z(self) -> float:
        """Log ∫ exp of the formula, nats."""
        scale = self.factor.norm(dim=1)
        log_det = torch.linalg.slogdet(self.factor / scale[:, None])[1] + scale.log().sum()
        return self.offset + float(log_det) + 0.5 * len(self.mean) * LOG_TWO_PI

    def formula(self, x: Any, xp: ModuleType) -> Any:
        """Log density of points (…, d)."""
        u = (x - xp.asarray(self.mean.numpy())) @ xp.asarray(self._inverse.T.contiguous().numpy())
        return self.offset - 0.5 * (u**2).sum(-1)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw (n, d) exactly."""
        return self.mean + normals(n, len(self.mean), generator) @ self.factor.T

    def known(self, name: str, source: str, family: str = "gaussian") -> KnownDensity:
        """Make the density of the library."""
        return KnownDensity(
            name=name,
            family=family,
            dim=len(self.mean),
            log_density=torch_function(self.formula),
            log_z=self.log_z,
            sample=self.sample,
            source=source,
            exact_moments=(self.mean, self.factor.norm(dim=1)),
            jax_log_density=jax_function(self.formula),
        )


def _make(
    name: str, source: str, mean: float, scales: list[float], offset: float = 0.0
) -> KnownDensity:
    """Independent parameters of one mean."""
    sd = torch.tensor(scales, dtype=torch.float64)
    location = torch.full_like(sd, mean)
    return Gaussian(mean=location, factor=sd.diag(), offset=offset).known(name, source)


def _correlated(dim: int, correlation: float) -> KnownDensity:
    """Correlations ρ^|i − j|."""
    place = torch.arange(dim, dtype=torch.float64)
    covariance = correlation ** (place[:, None] - place).abs()
    gaussian = Gaussian(
        mean=torch.zeros(dim, dtype=torch.float64), factor=torch.linalg.cholesky(covariance)
    )
    return gaussian.known(f"gaussian-correlated{correlation:g}-d{dim}", "correlations ρ^|i − j|")


def _ill_conditioned(dim: int, condition: float) -> KnownDensity:
    """Standard deviations from 1 down to the root of 1 / condition, turned at random."""
    sd = torch.logspace(0, -0.5 * math.log10(condition), dim, dtype=torch.float64)
    mean = torch.ones(dim, dtype=torch.float64)
    gaussian = Gaussian(mean=mean, factor=random_rotation(dim, seed=1) * sd)
    return gaussian.known(
        f"gaussian-condition{condition:g}-d{dim}", "condition number of the covariance, turned"
    )


def gaussian_densities() -> list[KnownDensity]:
    """List the family."""
    return [
        *(_make(f"gaussian-d{dim}", "mean 3, sd 2", 3.0, [2.0] * dim) for dim in (1, 20, 50)),
        _make("gaussian-scale1e-8-d2", "both scales tiny", 0.0, [1e-8, 1e-8]),
        _make("gaussian-scale1e8-d2", "both scales huge", 0.0, [1e8, 1e8]),
        _make("gaussian-scales1e-8to1e8-d2", "scales sixteen decades apart", 0.0, [1e8, 1e-8]),
        _make(
            "gaussian-scales1e-8to1e8-d5", "five scales over sixteen decades",
            0.0, [1e-8, 1e-4, 1.0, 1e4, 1e8],
        ),
        _make("gaussian-mean1e6-d3", "mean 1e6, sd 1", 1e6, [1.0] * 3),
        _make("gaussian-mean1e4-sd0.01-d2", "mean 1e4, sd .01", 1e4, [0.01] * 2),
        _correlated(2, 0.999),
        _correlated(10, 0.999),
        _ill_conditioned(5, 1e4),
        _ill_conditioned(20, 1e4),
        _make("gaussian-offset+1e6-d3", "a constant of 1e6 nats", 0.0, [1.0] * 3, 1e6),
        _make("gaussian-offset-1e6-d3", "a constant of −1e6 nats", 0.0, [1.0] * 3, -1e6),
    ]  # fmt: skip
