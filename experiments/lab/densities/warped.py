"""Random members of one large family: mixtures, warped by what has a known inverse.

Nothing here was chosen for being easy or hard, and more can be drawn by further numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from amfvi.randomness import generator_for
from experiments.lab.densities.known import LOG_TWO_PI, KnownDensity, random_rotation
from experiments.lab.densities.parts import choose, normals, student

__all__ = ["warped_densities", "warped_density"]

N_DENSITIES = 24
"""Members that are among all densities."""

DIMS = (2, 2, 3, 3, 4, 5, 6, 8)
"""Numbers of parameters, each as likely as any other in the list; so are those below."""

COMPONENTS = (1, 1, 1, 2, 3)
"""Numbers of components."""

BASES = ("normal", "normal", "normal", "logistic", "student")
"""Distributions of the coordinates of a component."""

DEGREES = 6.0
"""Degrees of freedom of "student", which leave it a fourth moment."""

KINDS = ("square", "sine", "tanh", "softplus", "cube", "scale", "scale")
"""What one coordinate does to another."""

POWERS = {"square": 2, "cube": 3}
"""Kinds that raise coordinates to a power."""

HIGHEST_POWER = {"normal": 3, "logistic": 2, "student": 1}
"""Power of a distribution up to which some thousands of draws tell a standard deviation."""

MOST_WARPS = 3
"""Warps of one density, at most."""


@dataclass(frozen=True, kw_only=True)
class Warp:
    """A shift, or a scaling, of one coordinate by a function of another.

    Attributes:
        kind: one of ``KINDS``.
        source, target: the coordinate that it depends on, and the one that it changes.
        size, pace: how far it goes, and how fast it changes.
    """

    kind: str
    source: int
    target: int
    size: float
    pace: float

    def forward(self, z: Tensor) -> Tensor:
        """Warp points (n, d)."""
        by, moved = z[:, self.source], z[:, self.target]
        if self.kind == "scale":
            return self._with(z, moved * self._log_scale(by).exp())
        return self._with(z, moved + self._shift(by))

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Undo it: points (n, d), and log |det| of ``forward`` there (n,)."""
        by, moved = x[:, self.source], x[:, self.target]
        if self.kind == "scale":
            log_scale = self._log_scale(by)
            return self._with(x, moved * (-log_scale).exp()), log_scale
        return self._with(x, moved - self._shift(by)), torch.zeros_like(by)

    def _with(self, points: Tensor, column: Tensor) -> Tensor:
        columns = list(points.unbind(dim=1))
        columns[self.target] = column
        return torch.stack(columns, dim=1)

    def _log_scale(self, by: Tensor) -> Tensor:
        return self.size * torch.tanh(self.pace * by)

    def _shift(self, by: Tensor) -> Tensor:
        size, pace = self.size, self.pace
        shifts: dict[str, Callable[[], Tensor]] = {
            "square": lambda: size * by.square(),
            "sine": lambda: 1.5 * size * torch.sin(2 * pace * by),
            "tanh": lambda: 2 * size * torch.tanh(pace * by),
            "softplus": lambda: 2 * size * torch.nn.functional.softplus(pace * by),
            "cube": lambda: 0.3 * size * by**3,
        }
        return shifts[self.kind]()


@dataclass(frozen=True, kw_only=True)
class WarpedMixture:
    """A mixture that is warped, turned, scaled and moved.

    Attributes:
        base: one of ``BASES``, of every coordinate.
        weights: of the components, (K,), of sum one.
        means, scales: of the components, (K, d).
        warps: what is done to draws of the mixture, in this order.
        rotation: of the warped points, (d, d).
        units, place: of the parameters, (d,).
        log_z: log ∫ exp ``log_density``, nats.
    """

    base: str
    weights: Tensor
    means: Tensor
    scales: Tensor
    warps: Sequence[Warp]
    rotation: Tensor
    units: Tensor
    place: Tensor
    log_z: float

    def log_density(self, x: Tensor) -> Tensor:
        """Log density at points (n, d), nats."""
        z = ((x - self.place) / self.units) @ self.rotation
        log_det = self.units.log().sum()
        for warp in reversed(self.warps):
            z, of_warp = warp.inverse(z)
            log_det = log_det + of_warp
        standard = (z[:, None, :] - self.means) / self.scales
        log_p = (self._log_base(standard) - self.scales.log()).sum(dim=2) + self.weights.log()
        return log_p.logsumexp(dim=1) - log_det + self.log_z

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw (n, d) exactly."""
        which = choose(n, self.weights, generator)
        z = self.means[which] + self.scales[which] * self._draw_base(n, generator)
        for warp in self.warps:
            z = warp.forward(z)
        return (z @ self.rotation.T) * self.units + self.place

    def _log_base(self, z: Tensor) -> Tensor:
        if self.base == "normal":
            return -0.5 * (z.square() + LOG_TWO_PI)
        if self.base == "logistic":
            return -z - 2 * torch.nn.functional.softplus(-z)
        constant = math.lgamma((DEGREES + 1) / 2) - math.lgamma(DEGREES / 2)
        constant -= 0.5 * math.log(DEGREES * math.pi)
        return constant - (DEGREES + 1) / 2 * torch.log1p(z.square() / DEGREES)

    def _draw_base(self, n: int, generator: torch.Generator) -> Tensor:
        dim = self.means.shape[1]
        if self.base == "normal":
            return normals(n, dim, generator)
        if self.base == "student":
            return student(n, dim, DEGREES, generator)
        u = torch.rand(n, dim, generator=generator, dtype=torch.float64).clamp(min=1e-300)
        return u.log() - torch.log1p(-u)


def warped_density(number: int) -> KnownDensity:
    """Draw a density by its number."""
    generator = generator_for(number, "warped")

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand(1, generator=generator))

    def index(n: int) -> int:
        return int(torch.randint(n, (1,), generator=generator))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    dim, components = DIMS[index(len(DIMS))], COMPONENTS[index(len(COMPONENTS))]
    weights = torch.rand(components, generator=generator, dtype=torch.float64) + 0.2
    distance = uniform(1, 4) if components > 1 else 0.0
    warps = []
    for _ in range(1 + index(MOST_WARPS)):
        source = index(dim)
        target = (source + 1 + index(dim - 1)) % dim
        kind, size, pace = KINDS[index(len(KINDS))], uniform(0.2, 1.2), uniform(0.5, 2)
        warps.append(Warp(kind=kind, source=source, target=target, size=size, pace=pace))
    units = (uniform(0, 3) * normal(dim)).exp()
    mixture = WarpedMixture(
        base=BASES[index(len(BASES))],
        weights=weights / weights.sum(),
        means=distance * normal(components, dim),
        scales=(0.3 * normal(components, dim)).exp(),
        warps=warps,
        rotation=random_rotation(dim, number) if index(3) else torch.eye(dim).double(),
        units=units,
        place=uniform(0, 5) * units * normal(dim),
        log_z=uniform(-50, 50),
    )
    power = math.prod(POWERS.get(warp.kind, 1) for warp in warps)
    described = ", ".join(f"{warp.kind} {warp.size:.1f}" for warp in warps)
    return KnownDensity(
        name=f"warped-{number}-d{dim}",
        family="warped",
        dim=dim,
        log_density=mixture.log_density,
        log_z=mixture.log_z,
        sample=mixture.sample,
        source=f"{components} components, {mixture.base}; {described}",
        moments=power <= HIGHEST_POWER[mixture.base],
        light_tails=mixture.base == "normal",
    )


def warped_densities() -> list[KnownDensity]:
    """Draw the members that are among all densities."""
    return [warped_density(number) for number in range(N_DENSITIES)]
