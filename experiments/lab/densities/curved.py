"""Curved densities of one mode: bent, cubic and wavy Gaussians, and hybrid Rosenbrocks.

z₁ ~ N(0, s²), z₂ | z₁ ~ N(g(z₁), w²), every other coordinate N(0, 1), all turned by a random
rotation: x = R z. The integral is that of a Gaussian, log Z = log(s w) + (d/2) log 2π.
"""

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

from experiments.lab.densities.known import (
    LOG_TWO_PI,
    KnownDensity,
    jax_function,
    random_rotation,
    torch_function,
)

__all__ = ["CurvedGaussian", "HybridRosenbrock", "curved_densities", "curved_family"]

WAVES = 2
"""Waves of the wavy bend between −2 s and 2 s."""

RIPPLES = 6
"""The same of the rippled bend, which is not in the family."""

Bend = Callable[[Any, float, float, ModuleType], Any]
"""g: from z₁, its standard deviation s, the bend b and a module (torch or jax.numpy)."""


def _waves(number: int) -> Bend:
    """b s sin(k z₁) with so many waves between −2 s and 2 s."""
    return lambda z, s, b, xp: b * s * xp.sin(number * math.pi / (2 * s) * z)


BENDS: dict[str, Bend] = {
    "quadratic": lambda z, s, b, xp: b * (z**2 - s**2),
    "cubic": lambda z, s, b, xp: b * (z**3 - 3 * s**2 * z) / s,
    "wavy": _waves(WAVES),
    "rippled": _waves(RIPPLES),
}
"""How z₂ depends on z₁, by name, so that its mean is 0."""

NODES = 200
"""Gauss–Hermite nodes for the variance of g and its covariance with z₁."""

FAMILY = ("quadratic", "cubic", "wavy")
"""The bends of the family."""

DIMENSIONS = (2, 3, 5, 10)
"""Dimensions of the family."""

SETTINGS = (
    (0.1, 1.0, 3),
    (0.3, 0.3, 3),
    (1.0, 0.1, 1),
    (0.5, 0.5, 2),
    (0.1, 0.1, 2),
    (1.0, 1.0, 1),
)
"""Bends b, widths w and scales s of the family."""

ROSENBROCKS = ((1, 1), (2, 1), (2, 2), (3, 3))
"""Links per chain and chains of the hybrid Rosenbrocks of the family."""


@dataclass(frozen=True, kw_only=True)
class CurvedGaussian:
    """A Gaussian bent along one coordinate, turned at random.

    Attributes:
        shape: of the bend, a key of :data:`BENDS`.
        dim: number of parameters d ≥ 2.
        bend: b, how strongly.
        width: w, the standard deviation of z₂ given z₁.
        scale: s, the standard deviation of z₁.
        rotation_seed: of the random rotation; None: not turned.
    """

    shape: str
    dim: int
    bend: float
    width: float
    scale: float
    rotation_seed: int | None = 0

    @cached_property
    def rotation(self) -> Tensor:
        """R (d, d): x = R z."""
        if self.rotation_seed is None:
            return torch.eye(self.dim, dtype=torch.float64)
        return random_rotation(self.dim, self.rotation_seed)

    @property
    def log_z(self) -> float:
        """Log ∫ exp of the formula, nats."""
        return math.log(self.scale * self.width) + 0.5 * self.dim * LOG_TWO_PI

    def formula(self, x: Any, xp: ModuleType) -> Any:
        """Log density of points (…, d)."""
        z = x @ xp.asarray(self.rotation.numpy())
        bent = BENDS[self.shape](z[..., 0], self.scale, self.bend, xp)
        noise = (z[..., 1] - bent) / self.width
        rest = (z[..., 2:] ** 2).sum(-1)
        return -0.5 * ((z[..., 0] / self.scale) ** 2 + noise**2 + rest)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw (n, d) exactly."""
        z = torch.randn(n, self.dim, generator=generator, dtype=torch.float64)
        z[:, 0] *= self.scale
        bent = BENDS[self.shape](z[:, 0], self.scale, self.bend, torch)
        z[:, 1] = bent + self.width * z[:, 1]
        return z @ self.rotation.T

    @property
    def exact_moments(self) -> tuple[Tensor, Tensor]:
        """Means and standard deviations (d,) of the parameters."""
        nodes, weights = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(NODES))
        z, share = self.scale * nodes, weights / weights.sum()
        bent = BENDS[self.shape](z, self.scale, self.bend, torch)
        covariance = torch.eye(self.dim, dtype=torch.float64)
        covariance[0, 0] = self.scale**2
        covariance[1, 1] = self.width**2 + (share * bent.square()).sum()
        covariance[0, 1] = covariance[1, 0] = (share * z * bent).sum()
        variances = (self.rotation @ covariance @ self.rotation.T).diagonal()
        return torch.zeros(self.dim, dtype=torch.float64), variances.sqrt()

    def known(self) -> KnownDensity:
        """Make the density of the library."""
        turned = "" if self.rotation_seed is not None else "-unturned"
        again = f"-rotation{self.rotation_seed}" if self.rotation_seed else ""
        return KnownDensity(
            name=f"{self.shape}-d{self.dim}-bend{self.bend:g}-width{self.width:g}"
            f"-scale{self.scale:g}{turned}{again}",
            family="curved",
            dim=self.dim,
            log_density=torch_function(self.formula),
            log_z=self.log_z,
            sample=self.sample,
            source="one mode, bent along a coordinate and turned at random",
            exact_moments=self.exact_moments,
            jax_log_density=jax_function(self.formula),
        )


@dataclass(frozen=True, kw_only=True)
class HybridRosenbrock:
    """x₁ ~ N(m, s²), from which chains start whose links are N(previous², w²).

    Pagani, Wiegand & Nadarajah (2022), Scand. J. Statist. 49, 657–680, equation 4.

    Attributes:
        links: per chain, those after x₁.
        chains: that start from x₁.
        mean: m of x₁.
        scale: s, the standard deviation of x₁.
        width: w, the standard deviation of a link given the one before it.
    """

    links: int
    chains: int
    mean: float = 1.0
    scale: float = 0.5
    width: float = 0.3

    @property
    def dim(self) -> int:
        """d = 1 + links × chains."""
        return 1 + self.links * self.chains

    @property
    def log_z(self) -> float:
        """Log ∫ exp of the formula, nats."""
        widths = math.log(self.scale) + (self.dim - 1) * math.log(self.width)
        return widths + 0.5 * self.dim * LOG_TWO_PI

    def formula(self, x: Any, xp: ModuleType) -> Any:
        """Log density of points (…, d)."""
        total = ((x[..., 0] - self.mean) / self.scale) ** 2
        for chain in range(self.chains):
            previous = x[..., 0]
            for link in range(self.links):
                current = x[..., 1 + chain * self.links + link]
                total = total + ((current - previous**2) / self.width) ** 2
                previous = current
        return -0.5 * total

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw (n, d) exactly."""
        x = torch.randn(n, self.dim, generator=generator, dtype=torch.float64)
        x[:, 0] = self.mean + self.scale * x[:, 0]
        for chain in range(self.chains):
            previous = x[:, 0]
            for link in range(self.links):
                column = 1 + chain * self.links + link
                x[:, column] = previous.square() + self.width * x[:, column]
                previous = x[:, column]
        return x

    @property
    def exact_moments(self) -> tuple[Tensor, Tensor]:
        """Means and standard deviations (d,), from raw moments along a chain."""

        def normal(power: int) -> float:
            """Moment of N(0, 1)."""
            return 0.0 if power % 2 else float(math.prod(range(1, power, 2)))

        orders = range(2 ** (self.links + 1) + 1)
        raw = [
            sum(
                math.comb(n, j) * self.mean ** (n - j) * self.scale**j * normal(j)
                for j in range(n + 1)
            )
            for n in orders
        ]
        mean, square = [raw[1]], [raw[2]]
        for _ in range(self.links):
            raw = [
                sum(
                    math.comb(n, j) * raw[2 * (n - j)] * self.width**j * normal(j)
                    for j in range(n + 1)
                )
                for n in range(len(raw) // 2 + 1)
            ]
            mean.append(raw[1])
            square.append(raw[2])
        order = [0, *list(range(1, self.links + 1)) * self.chains]
        means = torch.tensor(mean, dtype=torch.float64)[order]
        return means, (torch.tensor(square, dtype=torch.float64)[order] - means.square()).sqrt()

    def known(self) -> KnownDensity:
        """Make the density of the library."""
        return KnownDensity(
            name=f"rosenbrock-d{self.dim}-chains{self.chains}",
            family="rosenbrock",
            dim=self.dim,
            log_density=torch_function(self.formula),
            log_z=self.log_z,
            sample=self.sample,
            source="Pagani, Wiegand & Nadarajah (2022), Scand. J. Statist. 49, 657–680",
            light_tails=self.links < 3,
            exact_moments=self.exact_moments,
            jax_log_density=jax_function(self.formula),
        )


def curved_family(*, full: bool = False) -> list[KnownDensity]:
    """List the family of curved densities: three shapes in four dimensions, and Rosenbrocks.

    Args:
        full: every setting in every dimension (72 and 4); otherwise every other one
            (36 and 4), so that each setting comes with each shape in two dimensions.
    """
    family = [
        CurvedGaussian(shape=shape, dim=dim, bend=bend, width=width, scale=scale).known()
        for j, shape in enumerate(FAMILY)
        for i, dim in enumerate(DIMENSIONS)
        for k, (bend, width, scale) in enumerate(SETTINGS)
        if full or (i + j + k) % 2 == 0
    ]
    rosenbrocks = [HybridRosenbrock(links=n, chains=m).known() for n, m in ROSENBROCKS]
    return [*family, *rosenbrocks]


def curved_densities() -> list[KnownDensity]:
    """List what the library holds of the family: every other setting, and two unturned ones."""
    plain = CurvedGaussian(
        shape="quadratic", dim=3, bend=0.3, width=0.3, scale=3, rotation_seed=None
    )
    hard = CurvedGaussian(shape="quadratic", dim=2, bend=1.0, width=0.2, scale=3)
    return [*curved_family(), plain.known(), hard.known()]
