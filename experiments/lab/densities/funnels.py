"""Funnels: Neal's, mirrored ones, and normals of unknown precision."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from experiments.lab.densities.known import (
    LOG_TWO_PI,
    KnownDensity,
    jax_function,
    torch_function,
)
from experiments.lab.densities.parts import normals

__all__ = ["Funnel", "funnel_densities"]

FUNNELS = ((1, 2), (2, 2), (1, 5), (3, 5), (1, 10), (2, 10))
"""Standard deviation of v, and d."""

LARGEST_LOG_SD = 1.5
"""Standard deviation of v up to which some thousands of draws tell that of x."""


@dataclass(frozen=True, kw_only=True)
class Funnel:
    """v ~ N(0, s²) and x_j | v ~ N(0, e^(±v)), j = 2, …, d.

    Neal (2003), Ann. Statist. 31, section 8, with s = 3 and d = 10.

    Attributes:
        dim: number of parameters d.
        sd: s.
        sign: −1 for the mirrored funnel, whose neck is at large v.
    """

    dim: int
    sd: float
    sign: int = 1

    @property
    def log_z(self) -> float:
        """Log ∫ exp of the formula, nats."""
        return math.log(self.sd) + 0.5 * self.dim * LOG_TWO_PI

    @property
    def exact_moments(self) -> tuple[Tensor, Tensor]:
        """Means and standard deviations (d,) of the parameters."""
        sd = torch.full((self.dim,), math.exp(self.sd**2 / 4), dtype=torch.float64)
        sd[0] = self.sd
        return torch.zeros_like(sd), sd

    def formula(self, x: Any, xp: ModuleType) -> Any:
        """Log density of points (…, d)."""
        v = self.sign * x[..., 0]
        square = xp.exp(-v) * (x[..., 1:] ** 2).sum(-1)
        return -0.5 * ((v / self.sd) ** 2 + (self.dim - 1) * v + square)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw (n, d) exactly."""
        x = normals(n, self.dim, generator)
        x[:, 0] *= self.sd
        x[:, 1:] *= (0.5 * self.sign * x[:, :1]).exp()
        return x

    def known(self, family: str = "funnels", source: str = "Neal (2003)") -> KnownDensity:
        """Make the density of the library."""
        kind = "funnel" if self.sign == 1 else "funnel-mirrored"
        return KnownDensity(
            name=f"{kind}-sd{self.sd:g}-d{self.dim}",
            family=family,
            dim=self.dim,
            log_density=torch_function(self.formula),
            log_z=self.log_z,
            sample=self.sample,
            source=source,
            moments=self.sd <= LARGEST_LOG_SD,
            light_tails=self.sd <= LARGEST_LOG_SD,
            exact_moments=self.exact_moments,
            jax_log_density=jax_function(self.formula),
        )


def _precision_funnel() -> KnownDensity:
    """x₁, x₂ | τ ~ N(0, 1/τ) and τ ~ Gamma(2, 1): log Z = log 2π."""

    def formula(x: Any, xp: ModuleType) -> Any:
        tau = x[..., 0]
        return 2 * xp.log(tau) - tau * (1 + 0.5 * (x[..., 1:] ** 2).sum(-1))

    def sample(n: int, generator: torch.Generator) -> Tensor:
        shape = torch.full((n, 1), 2.0, dtype=torch.float64)
        tau = torch._standard_gamma(shape, generator=generator)
        return torch.cat([tau, normals(n, 2, generator) / tau.sqrt()], dim=1)

    return KnownDensity(
        name="funnel-precision-d3",
        family="funnels",
        dim=3,
        log_density=torch_function(formula),
        log_z=LOG_TWO_PI,
        sample=sample,
        source="normals of unknown precision; each x is Student-t of 4 degrees",
        constraints=[constraints.positive, constraints.real, constraints.real],
        moments=False,
        light_tails=False,
        jax_log_density=jax_function(formula),
    )


def funnel_densities() -> list[KnownDensity]:
    """List the family."""
    return [
        *(Funnel(sd=sd, dim=dim).known() for sd, dim in FUNNELS),
        Funnel(sd=2, dim=3, sign=-1).known(),
        Funnel(sd=1, dim=5, sign=-1).known(),
        _precision_funnel(),
    ]
