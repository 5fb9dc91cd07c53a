"""Bounds: cubes, simplexes, increasing order, and Gaussians cut off where the density is zero."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from amfvi import ordered
from amfvi.constraints.constraints import default_names
from experiments.lab.densities.known import (
    LOG_TWO_PI,
    KnownDensity,
    jax_function,
    random_rotation,
    torch_function,
)
from experiments.lab.densities.parts import normals

__all__ = ["bounded_densities"]

CUTS = ((0.0, 1), (1.0, 2), (0.0, 5), (4.0, 3))
"""How far from the origin a standard Gaussian is cut off, and d."""


def _log_tail(cut: float) -> float:
    """Log of the mass of N(0, 1) above a cut."""
    return math.log(0.5 * math.erfc(cut / math.sqrt(2)))


def _cube(dim: int) -> KnownDensity:
    """Uniform on (0, 1)^d."""

    def formula(x: Any, xp: ModuleType) -> Any:
        return 0.0 * x.sum(-1)

    def sample(n: int, generator: torch.Generator) -> Tensor:
        uniform = torch.rand(n, dim, generator=generator, dtype=torch.float64)
        return uniform.clamp(min=2.0**-60)

    return KnownDensity(
        name=f"cube-d{dim}",
        family="bounded",
        dim=dim,
        log_density=torch_function(formula),
        log_z=0.0,
        sample=sample,
        source="uniform",
        constraints=[constraints.unit_interval] * dim,
        jax_log_density=jax_function(formula),
    )


def _dirichlet(name: str, concentration: tuple[float, ...]) -> KnownDensity:
    """On the simplex, with respect to all coordinates but the last."""
    alpha = torch.tensor(concentration, dtype=torch.float64)
    dim = len(concentration)

    def log_density(x: Tensor) -> Tensor:
        return ((alpha - 1) * x.log()).sum(dim=1)

    def sample(n: int, generator: torch.Generator) -> Tensor:
        gammas = torch._standard_gamma(alpha.expand(n, dim), generator=generator)
        return gammas / gammas.sum(dim=1, keepdim=True)

    return KnownDensity(
        name=f"{name}-d{dim}",
        family="bounded",
        dim=dim,
        log_density=log_density,
        log_z=float(torch.lgamma(alpha).sum() - torch.lgamma(alpha.sum())),
        sample=sample,
        source="on the simplex",
        constraints={default_names(dim): constraints.simplex},
    )


def _ordered(dim: int) -> KnownDensity:
    """Normals in increasing order: log Z = (d/2) log 2π − log d!."""

    def log_density(x: Tensor) -> Tensor:
        return -0.5 * x.square().sum(dim=1)

    return KnownDensity(
        name=f"ordered-d{dim}",
        family="bounded",
        dim=dim,
        log_density=log_density,
        log_z=0.5 * dim * LOG_TWO_PI - math.lgamma(dim + 1),
        sample=lambda n, generator: normals(n, dim, generator).sort(dim=1).values,
        source="standard normals in increasing order",
        constraints={default_names(dim): ordered},
    )


def _cut(cut: float, dim: int) -> KnownDensity:
    """A standard Gaussian where u·x > cut for a direction u, and −∞ elsewhere."""
    axes = random_rotation(dim, seed=2).abs() if dim == 1 else random_rotation(dim, seed=2)
    direction = axes[:, 0]

    def formula(x: Any, xp: ModuleType) -> Any:
        inside = x @ xp.asarray(direction.contiguous().numpy()) > cut
        return xp.where(inside, -0.5 * (x**2).sum(-1), -math.inf)

    def sample(n: int, generator: torch.Generator) -> Tensor:
        z = normals(n, dim, generator)
        tail = torch.rand(n, generator=generator, dtype=torch.float64).clamp(min=1e-300)
        quantile = tail.log() + _log_tail(cut)
        z[:, 0] = -torch.special.ndtri(quantile.exp())
        return z @ axes.T

    return KnownDensity(
        name=f"cut-at{cut:g}-d{dim}",
        family="bounded",
        dim=dim,
        log_density=torch_function(formula),
        log_z=0.5 * dim * LOG_TWO_PI + _log_tail(cut),
        sample=sample,
        source="a Gaussian on one side of a plane, −∞ on the other",
        jax_log_density=jax_function(formula),
    )


def _quadrant() -> KnownDensity:
    """A correlated Gaussian where both parameters are positive: log Z by Sheppard's formula."""
    correlation = -0.8
    share = 0.25 + math.asin(correlation) / (2 * math.pi)
    factor = torch.tensor(
        [[1.0, 0.0], [correlation, math.sqrt(1 - correlation**2)]], dtype=torch.float64
    )

    def formula(x: Any, xp: ModuleType) -> Any:
        a, b = x[..., 0], x[..., 1]
        square = (a**2 - 2 * correlation * a * b + b**2) / (1 - correlation**2)
        return xp.where((a > 0) & (b > 0), -0.5 * square, -math.inf)

    def sample(n: int, generator: torch.Generator) -> Tensor:
        kept: list[Tensor] = []
        while sum(len(part) for part in kept) < n:
            x = normals(int(n / share), 2, generator) @ factor.T
            kept.append(x[(x > 0).all(dim=1)])
        return torch.cat(kept)[:n]

    return KnownDensity(
        name="quadrant-d2",
        family="bounded",
        dim=2,
        log_density=torch_function(formula),
        log_z=LOG_TWO_PI + 0.5 * math.log(1 - correlation**2) + math.log(share),
        sample=sample,
        source="a correlated Gaussian on a quadrant, −∞ elsewhere",
        jax_log_density=jax_function(formula),
    )


def bounded_densities() -> list[KnownDensity]:
    """List the family."""
    return [
        _cube(2),
        _cube(5),
        _dirichlet("dirichlet-corners", (0.5, 0.5, 0.5)),
        _dirichlet("dirichlet", (2.0, 3.0, 4.0, 5.0, 1.0)),
        _ordered(4),
        *(_cut(cut, dim) for cut, dim in CUTS),
        _quadrant(),
    ]
