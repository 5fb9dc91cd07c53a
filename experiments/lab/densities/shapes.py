"""Shapes: cliffs, plateaus, rings, shells, moons, a spiral, a star, ripples, chains of wells."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace as with_changes
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.lab.densities.curved import CurvedGaussian
from experiments.lab.densities.known import (
    LOG_TWO_PI,
    KnownDensity,
    jax_function,
    torch_function,
)
from experiments.lab.densities.modes import known_mixture
from experiments.lab.densities.parts import (
    TINY,
    Mixture,
    Radial,
    Table,
    choose,
    log_sum_exp,
    normals,
)

__all__ = ["WellChain", "shape_densities"]

BALLS = ((2, 3.0, 0.1), (5, 3.0, 0.1), (3, 2.0, 0.01))
"""d, radius and thickness of the wall of plateaus with a cliff."""

PLATEAUS = ((2, 5.0), (10, 4.0))
"""d and radius of plateaus from which the density falls as a standard Gaussian."""

SHELLS = ((2, 5.0, 0.1), (3, 4.0, 0.2), (4, 4.0, 0.1), (5, 3.0, 0.1))
"""d, radius and width of rings and shells."""

ARMS = 5
"""Arms of the star."""

SPIRAL_CENTERS = 250
"""Gaussians along the spiral."""

SPIRAL_WIDTH = 0.15
"""Standard deviation of each."""

MOON_RADIUS = 2.0
"""Radius of the ring that both moons lie on."""

MOON_WIDTH = 0.2
"""Standard deviation of the distance from that ring."""

MOON_SPREAD = 0.6
"""Standard deviation of x₁ around the middle of a moon."""

MOON_BOUND = 1.001
"""More than the two Gaussians in x₁ ever add up to, over the peak of one."""

WELL_CELLS = 600
"""Cells of the table of one variable of a chain of wells."""

WELL_REACH = 3.0
"""Distance from the origin beyond which a chain of wells has no mass worth the name."""


def _known(
    name: str,
    dim: int,
    formula: Callable[[Any, ModuleType], Any],
    log_z: float,
    sample: Callable[[int, torch.Generator], Tensor],
    source: str,
) -> KnownDensity:
    """Make the density of the library of a formula."""
    return KnownDensity(
        name=f"{name}-d{dim}",
        family="shapes",
        dim=dim,
        log_density=torch_function(formula),
        log_z=log_z,
        sample=sample,
        source=source,
        jax_log_density=jax_function(formula),
    )


def _radial(
    name: str, dim: int, profile: Callable[[Any, ModuleType], Any], reach: float, source: str
) -> KnownDensity:
    radial = Radial(dim=dim, profile=profile, reach=reach)
    return _known(name, dim, radial.formula, radial.log_z, radial.sample, source)


def _plateau(name: str, dim: int, radius: float, wall: float) -> KnownDensity:
    """Flat up to a radius, from where it falls as a Gaussian."""

    def profile(r: Any, xp: ModuleType) -> Any:
        return -0.5 * (xp.where(r > radius, r - radius, 0.0 * r) / wall) ** 2

    return _radial(name, dim, profile, radius + 10 * wall, f"flat, with a wall {wall:g} thick")


def _shell(dim: int, radius: float, width: float) -> KnownDensity:
    def profile(r: Any, xp: ModuleType) -> Any:
        return -0.5 * ((r - radius) / width) ** 2

    source = f"distance from the origin about {radius:g} ± {width:g}"
    return _radial("ring" if dim == 2 else "shell", dim, profile, radius + 10 * width, source)


def _ring_with_center() -> KnownDensity:
    """Half the mass in a ring, half in a Gaussian in its middle."""
    ring = Radial(dim=2, profile=lambda r, xp: -0.5 * ((r - 4) / 0.2) ** 2, reach=6.0)
    ring_log_z = ring.log_z

    def formula(x: Any, xp: ModuleType) -> Any:
        middle = -0.5 * (x**2).sum(-1) / 0.25 - LOG_TWO_PI - math.log(0.25)
        return log_sum_exp(xp.stack([ring.formula(x, xp) - ring_log_z, middle], -1), xp)

    def sample(n: int, generator: torch.Generator) -> Tensor:
        outside = torch.rand(n, 1, generator=generator) < 0.5
        return torch.where(outside, ring.sample(n, generator), 0.5 * normals(n, 2, generator))

    return _known("ring-with-center", 2, formula, math.log(2), sample, "two equal parts")


def _moons() -> KnownDensity:
    """Two moons: a ring, times the sum of two Gaussians in x₁; drawn by rejection from the ring."""

    def profile(r: Any, xp: ModuleType) -> Any:
        return -0.5 * ((r - MOON_RADIUS) / MOON_WIDTH) ** 2

    reach = MOON_RADIUS + 10 * MOON_WIDTH
    ring = Radial(dim=2, profile=profile, reach=reach)

    def sides(first: Any, xp: ModuleType) -> Any:
        ends = [-0.5 * ((first + s * MOON_RADIUS) / MOON_SPREAD) ** 2 for s in (-1, 1)]
        return log_sum_exp(xp.stack(ends, -1), xp)

    def formula(x: Any, xp: ModuleType) -> Any:
        return profile(xp.sqrt((x**2).sum(-1) + TINY), xp) + sides(x[..., 0], xp)

    def of_radii(r: Tensor) -> Tensor:
        angles = 2 * math.pi * torch.arange(64, dtype=torch.float64) / 64
        around = torch.logsumexp(sides(r[:, None] * angles.cos(), torch), dim=1)
        return profile(r, torch) + around + (2 * math.pi / 64 * r).log()

    def sample(n: int, generator: torch.Generator) -> Tensor:
        kept: list[Tensor] = []
        while sum(len(part) for part in kept) < n:
            points = ring.sample(2 * n, generator)
            uniform = torch.rand(2 * n, generator=generator, dtype=torch.float64)
            kept.append(points[(MOON_BOUND * uniform).log() < sides(points[:, 0], torch)])
        return torch.cat(kept)[:n]

    log_z = Table(log_density=of_radii, low=0.0, high=reach).log_z
    source = "after potential 1 of Rezende & Mohamed (2015), arXiv:1505.05770"
    return _known("moons", 2, formula, log_z, sample, source)


def _turned(angles: Tensor) -> Tensor:
    """Rotations (K, 2, 2) whose first columns point at the angles (K,)."""
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([torch.stack([cos, sin], dim=1), torch.stack([-sin, cos], dim=1)], dim=2)


def _mixtures() -> list[KnownDensity]:
    """A cross, a star and a spiral, all mixtures of Gaussians."""
    eighths = torch.tensor([0.25, -0.25], dtype=torch.float64) * math.pi
    cross = Mixture(
        weights=torch.ones(2, dtype=torch.float64),
        means=torch.zeros(2, 2, dtype=torch.float64),
        scales=torch.tensor([[3.0, 0.15]] * 2, dtype=torch.float64),
        axes=_turned(eighths),
    )
    around = 2 * math.pi * torch.arange(ARMS, dtype=torch.float64) / ARMS
    star = Mixture(
        weights=torch.ones(ARMS, dtype=torch.float64),
        means=3 * torch.stack([around.cos(), around.sin()], dim=1),
        scales=torch.tensor([[1.0, 0.12]] * ARMS, dtype=torch.float64),
        axes=_turned(around),
    )
    along = torch.linspace(0, 1, SPIRAL_CENTERS, dtype=torch.float64).sqrt()
    angle, radius = 4 * math.pi * along, 0.5 + 4 * along
    spiral = Mixture(
        weights=torch.ones(SPIRAL_CENTERS, dtype=torch.float64),
        means=radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1),
        scales=torch.full((SPIRAL_CENTERS, 2), SPIRAL_WIDTH, dtype=torch.float64),
    )
    return [
        known_mixture("cross-d2", "shapes", cross, "two narrow Gaussians across each other"),
        known_mixture("star-d2", "shapes", star, "five narrow arms"),
        known_mixture("spiral-d2", "shapes", spiral, "two turns"),
    ]


@dataclass(frozen=True, kw_only=True)
class WellChain:
    """log p = −a Σ (x_i² − 1)² + J Σ x_i x_{i+1}: neighbors tend to the same side.

    The φ⁴ chain, an Ising model with soft spins. Its integral is a product of matrices over
    a table of one variable; draws go backwards along the chain and are uniform within cells.

    Attributes:
        dim: number of parameters d.
        depth: a, how deep each of the two wells is.
        coupling: J.
    """

    dim: int
    depth: float
    coupling: float

    def formula(self, x: Any, xp: ModuleType) -> Any:
        """Log density of points (…, d)."""
        wells = self.depth * ((x**2 - 1) ** 2).sum(-1)
        return self.coupling * (x[..., 1:] * x[..., :-1]).sum(-1) - wells

    @cached_property
    def _messages(self) -> tuple[Tensor, Tensor]:
        """Centers of cells (m,), and logs of the integrals of what comes before, (d, m)."""
        ends = np.linspace(-WELL_REACH, WELL_REACH, WELL_CELLS + 1)
        x = torch.from_numpy(0.5 * (ends[1:] + ends[:-1]))
        single = -self.depth * (x.square() - 1).square()
        pair = self.coupling * x[:, None] * x
        messages = [torch.zeros_like(x)]
        log_width = math.log(2 * WELL_REACH / WELL_CELLS)
        for _ in range(self.dim - 1):
            before = (single + messages[-1])[:, None]
            messages.append(torch.logsumexp(before + pair, dim=0) + log_width)
        return x, torch.stack(messages) + single

    @property
    def log_z(self) -> float:
        """Log ∫ exp of the formula, nats; the midpoint rule is exact to rounding here."""
        last = self._messages[1][-1]
        return float(torch.logsumexp(last, dim=0)) + math.log(2 * WELL_REACH / WELL_CELLS)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw (n, d)."""
        centers, levels = self._messages
        pair = self.coupling * centers[:, None] * centers
        cell = choose(n, levels[-1].softmax(dim=0), generator)
        cells = [cell]
        row = torch.arange(WELL_CELLS)[:, None]
        for level in levels[:-1].flip(0):
            ends = (level + pair).softmax(dim=1).cumsum(dim=1).clamp(max=1.0)
            uniform = torch.rand(n, generator=generator, dtype=torch.float64)
            place = torch.searchsorted((ends + row).flatten(), uniform + cell)
            cell = (place - WELL_CELLS * cell).clamp(0, WELL_CELLS - 1)
            cells.append(cell)
        x = centers[torch.stack(cells[::-1], dim=1)]
        within = torch.rand(n, self.dim, generator=generator, dtype=torch.float64) - 0.5
        return x + within * (2 * WELL_REACH / WELL_CELLS)

    def known(self) -> KnownDensity:
        """Make the density of the library."""
        source = f"soft spins, wells {self.depth:g} deep, coupled by {self.coupling:g}"
        return _known("well-chain", self.dim, self.formula, self.log_z, self.sample, source)


def shape_densities() -> list[KnownDensity]:
    """List the family."""
    rippled = CurvedGaussian(shape="rippled", dim=2, bend=0.5, width=0.2, scale=3.0)
    return [
        *(_plateau("cliff", *ball) for ball in BALLS),
        *(_plateau("plateau", dim, radius, 1.0) for dim, radius in PLATEAUS),
        *(_shell(*shell) for shell in SHELLS),
        _ring_with_center(),
        _moons(),
        *_mixtures(),
        with_changes(rippled.known(), family="shapes"),
        WellChain(dim=4, depth=2.0, coupling=0.5).known(),
        WellChain(dim=8, depth=1.5, coupling=0.3).known(),
    ]
