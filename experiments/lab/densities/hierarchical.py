"""Hierarchical models in centered form, and horseshoes: funnels with and without data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints

from experiments.lab.densities.known import (
    LOG_TWO_PI,
    KnownDensity,
    jax_function,
    torch_function,
)
from experiments.lab.densities.parts import Table, normals

__all__ = ["CenteredModel", "Horseshoe", "hierarchical_densities"]

QUADRATURE = 400
"""Gauss–Legendre nodes per dimension for the evidence of a horseshoe."""


@dataclass(frozen=True, kw_only=True)
class CenteredModel:
    """y_j ~ N(θ_j, e_j²), θ_j ~ N(μ, τ²), μ ~ N(0, m²), τ ~ half-Cauchy(t): x = (θ, μ, τ).

    Given τ all is Gaussian, so that the integral is one over τ alone, and draws of τ from its
    table are followed by exact ones of μ and θ.

    Attributes:
        effects: y, one per group.
        errors: e, one per group.
        mean_sd: m.
        scale: t.
    """

    effects: tuple[float, ...]
    errors: tuple[float, ...]
    mean_sd: float
    scale: float

    @property
    def dim(self) -> int:
        """d = groups + 2."""
        return len(self.effects) + 2

    def _given(self, tau: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log p(y | τ), and mean and variance of μ given τ and y; each (n,)."""
        y = torch.tensor(self.effects, dtype=torch.float64)
        variance = torch.tensor(self.errors, dtype=torch.float64).square() + tau[:, None] ** 2
        precision = (1 / variance).sum(dim=1) + self.mean_sd**-2
        mean = (y / variance).sum(dim=1) / precision
        square = (y.square() / variance).sum(dim=1) - precision * mean.square()
        log_det = variance.log().sum(dim=1) + (precision * self.mean_sd**2).log()
        return -0.5 * (square + log_det + len(y) * LOG_TWO_PI), mean, 1 / precision

    @cached_property
    def _log_tau(self) -> Table:
        """Density of log τ, with the half-Cauchy as in the formula."""

        def log_density(t: Tensor) -> Tensor:
            return self._given(t.exp())[0] - torch.log1p((t.exp() / self.scale) ** 2) + t

        return Table(log_density=log_density, low=-30.0, high=20.0)

    @property
    def log_z(self) -> float:
        """Log ∫ exp of the formula, nats; by quadrature over τ, to about 1e-9."""
        normalizers = math.log(self.mean_sd) + (len(self.effects) + 0.5) * LOG_TWO_PI
        return self._log_tau.log_z + normalizers + sum(math.log(e) for e in self.errors)

    def formula(self, x: Any, xp: ModuleType) -> Any:
        """Log density of points (…, d)."""
        theta, mu, tau = x[..., :-2], x[..., -2], x[..., -1]
        y, e = (xp.asarray(np.array(a)) for a in (self.effects, self.errors))
        likelihood = -0.5 * (((theta - y) / e) ** 2).sum(-1)
        group = -0.5 * (((theta - mu[..., None]) / tau[..., None]) ** 2).sum(-1)
        group = group - len(self.effects) * xp.log(tau)
        prior = -0.5 * (mu / self.mean_sd) ** 2 - xp.log1p((tau / self.scale) ** 2)
        return likelihood + group + prior

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw (n, d)."""
        tau = self._log_tau.sample(n, generator).exp()
        _, mean, variance = self._given(tau)
        mu = mean + variance.sqrt() * normals(n, 1, generator)[:, 0]
        y = torch.tensor(self.effects, dtype=torch.float64)
        error = torch.tensor(self.errors, dtype=torch.float64)
        share = tau[:, None] ** 2 / (tau[:, None] ** 2 + error**2)
        center = share * y + (1 - share) * mu[:, None]
        theta = center + share.sqrt() * error * normals(n, len(y), generator)
        return torch.cat([theta, mu[:, None], tau[:, None]], dim=1)

    def known(self, name: str, source: str) -> KnownDensity:
        """Make the density of the library."""
        return KnownDensity(
            name=name,
            family="hierarchical",
            dim=self.dim,
            log_density=torch_function(self.formula),
            log_z=self.log_z,
            sample=self.sample,
            source=source,
            constraints=[constraints.real] * (self.dim - 1) + [constraints.positive],
            moments=len(self.effects) > 4,
            light_tails=False,
            jax_log_density=jax_function(self.formula),
        )


@dataclass(frozen=True, kw_only=True)
class Horseshoe:
    """β_j ~ N(0, λ_j² τ²), λ_j and τ ~ half-Cauchy(1), centered: x = (τ, λ, β).

    Carvalho, Polson & Scott (2010), Biometrika 97, 465–480. With data, y_j ~ N(β_j, 1).

    Attributes:
        parameters: number of β.
        data: y, one per β, or none.
    """

    parameters: int
    data: tuple[float, ...] = ()

    @property
    def log_z(self) -> float:
        """Log ∫ exp of the formula, nats; with data by quadrature over τ and λ, to 1e-6."""
        p = self.parameters
        prior = 0.5 * p * LOG_TWO_PI + (1 + p) * math.log(math.pi / 2)
        if not self.data:
            return prior
        nodes, weights = np.polynomial.legendre.leggauss(QUADRATURE)
        scale = np.tan(0.25 * np.pi * (1 + nodes))  # of a uniform variable: half-Cauchy
        variance = 1 + np.square(scale[:, None] * scale)
        evidence = np.ones(QUADRATURE)
        for y in self.data:
            density = np.exp(-0.5 * y**2 / variance) / np.sqrt(variance)
            evidence *= density @ (0.5 * weights)
        return prior + math.log(float(evidence @ (0.5 * weights)))

    def formula(self, x: Any, xp: ModuleType) -> Any:
        """Log density of points (…, d)."""
        p = self.parameters
        tau, lam, beta = x[..., 0], x[..., 1 : 1 + p], x[..., 1 + p :]
        scale = lam * tau[..., None]
        each = -0.5 * (beta / scale) ** 2 - xp.log(scale) - xp.log1p(lam**2)
        total = each.sum(-1) - xp.log1p(tau**2)
        if self.data:
            total = total - 0.5 * ((beta - xp.asarray(np.array(self.data))) ** 2).sum(-1)
        return total

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw (n, d) exactly; with data by rejection of scales from the prior."""
        kept: list[Tensor] = []
        while sum(len(part) for part in kept) < n:
            kept.append(self._scales(n, generator))
        tau, lam = torch.cat(kept)[:n].split([1, self.parameters], dim=1)
        variance = (tau * lam).square()
        noise = normals(n, self.parameters, generator)
        if not self.data:
            return torch.cat([tau, lam, variance.sqrt() * noise], dim=1)
        share = variance / (1 + variance)
        beta = share * torch.tensor(self.data, dtype=torch.float64) + share.sqrt() * noise
        return torch.cat([tau, lam, beta], dim=1)

    def _scales(self, n: int, generator: torch.Generator) -> Tensor:
        """Draws of (τ, λ), at most ``n`` of them."""
        size = (n, 1 + self.parameters)
        uniform = torch.rand(size, generator=generator, dtype=torch.float64)
        scales = (0.5 * math.pi * uniform.clamp(min=1e-300)).tan()
        if not self.data:
            return scales
        y2 = torch.tensor(self.data, dtype=torch.float64).square()
        variance = 1 + (scales[:, :1] * scales[:, 1:]).square()
        best = y2.clamp(min=1.0)
        excess = y2 / best + best.log() - y2 / variance - variance.log()
        accepted = torch.rand(n, generator=generator, dtype=torch.float64).log()
        return scales[accepted < 0.5 * excess.sum(dim=1)]

    def known(self) -> KnownDensity:
        """Make the density of the library."""
        p, dim = self.parameters, 1 + 2 * self.parameters
        return KnownDensity(
            name=f"horseshoe{'-data' if self.data else ''}-d{dim}",
            family="hierarchical",
            dim=dim,
            log_density=torch_function(self.formula),
            log_z=self.log_z,
            sample=self.sample,
            source="Carvalho, Polson & Scott (2010)",
            constraints=[constraints.positive] * (1 + p) + [constraints.real] * p,
            moments=False,
            light_tails=False,
            jax_log_density=jax_function(self.formula),
        )


def hierarchical_densities() -> list[KnownDensity]:
    """List the family."""
    schools = CenteredModel(
        effects=(28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0),
        errors=(15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0),
        mean_sd=5.0, scale=5.0,
    )  # fmt: skip
    few = CenteredModel(effects=(-1.0, 0.5, 2.5), errors=(0.5, 1.0, 0.7), mean_sd=3.0, scale=1.0)
    return [
        few.known("centered-three-groups-d5", "a centered hierarchical model"),
        schools.known("centered-eight-schools-d10", "Rubin (1981), J. Educ. Stat. 6, 377–401"),
        *(Horseshoe(parameters=p).known() for p in (1, 2)),
        Horseshoe(parameters=1, data=(3.0,)).known(),
        Horseshoe(parameters=3, data=(0.3, -0.8, 5.0)).known(),
    ]
