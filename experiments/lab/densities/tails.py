"""Tails: heavy, half heavy, light, and those that pile up at a bound."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
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
from experiments.lab.densities.parts import normals, student

__all__ = ["Marginal", "elliptical_student", "product", "tail_densities"]

SMALLEST = 1e-300
"""Draws nearer to a bound at zero than this are put there."""

MOST_BELOW_ONE = 1 - 2.0**-53
"""The largest number below one."""


@dataclass(frozen=True, kw_only=True)
class Marginal:
    """A density of one parameter, of which products are made.

    Attributes:
        kernel: from values and their module to log densities, elementwise.
        log_z: log ∫ exp of the kernel, nats.
        draw: from a number of draws, d and a generator to independent draws (n, d).
        constraint: on the parameter.
        moments: whether it has a mean and a standard deviation that draws tell.
        light_tails: whether a box can hold it.
        jax: whether the kernel works in jax, too.
    """

    kernel: Callable[[Any, ModuleType], Any]
    log_z: float
    draw: Callable[[int, int, torch.Generator], Tensor]
    constraint: Any = None
    moments: bool = True
    light_tails: bool = True
    jax: bool = True


def product(name: str, dim: int, marginal: Marginal, source: str) -> KnownDensity:
    """Make the density of d independent parameters."""

    def formula(x: Any, xp: ModuleType) -> Any:
        return marginal.kernel(x, xp).sum(-1)

    return KnownDensity(
        name=f"{name}-d{dim}",
        family="tails",
        dim=dim,
        log_density=torch_function(formula),
        log_z=dim * marginal.log_z,
        sample=lambda n, generator: marginal.draw(n, dim, generator),
        source=source,
        constraints=None if marginal.constraint is None else [marginal.constraint] * dim,
        moments=marginal.moments,
        light_tails=marginal.light_tails,
        jax_log_density=jax_function(formula) if marginal.jax else None,
    )


def elliptical_student(
    name: str, dim: int, degrees: float, family: str = "tails", source: str = "elliptical"
) -> KnownDensity:
    """Make the multivariate Student-t density with unit scale."""

    def formula(x: Any, xp: ModuleType) -> Any:
        return -0.5 * (degrees + dim) * xp.log1p((x**2).sum(-1) / degrees)

    def sample(n: int, generator: torch.Generator) -> Tensor:
        half = torch.full((n, 1), degrees / 2, dtype=torch.float64)
        chi_square = 2 * torch._standard_gamma(half, generator=generator)
        return normals(n, dim, generator) / (chi_square / degrees).sqrt()

    return KnownDensity(
        name=name,
        family=family,
        dim=dim,
        log_density=torch_function(formula),
        log_z=math.lgamma(degrees / 2)
        + 0.5 * dim * math.log(degrees * math.pi)
        - math.lgamma(0.5 * (degrees + dim)),
        sample=sample,
        source=source,
        moments=degrees > 4,
        light_tails=False,
        jax_log_density=jax_function(formula),
    )


def _uniform(n: int, dim: int, generator: torch.Generator) -> Tensor:
    """Uniform draws (n, d) on (0, 1)."""
    return torch.rand(n, dim, generator=generator, dtype=torch.float64).clamp(min=SMALLEST)


def _log_gamma_draws(n: int, dim: int, shape: float, generator: torch.Generator) -> Tensor:
    """Logs of Gamma(shape, 1) variables, without underflow for small shapes."""
    above = torch._standard_gamma(
        torch.full((n, dim), shape + 1, dtype=torch.float64), generator=generator
    )
    return above.log() + _uniform(n, dim, generator).log() / shape


def _signs(n: int, dim: int, generator: torch.Generator) -> Tensor:
    return 2.0 * torch.randint(2, (n, dim), generator=generator) - 1.0


def _student(degrees: float) -> Marginal:
    log_z = math.lgamma(degrees / 2) - math.lgamma((degrees + 1) / 2)
    return Marginal(
        kernel=lambda x, xp: -0.5 * (degrees + 1) * xp.log1p(x**2 / degrees),
        log_z=log_z + 0.5 * math.log(degrees * math.pi),
        draw=lambda n, dim, generator: student(n, dim, degrees, generator),
        moments=degrees > 4,
        light_tails=False,
    )


def _scaled(marginal: Marginal, scale: float) -> Marginal:
    """The marginal of ``scale`` times a parameter without bounds."""
    return replace(
        marginal,
        kernel=lambda x, xp: marginal.kernel(x / scale, xp),
        log_z=marginal.log_z + math.log(scale),
        draw=lambda n, dim, generator: scale * marginal.draw(n, dim, generator),
    )


def _half_cauchy(scale: float) -> Marginal:
    return Marginal(
        kernel=lambda x, xp: -xp.log1p((x / scale) ** 2),
        log_z=math.log(scale * math.pi / 2),
        draw=lambda n, dim, g: scale * (0.5 * math.pi * _uniform(n, dim, g)).tan(),
        constraint=constraints.positive,
        moments=False,
        light_tails=False,
    )


def _half_heavy(degrees: float) -> Marginal:
    """Below zero half of a standard normal, above half of a Student-t, equal at zero."""
    heavy = _student(degrees)
    light_mass, heavy_mass = math.sqrt(2 * math.pi), math.exp(heavy.log_z)
    total = light_mass + heavy_mass

    def draw(n: int, dim: int, generator: torch.Generator) -> Tensor:
        above = _uniform(n, dim, generator) < heavy_mass / total
        tail = student(n, dim, degrees, generator).abs()
        return torch.where(above, tail, -normals(n, dim, generator).abs())

    return Marginal(
        kernel=lambda x, xp: xp.where(x > 0, heavy.kernel(x, xp), -0.5 * x**2),
        log_z=math.log(0.5 * total),
        draw=draw,
        moments=degrees > 4,
        light_tails=False,
    )


def _gamma(shape: float, rate: float) -> Marginal:
    def draw(n: int, dim: int, generator: torch.Generator) -> Tensor:
        return (_log_gamma_draws(n, dim, shape, generator).exp() / rate).clamp(min=SMALLEST)

    return Marginal(
        kernel=lambda x, xp: (shape - 1) * xp.log(x) - rate * x,
        log_z=math.lgamma(shape) - shape * math.log(rate),
        draw=draw,
        constraint=constraints.positive,
        moments=shape > 0.05,
        light_tails=shape > 0.05,
    )


def _beta(shape: float) -> Marginal:
    def draw(n: int, dim: int, generator: torch.Generator) -> Tensor:
        first, second = (_log_gamma_draws(n, dim, shape, generator) for _ in range(2))
        return torch.sigmoid(first - second).clamp(SMALLEST, MOST_BELOW_ONE)

    return Marginal(
        kernel=lambda x, xp: (shape - 1) * (xp.log(x) + xp.log1p(-x)),
        log_z=2 * math.lgamma(shape) - math.lgamma(2 * shape),
        draw=draw,
        constraint=constraints.unit_interval,
    )


def _power(exponent: float) -> Marginal:
    """∝ exp(−|x|^p): |x|^p is Gamma(1/p, 1)."""

    def draw(n: int, dim: int, generator: torch.Generator) -> Tensor:
        size = (_log_gamma_draws(n, dim, 1 / exponent, generator) / exponent).exp()
        return _signs(n, dim, generator) * size

    return Marginal(
        kernel=lambda x, xp: -(xp.abs(x) ** exponent),
        log_z=math.log(2) + math.lgamma(1 + 1 / exponent),
        draw=draw,
    )


def _logistic(n: int, dim: int, generator: torch.Generator) -> Tensor:
    u = _uniform(n, dim, generator)
    return u.log() - torch.log1p(-u)


def _lognormal(sd: float) -> Marginal:
    return Marginal(
        kernel=lambda x, xp: -xp.log(x) - 0.5 * (xp.log(x) / sd) ** 2,
        log_z=math.log(sd) + 0.5 * LOG_TWO_PI,
        draw=lambda n, dim, generator: (sd * normals(n, dim, generator)).exp(),
        constraint=constraints.positive,
        moments=sd < 1,
        light_tails=sd < 1,
    )


def _skew_normal(slant: float) -> Marginal:
    """φ(x) Φ(a x), Azzalini (1985), Scand. J. Statist. 12, 171–178."""
    share = slant / math.sqrt(1 + slant**2)

    def draw(n: int, dim: int, generator: torch.Generator) -> Tensor:
        half = normals(n, dim, generator).abs()
        return share * half + math.sqrt(1 - share**2) * normals(n, dim, generator)

    return Marginal(
        kernel=lambda x, xp: -0.5 * x**2 + xp.special.log_ndtr(slant * x),
        log_z=0.5 * LOG_TWO_PI - math.log(2),
        draw=draw,
        jax=False,  # its function of this name lies elsewhere
    )


LOGISTIC = Marginal(
    kernel=lambda x, xp: -xp.abs(x) - 2 * xp.log1p(xp.exp(-xp.abs(x))), log_z=0.0, draw=_logistic
)
"""The logistic density."""

LOG_GAMMA = Marginal(
    kernel=lambda x, xp: 0.5 * x - xp.exp(x),
    log_z=0.5 * math.log(math.pi),
    draw=lambda n, dim, generator: _log_gamma_draws(n, dim, 0.5, generator),
)
"""The logarithm of a Gamma(½, 1) variable."""

INVERSE_GAMMA = Marginal(
    kernel=lambda x, xp: -3 * xp.log(x) - 1 / x,
    log_z=0.0,
    draw=lambda n, dim, generator: (-_log_gamma_draws(n, dim, 2.0, generator)).exp(),
    constraint=constraints.positive,
    moments=False,
    light_tails=False,
)
"""The inverse of a Gamma(2, 1) variable."""


def tail_densities() -> list[KnownDensity]:
    """List the family."""
    return [
        *(product("cauchy", dim, _student(1.0), "nothing has a mean") for dim in (1, 2, 5)),
        product("student2", 3, _student(2.0), "infinite variance"),
        product("student4", 5, _student(4.0), "infinite fourth moment"),
        product("student8", 10, _student(8.0), "slightly heavy"),
        *(
            elliptical_student(f"student{degrees:g}-elliptical-d{dim}", dim, degrees)
            for degrees, dim in ((1.5, 3), (3.0, 5), (4.0, 2), (8.0, 10))
        ),
        product("half-cauchy", 1, _half_cauchy(2.0), "the usual prior of a scale"),
        product("half-cauchy", 3, _half_cauchy(1.0), "the usual prior of a scale"),
        *(product("half-heavy", dim, _half_heavy(2.0), "one side of each") for dim in (1, 3)),
        *(product("laplace", dim, _power(1.0), "a kink at zero") for dim in (2, 30)),
        product("logistic", 5, LOGISTIC, "exponential tails"),
        product("gamma0.01", 1, _gamma(0.01, 0.01), "piles up at zero"),
        product("gamma0.1", 2, _gamma(0.1, 1.0), "piles up at zero"),
        *(product(f"lognormal{s:g}", 2, _lognormal(s), "positive") for s in (0.5, 2.0)),
        product("inverse-gamma", 2, INVERSE_GAMMA, "positive, a heavy tail"),
        product("log-gamma", 3, LOG_GAMMA, "one long side"),
        product("beta0.05", 2, _beta(0.05), "mass nearer to one than floats go"),
        product("beta0.5", 3, _beta(0.5), "piles up at both bounds"),
        *(product("power0.5", dim, _power(0.5), "a cusp, long tails") for dim in (1, 2, 3)),
        *(
            product(f"power0.5-scale{scale:g}", dim, _scaled(_power(0.5), scale), "a cusp")
            for scale, dim in ((1e3, 1), (1e3, 2), (1e-3, 2))
        ),
        product("power4", 2, _power(4.0), "lighter tails than a Gaussian's"),
        product("skew-normal10", 2, _skew_normal(10.0), "nearly half a Gaussian"),
    ]
