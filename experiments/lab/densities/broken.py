"""Log densities without an answer, and those whose gradients are wrong.

Improper ones have no integral, random ones no value: a fit is to be refused or not trusted.
With a wrong gradient the integral exists, and comes out right or is not trusted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from experiments.lab.densities.curved import CurvedGaussian
from experiments.lab.densities.gaussians import Gaussian
from experiments.lab.densities.known import KnownDensity

__all__ = ["improper_densities", "random_densities", "wrong_gradient_densities"]

LogDensity = Callable[[Tensor], Tensor]
"""From points (n, d) to (n,), nats."""

OBSERVED = (1.3, -0.4, 2.2)
"""Observations of the improper posteriors."""

RARE = 200
"""One in so many calls, or points, is noisy where noise is rare."""

FAR = 2.0
"""Distance from the origin beyond which distant noise sets in."""


def _without_answer(
    name: str,
    family: str,
    dim: int,
    log_density: LogDensity,
    source: str,
    **others: Any,
) -> KnownDensity:
    return KnownDensity(
        name=f"{name}-d{dim}",
        family=family,
        dim=dim,
        log_density=log_density,
        log_z=None,
        sample=None,
        source=source,
        **others,
    )


def _improper_scale(x: Tensor) -> Tensor:
    """1/τ, times a likelihood that is bounded where τ is 0."""
    variance = 1 + x[:, 0].square()
    return -x[:, 0].log() - 0.5 * variance.log() - 0.5 * OBSERVED[0] ** 2 / variance


def _improper_hierarchy(x: Tensor) -> Tensor:
    """μ ~ N(0, 3²), y ~ N(μ, 1 + τ²) and 1/τ."""
    mu, tau = x.unbind(dim=1)
    variance = 1 + tau.square()
    square = (x.new_tensor(OBSERVED) - mu[:, None]).square().sum(dim=1)
    likelihood = -0.5 * (len(OBSERVED) * variance.log() + square / variance)
    return likelihood - 0.5 * (mu / 3).square() - tau.log()


def improper_densities() -> list[KnownDensity]:
    """List the densities whose integral is infinite."""
    positive: dict[str, Any] = {"constraints": [constraints.positive]}
    second: dict[str, Any] = {"constraints": [constraints.real, constraints.positive]}
    both: dict[str, Any] = {"constraints": [constraints.positive] * 2}
    cases: list[tuple[str, int, LogDensity, str, dict[str, Any]]] = [
        ("scale-prior", 1, _improper_scale, "1/τ at zero", positive),
        ("scale-prior", 2, _improper_hierarchy, "1/τ at zero", second),
        ("reciprocal", 1, lambda x: -x[:, 0].log(), "1/x, both ends", positive),
        ("gamma0", 2, lambda x: -(x.log() + x).sum(dim=1), "exp(−x)/x", both),
        ("pole-square", 1, lambda x: -2 * x[:, 0].log() - x[:, 0], "x⁻² at zero", positive),
        ("pole-inside", 1, lambda x: -(x.abs().log() + x.square()).sum(dim=1), "1/|x|", {}),
        ("flat", 2, lambda x: -0.5 * x[:, 0].square(), "no dependence on x₂", {}),
        (
            "unidentified", 3,
            lambda x: -0.5 * ((x[:, 0] + x[:, 1]).square() + x[:, 2].square()),
            "only the sum of two parameters matters", {},
        ),
        ("forgotten-minus", 1, lambda x: 0.5 * x[:, 0].square(), "+½x²", {}),
        ("forgotten-minus", 3, lambda x: 0.5 * x.square().sum(dim=1), "+½|x|²", {}),
        ("saddle", 2, lambda x: 0.5 * (x[:, 0].square() - x[:, 1].square()), "one sign wrong", {}),
        ("growing", 2, lambda x: x[:, 0] - 0.5 * x[:, 1].square(), "exp(x₁)", {}),
        ("growing-both", 1, lambda x: x.abs().sum(dim=1), "exp(|x|)", {}),
        ("root-cauchy", 1, lambda x: -0.5 * x.square().log1p().sum(dim=1), "∝ 1/|x|", {}),
        ("root-cauchy", 3, lambda x: -0.5 * x.square().log1p().sum(dim=1), "∝ 1/|x|", {}),
        ("radial-tail", 3, lambda x: -1.5 * x.square().sum(dim=1).log1p(), "∝ |x|⁻³", {}),
    ]  # fmt: skip
    return [
        _without_answer(name, "improper", dim, log_density, source, **others)
        for name, dim, log_density, source, others in cases
    ]


def _normal(x: Tensor) -> Tensor:
    return -0.5 * x.square().sum(dim=1)


def _noisy(sd: float) -> LogDensity:
    """A standard normal plus noise at every point and call."""
    generator = torch.Generator().manual_seed(0)

    def log_density(x: Tensor) -> Tensor:
        return _normal(x) + sd * torch.randn(len(x), generator=generator, dtype=x.dtype)

    return log_density


def _noisy_calls() -> LogDensity:
    """The same in one of many calls."""
    generator = torch.Generator().manual_seed(0)

    def log_density(x: Tensor) -> Tensor:
        noise = torch.randn(len(x), generator=generator, dtype=x.dtype)
        rare = bool(torch.randint(RARE, (1,), generator=generator) == 0)
        return _normal(x) + 0.5 * noise if rare else _normal(x)

    return log_density


def _noisy_points() -> LogDensity:
    """The same at one of many points, and larger."""
    generator = torch.Generator().manual_seed(0)

    def log_density(x: Tensor) -> Tensor:
        noise = 3 * torch.randn(len(x), generator=generator, dtype=x.dtype)
        rare = torch.randint(RARE, (len(x),), generator=generator) == 0
        return _normal(x) + torch.where(rare, noise, 0.0)

    return log_density


def _noisy_far() -> LogDensity:
    """The same at a distance from the origin, where 13% of the mass is."""
    generator = torch.Generator().manual_seed(0)

    def log_density(x: Tensor) -> Tensor:
        noise = 0.5 * torch.randn(len(x), generator=generator, dtype=x.dtype)
        return _normal(x) + torch.where(x.norm(dim=1) > FAR, noise, 0.0)

    return log_density


def _drifting() -> LogDensity:
    """A constant that grows with every call."""
    calls = 0

    def log_density(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return _normal(x) + 0.01 * calls

    return log_density


def _of_batch(x: Tensor) -> Tensor:
    """A value that depends on the mean of the batch."""
    return _normal(x - 0.5 * x.mean(dim=0))


def _half_of_batch(x: Tensor) -> Tensor:
    """A value that depends on the place in the batch: every second point is .3 nats higher."""
    return _normal(x) + 0.3 * (torch.arange(len(x)) % 2)


def _undefined(x: Tensor) -> Tensor:
    """NaN on one side of x₁ = 1.5."""
    return _normal(x).where(x[:, 0] < 1.5, math.nan)


def random_densities() -> list[KnownDensity]:
    """List the densities whose value is no function of the point, or undefined at some."""
    made: list[tuple[str, Callable[[], LogDensity], str]] = [
        ("noise0.5", lambda: _noisy(0.5), "noise of sd .5"),
        ("noise0.05", lambda: _noisy(0.05), "noise of sd .05"),
        ("noise1", lambda: _noisy(1.0), "noise of sd 1"),
        ("noise-rare-calls", _noisy_calls, f"noise of sd .5 in one of {RARE} calls"),
        ("noise-rare-points", _noisy_points, f"noise of sd 3 at one of {RARE} points"),
        ("noise-far", _noisy_far, f"noise of sd .5 beyond a distance of {FAR:g}"),
        ("drifting", _drifting, "grows by .01 with every call"),
    ]
    noisy = [
        _without_answer(name, "random", 2, make(), source, fresh=make)
        for name, make, source in made
    ]
    return [
        *noisy,
        noisy[0].without_gradients(),
        noisy[3].without_gradients(),
        _without_answer("of-batch-mean", "random", 2, _of_batch, "depends on the batch's mean"),
        _without_answer("of-batch-place", "random", 2, _half_of_batch, "depends on the place"),
        _without_answer("undefined", "random", 2, _undefined, "NaN for 7% of the mass"),
    ]


class _WrongGradient(torch.autograd.Function):
    """The identity, with a gradient that is multiplied by a factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.factor * gradients[0], None


def wrong_gradient_densities() -> list[KnownDensity]:
    """List right densities with a wrong gradient."""
    place = torch.arange(3, dtype=torch.float64)
    covariance = 0.8 ** (place[:, None] - place).abs()
    normal = Gaussian(
        mean=torch.ones(3, dtype=torch.float64), factor=torch.linalg.cholesky(covariance)
    )
    bent = CurvedGaussian(shape="quadratic", dim=2, bend=0.3, width=0.5, scale=2.0)

    def passing(change: Callable[[Tensor], Tensor], of: Gaussian | CurvedGaussian) -> LogDensity:
        return lambda x: of.formula(change(x), torch)

    def scaled(factor: float) -> Callable[[Tensor], Tensor]:
        apply: Any = _WrongGradient.apply
        return lambda x: apply(x, factor)

    def first_only(x: Tensor) -> Tensor:
        return torch.cat([x[:, :1], x[:, 1:].detach()], dim=1)

    def prior_only(x: Tensor) -> Tensor:
        prior = -0.5 * x.square().sum(dim=1)
        return prior + (normal.formula(x, torch) - prior).detach()

    cases: list[tuple[str, LogDensity, Gaussian | CurvedGaussian, str]] = [
        ("gradient-half", passing(scaled(0.5), normal), normal, "multiplied by .5"),
        ("gradient-ten", passing(scaled(10.0), normal), normal, "multiplied by 10"),
        ("gradient-negative", passing(scaled(-1.0), normal), normal, "of the wrong sign"),
        ("gradient-zero", passing(scaled(0.0), normal), normal, "zero"),
        ("gradient-first-only", passing(first_only, normal), normal, "detached but for x₁"),
        ("gradient-prior-only", prior_only, normal, "of the prior, the likelihood detached"),
        ("gradient-negative-bent", passing(scaled(-1.0), bent), bent, "of the wrong sign"),
        ("gradient-first-only-bent", passing(first_only, bent), bent, "detached but for x₁"),
    ]
    single = CurvedGaussian(shape="wavy", dim=2, bend=0.3, width=0.5, scale=2.0)
    return [
        *(
            KnownDensity(
                name=f"{name}-d{3 if of is normal else 2}",
                family="wrong-gradients",
                dim=3 if of is normal else 2,
                log_density=log_density,
                log_z=of.log_z,
                sample=of.sample,
                source=f"gradient {source}",
            )
            for name, log_density, of, source in cases
        ),
        KnownDensity(
            name="single-precision-d2",
            family="wrong-gradients",
            dim=2,
            log_density=lambda x: single.formula(x.float().double(), torch).float(),
            log_z=single.log_z,
            sample=single.sample,
            source="points and values rounded to single precision",
        ),
    ]
