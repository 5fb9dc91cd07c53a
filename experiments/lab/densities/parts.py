"""What densities are made of: mixtures, functions of the radius, and tables of one parameter."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.lab.densities.known import LOG_TWO_PI

__all__ = ["Mixture", "Radial", "Table", "choose", "log_sum_exp", "normals", "student"]

CELLS = 4_000
"""Cells of a table."""

NODES = 5
"""Gauss–Legendre nodes per cell."""

TINY = 1e-300
"""Added to a squared radius, so that its root has a gradient at the origin."""


def log_sum_exp(terms: Any, xp: ModuleType) -> Any:
    """Log of the sum of exponentials over the last axis, of torch or jax.numpy."""
    largest = xp.amax(terms, -1)
    return largest + xp.log(xp.exp(terms - largest[..., None]).sum(-1))


def normals(n: int, dim: int, generator: torch.Generator) -> Tensor:
    """Draw from N(0, I), float64, (n, d)."""
    return torch.randn(n, dim, generator=generator, dtype=torch.float64)


def choose(n: int, weights: Tensor, generator: torch.Generator) -> Tensor:
    """Draw indices (n,) with probabilities proportional to ``weights``."""
    return torch.multinomial(weights, n, replacement=True, generator=generator)


def student(n: int, dim: int, degrees: float, generator: torch.Generator) -> Tensor:
    """Draw independent Student-t variables, (n, d)."""
    half = torch.full((n, dim), degrees / 2, dtype=torch.float64)
    chi_square = 2 * torch._standard_gamma(half, generator=generator)
    return normals(n, dim, generator) / (chi_square / degrees).sqrt()


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """A mixture of Gaussians, without the factor (2π)^(−d/2).

    Attributes:
        weights: (K,), of any sum.
        means: (K, d).
        scales: standard deviations along the axes, (K, d).
        axes: orthonormal axes in columns, (K, d, d); None for those of the parameters.
    """

    weights: Tensor
    means: Tensor
    scales: Tensor
    axes: Tensor | None = None

    @property
    def dim(self) -> int:
        """Number of parameters d."""
        return self.means.shape[1]

    @property
    def log_z(self) -> float:
        """Log ∫ exp of the formula, nats."""
        return float(self.weights.sum().log()) + 0.5 * self.dim * LOG_TWO_PI

    def formula(self, x: Any, xp: ModuleType) -> Any:
        """Log density of points (…, d)."""
        z = x[..., None, :] - xp.asarray(self.means.numpy())
        if self.axes is not None:
            z = xp.einsum("...kd,kde->...ke", z, xp.asarray(self.axes.numpy()))
        z = z / xp.asarray(self.scales.numpy())
        level = xp.asarray((self.weights.log() - self.scales.log().sum(dim=1)).numpy())
        return log_sum_exp(level - 0.5 * (z**2).sum(-1), xp)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw (n, d) exactly."""
        which = choose(n, self.weights, generator)
        z = self.scales[which] * normals(n, self.dim, generator)
        if self.axes is not None:
            z = torch.einsum("nde,ne->nd", self.axes[which], z)
        return self.means[which] + z

    @property
    def exact_moments(self) -> tuple[Tensor, Tensor]:
        """Means and standard deviations (d,) of the parameters."""
        share = (self.weights / self.weights.sum())[:, None]
        mean = (share * self.means).sum(dim=0)
        within = self.scales.square()
        if self.axes is not None:
            within = torch.einsum("kde,ke->kd", self.axes.square(), within)
        return mean, (share * (within + (self.means - mean).square())).sum(dim=0).sqrt()


@dataclass(frozen=True, kw_only=True)
class Table:
    """A density of one parameter, tabulated in equal cells of an interval.

    Integrals are by Gauss–Legendre quadrature in every cell. Draws are uniform within a cell,
    so exact up to the change of the density over a cell.

    Attributes:
        log_density: from tensors (n,) to (n,), nats; −∞ is allowed.
        low, high: ends of the interval, which must hold the mass.
    """

    log_density: Callable[[Tensor], Tensor]
    low: float
    high: float

    @cached_property
    def _log_masses(self) -> Tensor:
        """Log masses of the cells, (CELLS,)."""
        nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(NODES))
        width = (self.high - self.low) / CELLS
        centers = self.low + width * (torch.arange(CELLS, dtype=torch.float64) + 0.5)
        points = centers[:, None] + 0.5 * width * nodes
        values = self.log_density(points.flatten()).view(CELLS, NODES)
        return torch.logsumexp(values + (0.5 * width * weights).log(), dim=1)

    @property
    def log_z(self) -> float:
        """Log of the integral, nats."""
        return float(torch.logsumexp(self._log_masses, dim=0))

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw (n,)."""
        ends = (self._log_masses - self.log_z).exp().cumsum(dim=0)
        cell = torch.searchsorted(ends / ends[-1], _uniform(n, generator)).clamp(max=CELLS - 1)
        width = (self.high - self.low) / CELLS
        return self.low + width * (cell + _uniform(n, generator))


def _uniform(n: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator, dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class Radial:
    """A density of the distance from the origin alone.

    Attributes:
        dim: number of parameters d.
        profile: from distances and their module to log densities.
        reach: a distance beyond which there is no mass worth the name.
    """

    dim: int
    profile: Callable[[Any, ModuleType], Any]
    reach: float

    @cached_property
    def radii(self) -> Table:
        """The density of the distance, up to the surface of the sphere."""
        return Table(
            log_density=lambda r: self.profile(r, torch) + (self.dim - 1) * r.log(),
            low=0.0,
            high=self.reach,
        )

    @property
    def log_z(self) -> float:
        """Log ∫ exp of the formula, nats."""
        half = 0.5 * self.dim
        return self.radii.log_z + math.log(2) + half * math.log(math.pi) - math.lgamma(half)

    def formula(self, x: Any, xp: ModuleType) -> Any:
        """Log density of points (…, d)."""
        return self.profile(xp.sqrt((x**2).sum(-1) + TINY), xp)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw (n, d)."""
        direction = normals(n, self.dim, generator)
        direction = direction / direction.norm(dim=1, keepdim=True)
        return self.radii.sample(n, generator)[:, None] * direction
