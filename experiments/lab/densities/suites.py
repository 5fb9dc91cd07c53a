"""Synthetic targets of two benchmarks of variational methods, rebuilt from their definitions.

Blessing, Jia, Esslinger, Vargas & Neumann (2024), "Beyond ELBOs", arXiv:2406.07423: funnel,
mixtures of 40 Gaussians and of 10 Student-t, Gaussians of random covariances, rings, many
wells. Agrawal & Domke (2024), "Disentangling impact of capacity, objective, batchsize,
estimators, and step-size on flow VI", arXiv:2412.08824: banana, ill- and well-conditioned
Gaussians, Student-t, banana with a funnel ("funana"); Neal's funnel is in both. Positions
that the authors draw at random are drawn here from the same distributions, by other seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from amfvi.randomness import generator_for
from experiments.lab.densities.curved import CurvedGaussian
from experiments.lab.densities.funnels import Funnel
from experiments.lab.densities.gaussians import Gaussian
from experiments.lab.densities.known import (
    LOG_TWO_PI,
    Formula,
    KnownDensity,
    jax_function,
    random_rotation,
    torch_function,
)
from experiments.lab.densities.modes import known_mixture
from experiments.lab.densities.parts import Mixture, Radial, Table, choose, log_sum_exp, normals
from experiments.lab.densities.parts import student as student_draws
from experiments.lab.densities.tails import elliptical_student

__all__ = ["suite_densities"]

BLESSING = "Blessing et al. (2024), arXiv:2406.07423"
"""The first benchmark."""

AGRAWAL = "Agrawal & Domke (2024), arXiv:2412.08824"
"""The second."""

GAUSSIANS = 40
"""Components of the mixture of Gaussians, on [−40, 40]^d with standard deviation 1."""

STUDENTS = 10
"""Components of the mixture of Student-t of two degrees, on [−10, 10]^d with scale 1."""

WELL_REACH = 4.0
"""Distance from the origin beyond which a double well has no mass worth the name."""

LAST_RING = 4.5 * math.pi
"""Radius beyond which the rings fall as exp(−r)."""

CURVATURE = 0.03
"""Of the bananas."""


def _centers(components: int, dim: int, reach: float) -> Tensor:
    """Centers (K, d), uniform on [−reach, reach]^d."""
    generator = generator_for(0, "centers of a suite", components, dim)
    return reach * (2 * torch.rand(components, dim, generator=generator, dtype=torch.float64) - 1)


def _suite(
    name: str,
    dim: int,
    formula: Formula,
    log_z: float,
    sample: Callable[[int, torch.Generator], Tensor],
    **others: Any,
) -> KnownDensity:
    return KnownDensity(
        name=f"{name}-d{dim}",
        family="suites",
        dim=dim,
        log_density=torch_function(formula),
        log_z=log_z,
        sample=sample,
        jax_log_density=jax_function(formula),
        **others,
    )


def _forty_gaussians(dim: int) -> KnownDensity:
    mixture = Mixture(
        weights=torch.full((GAUSSIANS,), 1 / GAUSSIANS, dtype=torch.float64),
        means=_centers(GAUSSIANS, dim, 40.0),
        scales=torch.ones(GAUSSIANS, dim, dtype=torch.float64),
    )
    return known_mixture(f"blessing-gaussians40-d{dim}", "suites", mixture, BLESSING)


def _wishart_gaussians(dim: int) -> KnownDensity:
    """Ten Gaussians on [−10, 10]^d whose covariances are Wishart of d + 2 degrees."""
    generator = generator_for(0, "covariances of a suite", dim)
    roots = torch.stack([normals(dim, dim + 2, generator) for _ in range(STUDENTS)])
    variances, axes = torch.linalg.eigh(roots @ roots.mT)
    mixture = Mixture(
        weights=torch.full((STUDENTS,), 1 / STUDENTS, dtype=torch.float64),
        means=_centers(STUDENTS, dim, 10.0),
        scales=variances.sqrt(),
        axes=axes.contiguous(),
    )
    return known_mixture(f"blessing-gaussians10-d{dim}", "suites", mixture, BLESSING)


def _ten_students(dim: int) -> KnownDensity:
    """Products of Student-t of two degrees; ∫ (1 + x²/2)^(−3/2) dx = 2 √2."""
    centers = _centers(STUDENTS, dim, 10.0)

    def formula(x: Any, xp: ModuleType) -> Any:
        gaps = x[..., None, :] - xp.asarray(centers.numpy())
        return log_sum_exp(-1.5 * xp.log1p(0.5 * gaps**2).sum(-1), xp)

    def sample(n: int, generator: torch.Generator) -> Tensor:
        which = choose(n, torch.ones(STUDENTS), generator)
        return centers[which] + student_draws(n, dim, 2.0, generator)

    log_z = math.log(STUDENTS) + dim * math.log(2 * math.sqrt(2))
    return _suite(
        "blessing-students10", dim, formula, log_z, sample,
        source=BLESSING, moments=False, light_tails=False,
    )  # fmt: skip


def _many_well(dim: int) -> KnownDensity:
    """Pairs with log density ½x₁ + 6x₁² − x₁⁴ − ½x₂², in the order x₁, x₂, x₁, …"""

    def well(x: Any) -> Any:
        return 0.5 * x + 6 * x**2 - x**4

    def formula(x: Any, xp: ModuleType) -> Any:
        return well(x[..., 0::2]).sum(-1) - 0.5 * (x[..., 1::2] ** 2).sum(-1)

    table = Table(log_density=well, low=-WELL_REACH, high=WELL_REACH)

    def sample(n: int, generator: torch.Generator) -> Tensor:
        x = normals(n, dim, generator)
        x[:, 0::2] = table.sample(n * (dim // 2), generator).view(n, dim // 2)
        return x

    log_z = (dim // 2) * (table.log_z + 0.5 * LOG_TWO_PI)
    return _suite("blessing-many-well", dim, formula, log_z, sample, source=BLESSING)


def _rings() -> KnownDensity:
    """∝ cos r + 1.001 up to r = 4.5 π, then exp(4.5 π − r)."""

    def profile(r: Any, xp: ModuleType) -> Any:
        inside = xp.log(xp.cos(xp.where(r <= LAST_RING, r, 0.0 * r)) + 1.001)
        return xp.where(r <= LAST_RING, inside, LAST_RING - r)

    radial = Radial(dim=2, profile=profile, reach=LAST_RING + 40)
    return _suite("blessing-rings", 2, radial.formula, radial.log_z, radial.sample, source=BLESSING)


def _funana(dim: int) -> KnownDensity:
    """x₁ ~ N(0, 10²), v = x₂ ~ N(0, 3²), the others N(.03 (x₁² − 100), e^v)."""

    def formula(x: Any, xp: ModuleType) -> Any:
        bent = CURVATURE * (x[..., 0] ** 2 - 100)
        v = x[..., 1]
        square = xp.exp(-v) * ((x[..., 2:] - bent[..., None]) ** 2).sum(-1)
        return -0.5 * ((x[..., 0] / 10) ** 2 + (v / 3) ** 2 + (dim - 2) * v + square)

    def sample(n: int, generator: torch.Generator) -> Tensor:
        x = normals(n, dim, generator)
        x[:, 0] *= 10
        x[:, 1] *= 3
        bent = CURVATURE * (x[:, :1].square() - 100)
        x[:, 2:] = bent + (0.5 * x[:, 1:2]).exp() * x[:, 2:]
        return x

    log_z = math.log(30) + 0.5 * dim * LOG_TWO_PI
    return _suite(
        "agrawal-funana", dim, formula, log_z, sample,
        source=AGRAWAL, moments=False, light_tails=False,
    )  # fmt: skip


def _conditioned(name: str, dim: int, shape: float) -> KnownDensity:
    """A turned Gaussian whose variances are inverse Gamma(shape, 1)."""
    shapes = torch.full((dim,), shape, dtype=torch.float64)
    gammas = torch._standard_gamma(shapes, generator=generator_for(0, "variances", name, dim))
    gaussian = Gaussian(
        mean=torch.zeros(dim, dtype=torch.float64),
        factor=random_rotation(dim, seed=3) * gammas.rsqrt(),
    )
    return gaussian.known(f"agrawal-{name}-conditioned-d{dim}", AGRAWAL, "suites")


def suite_densities() -> list[KnownDensity]:
    """List both suites."""
    funnel = Funnel(dim=10, sd=3.0).known("suites", f"{BLESSING}; {AGRAWAL}")
    banana = CurvedGaussian(
        shape="quadratic", dim=10, bend=CURVATURE, width=1.0, scale=10.0, rotation_seed=None
    )
    return [
        replace(funnel, name="blessing-funnel-d10"),
        *(_forty_gaussians(dim) for dim in (2, 50)),
        *(_wishart_gaussians(dim) for dim in (2, 5)),
        *(_ten_students(dim) for dim in (2, 10, 50)),
        *(_many_well(dim) for dim in (4, 10, 32)),
        _rings(),
        replace(banana.known(), name="agrawal-banana-d10", family="suites", source=AGRAWAL),
        _conditioned("ill", 10, 0.5),
        _conditioned("ill", 50, 0.5),
        _conditioned("well", 10, 3.0),
        elliptical_student("agrawal-student1.5-d10", 10, 1.5, "suites", AGRAWAL),
        elliptical_student("agrawal-student2.5-d10", 10, 2.5, "suites", AGRAWAL),
        _funana(10),
    ]
