"""What a posterior has and a mixture lacks: modes, and parts far out.

Draws of a mixture cannot show what it never visits, so the searches start elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from amfvi.comparison import Comparison
from amfvi.log_density import UnconstrainedDensity
from amfvi.mixture import Mixture
from amfvi.sampler.optima import Optimum, find_optima
from amfvi.sampler.replicas import PosteriorSample
from amfvi.sampler.start import around, scattered
from amfvi.weighting import effective_sample_size

__all__ = ["Missed", "MissedMode", "missed_by", "missed_far_out"]

WORTH_FINDING = 0.01  # of the whole mass
LEAST = math.log(WORTH_FINDING) - 3.0  # by Laplace's approximation, to be looked at
MISSING = math.log(20.0)  # q below p by this lacks what is there
SCATTERED, STARTS = 64, 4  # fresh points, and optimisations a round
MOST_ROUNDS = 3
PROBES = 1000  # draws that measure the mass around an optimum, or far out
SEVERAL = 5.0  # draws' worth of evidence that a missing share must rest on
AGAIN = 10  # times as many draws where it rests on fewer
FARTHEST = 300.0  # how many times wider than the mixture is looked at
SHAPE_DRAWS = 2000  # draws of the mixture that say where far out is


@dataclass(frozen=True)
class MissedMode:
    """An optimum whose surroundings the mixture lacks.

    Attributes:
        optimum: in unconstrained space.
        x: there, in the user's parameters, (d,).
        share: of the whole mass that was found around it.
    """

    optimum: Optimum
    x: Tensor
    share: float


@dataclass(frozen=True)
class Missed:
    """What a mixture lacks.

    Attributes:
        modes: each with a share of the mass worth a word.
        far_out: share of the mass that lies far out, in tails or otherwise; 0 if that is
            not worth a word.
        searched: whether anybody looked.
    """

    modes: tuple[MissedMode, ...] = ()
    far_out: float = 0.0
    searched: bool = True


def missed_by(
    mixture: Mixture,
    density: UnconstrainedDensity,
    comparison: Comparison,
    sample: PosteriorSample,
    generator: torch.Generator,
) -> Missed:
    """Modes and parts far out that have mass and that the mixture lacks.

    Optimisation starts from fresh points, and from the densest of all points seen that
    neither the mixture nor the optima found explain: those that the sampler passed on its
    way, for a mode may be lost between two temperatures when few particles were in it,
    the draws of the mixture and those far out.

    Raises:
        OutOfBudgetError: there are not enough calls left.
    """
    log_z = comparison.importance.log_z.mean
    far_out = _far_out(mixture, density, log_z, generator)
    drawn = density.density.support.to_unconstrained(comparison.x)[0]
    usable = drawn.isfinite().all(dim=1)
    y = torch.cat([sample.trail, far_out.y, drawn[usable]])
    log_q = _log_q(mixture, density, y)
    log_p = torch.cat([sample.trail_log_p, far_out.log_p])
    log_p = torch.cat([log_p, comparison.log_weights[usable] + log_q[len(log_p) :]])
    densest = log_p.argsort(descending=True)
    y, excess = y[densest], (log_p - log_z - log_q)[densest]

    fresh = scattered(density, generator, SCATTERED)[0][:STARTS]
    optima = find_optima(density, fresh)
    for _ in range(MOST_ROUNDS - 1):
        unexplained = excess > MISSING
        if optima:
            near = around(optima, density.dim, broad=False).start().log_prob(y)
            unexplained &= (log_p - log_z)[densest] - near > MISSING
        known = len(optima)
        optima = find_optima(density, y[unexplained][:STARTS], optima)
        if len(optima) == known:
            break
    modes = [_missed(optimum, mixture, density, log_z, generator) for optimum in optima]
    return Missed(tuple(one for one in modes if one.share > WORTH_FINDING), far_out.share)


def missed_far_out(
    mixture: Mixture, density: UnconstrainedDensity, log_z: float, generator: torch.Generator
) -> float:
    """The share of the mass far out alone, as in ``Missed``.

    Raises:
        OutOfBudgetError: there are not enough calls left.
    """
    return _far_out(mixture, density, log_z, generator).share


@dataclass(frozen=True)
class _Probe:
    """Points (k, free), their log densities (k,), and the share of the mass they found."""

    y: Tensor
    log_p: Tensor
    share: float


def _far_out(
    mixture: Mixture, density: UnconstrainedDensity, log_z: float, generator: torch.Generator
) -> _Probe:
    """By a Cauchy distribution of the mixture's location and shape."""
    draws = mixture.sample((SHAPE_DRAWS,), generator)
    y = density.density.support.to_unconstrained(draws)[0]
    y = y[y.isfinite().all(dim=1)]
    centre = y.median(dim=0).values
    spread = (y - centre).abs().median(dim=0).values.clamp(min=1e-300)
    standard = ((y - centre) / spread).clamp(-5, 5)  # a runaway draw is no part of the shape
    shape = standard.T @ standard / len(standard)
    jitter = 1e-9 * torch.eye(len(centre), dtype=torch.float64)
    factor = spread[:, None] * torch.linalg.cholesky(shape + jitter)
    largest = FARTHEST**2 * float(draws.abs().quantile(0.99))
    return _probe(centre, factor, 1.0, largest, mixture, density, log_z, generator)


def _missed(
    optimum: Optimum,
    mixture: Mixture,
    density: UnconstrainedDensity,
    log_z: float,
    generator: torch.Generator,
) -> MissedMode:
    """Share 0 where the mixture has the optimum, or where there is next to nothing."""
    point = optimum.point[None]
    x = density.density.support.from_unconstrained(point)
    log_q = float(_log_q(mixture, density, point)[0])
    share = 0.0
    if optimum.log_density - log_z - log_q >= MISSING and optimum.log_mass - log_z >= LEAST:
        factor = torch.linalg.cholesky(optimum.covariance)
        share = _probe(
            optimum.point, factor, math.inf, math.inf, mixture, density, log_z, generator
        ).share
    return MissedMode(optimum, x[0], share)


def _log_q(mixture: Mixture, density: UnconstrainedDensity, y: Tensor) -> Tensor:
    """The mixture's log density at points (n, free) of unconstrained space, (n,)."""
    x, log_det = density.density.support.from_unconstrained_with_log_det(y)
    return mixture.log_prob(x) + log_det


def _probe(
    centre: Tensor,
    factor: Tensor,
    freedom: float,
    largest: float,
    mixture: Mixture,
    density: UnconstrainedDensity,
    log_z: float,
    generator: torch.Generator,
) -> _Probe:
    """What a proposal finds where the mixture has next to nothing.

    By importance sampling from a Gaussian, or a Student-t of ``freedom`` degrees, with
    this centre (d,) and factor (d, d), up to parameters of size ``largest``. A spike may
    be high and hold nothing.
    """
    d = len(centre)
    level = -factor.diagonal().log().sum()

    def probed(n: int) -> tuple[Tensor, Tensor, Tensor]:
        """Points, their log densities, and what each says of the missing share, n times."""
        noise = torch.randn(n, d, generator=generator, dtype=torch.float64)
        if math.isinf(freedom):
            log_g = level - 0.5 * (noise.square().sum(dim=1) + d * math.log(2 * math.pi))
        else:
            normals = torch.randn(n, round(freedom), generator=generator, dtype=torch.float64)
            noise = noise * (freedom / normals.square().sum(dim=1, keepdim=True)).sqrt()
            log_g = level + math.lgamma((freedom + d) / 2) - math.lgamma(freedom / 2)
            log_g = log_g - 0.5 * d * math.log(freedom * math.pi)
            squared = noise.square().sum(dim=1) / freedom
            log_g = log_g - 0.5 * (freedom + d) * torch.log1p(squared)
        y = centre + noise @ factor.T
        x = density.density.support.from_unconstrained(y)
        # Where exponentials of far points overflow, nothing can be said of a density.
        sane = (noise.abs() <= FARTHEST).all(dim=1) & (x.abs() <= largest).all(dim=1)
        y, log_g = y[sane], log_g[sane]
        log_p = density.log_prob(y)
        missing = log_p - log_z - _log_q(mixture, density, y) > MISSING
        return y, log_p, torch.where(missing, (log_p - log_z - log_g).exp(), 0.0)

    n = PROBES
    y, log_p, mass = probed(n)
    if mass.sum() > WORTH_FINDING * n and effective_sample_size(mass) < SEVERAL:
        again = probed(AGAIN * n)
        y, log_p, mass = (torch.cat(pair) for pair in zip((y, log_p, mass), again, strict=True))
        n += AGAIN * n
    share = float(mass.sum()) / n
    return _Probe(y, log_p, share if share > WORTH_FINDING else 0.0)
