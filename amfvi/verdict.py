"""Whether a mixture may stand for a posterior: measured, then judged, with reasons."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from amfvi.diagnostics import DO_NOT_TRUST, TRUST, USE_WITH_WEIGHTS, Diagnostics
from amfvi.importance import Importance, khat_threshold
from amfvi.log_density import OutOfBudgetError, UnconstrainedDensity
from amfvi.metrics.likelihood import Estimate
from amfvi.mixture import Mixture
from amfvi.sampler.optima import find_optima
from amfvi.sampler.replicas import PosteriorSample
from amfvi.split import Split

__all__ = ["Comparison", "compared", "judged", "lacking"]

GOOD_EFFICIENCY = 0.5  # of the mixture's own draws, above which they need no weights
SAME_LOG_Z = 0.1  # nats that two estimates may differ whatever errors they claim
SAME_RUNS = 0.5  # nats that two runs' log Z, or a bound and log Z, may differ
SAME_MEANS = 0.2  # standard deviations that two runs' means may differ
WORTH_FINDING = 0.01  # of the whole mass
LEAST = math.log(WORTH_FINDING) - 3.0  # by Laplace's approximation, to be looked at
PROBES = 1000  # draws that measure the mass around an optimum, or far out
FARTHEST = 300.0  # how many times wider than the mixture is looked at
SHAPE_DRAWS = 2000  # draws of the mixture that say where far out is
MISSING = math.log(20.0)  # q below p by this at an optimum lacks it


@dataclass(frozen=True)
class Comparison:
    """A mixture against the density it was fitted to, at its own draws."""

    importance: Importance
    log_weights: Tensor
    x: Tensor


def compared(
    mixture: Mixture,
    density: UnconstrainedDensity,
    draws: int,
    generator: torch.Generator,
    *,
    bound: float | None = None,
) -> Comparison:
    """Importance weights log p̃ − log q at draws of the mixture; that many calls.

    Args:
        bound: k̂ of weights that these are bounded by, if that is known.

    Raises:
        OutOfBudgetError: there are not as many calls left.
    """
    support = density.density.support
    x = mixture.sample((draws,), generator)
    inside = support.contains(x)
    log_p = torch.full((draws,), -math.inf, dtype=torch.float64)
    y, log_det = support.to_unconstrained(x[inside])
    log_p[inside] = density.log_prob(y) + log_det
    log_weights = log_p - mixture.log_prob(x)
    return Comparison(Importance.of(log_weights, bound=bound), log_weights, x)


def lacking(
    mixture: Mixture,
    density: UnconstrainedDensity,
    log_z: float,
    starts: Tensor,
    generator: torch.Generator,
) -> list[str]:
    """Modes and tails of the density with mass that the mixture lacks, each in words.

    Draws of the mixture cannot show what it never visits. Searched are optima, from
    ``starts`` (k, free), and whatever lies far out, by a Cauchy distribution of the
    mixture's location and shape.

    Raises:
        OutOfBudgetError: there are not enough calls left.
    """
    support = density.density.support
    found = []
    for optimum in find_optima(density, starts):
        x, log_det = support.from_unconstrained_with_log_det(optimum.point[None])
        log_q = float(mixture.log_prob(x)[0] + log_det[0])
        if optimum.log_density - log_z - log_q < MISSING or optimum.log_mass - log_z < LEAST:
            continue
        factor = torch.linalg.cholesky(optimum.covariance)
        around = _lacking(
            optimum.point, factor, math.inf, math.inf, mixture, density, log_z, generator
        )
        if around > WORTH_FINDING:
            where = density.density.described(x[0])
            found.append(f"a mode at {where} with about {around:.0%} of the mass")
    draws = mixture.sample((SHAPE_DRAWS,), generator)
    y = support.to_unconstrained(draws)[0]
    y = y[y.isfinite().all(dim=1)]
    centre = y.median(dim=0).values
    spread = (y - centre).abs().median(dim=0).values.clamp(min=1e-300)
    standard = ((y - centre) / spread).clamp(-5, 5)  # a runaway draw is no part of the shape
    shape = standard.T @ standard / len(standard)
    jitter = 1e-9 * torch.eye(len(centre), dtype=torch.float64)
    factor = spread[:, None] * torch.linalg.cholesky(shape + jitter)
    largest = FARTHEST**2 * float(draws.abs().quantile(0.99))
    beyond = _lacking(centre, factor, 1.0, largest, mixture, density, log_z, generator)
    if beyond > WORTH_FINDING:
        found.append(f"tails or parts far out with about {beyond:.0%} of the mass")
    return found


def _lacking(
    centre: Tensor,
    factor: Tensor,
    freedom: float,
    largest: float,
    mixture: Mixture,
    density: UnconstrainedDensity,
    log_z: float,
    generator: torch.Generator,
) -> float:
    """The share of the mass that a proposal finds where the mixture has next to none.

    By importance sampling from a Gaussian, or a Student-t of ``freedom`` degrees, with
    this centre (d,) and factor (d, d), up to parameters of size ``largest``. A spike may
    be high and hold nothing.
    """
    d = len(centre)
    noise = torch.randn(PROBES, d, generator=generator, dtype=torch.float64)
    level = -factor.diagonal().log().sum()
    if math.isinf(freedom):
        log_g = level - 0.5 * (noise.square().sum(dim=1) + d * math.log(2 * math.pi))
    else:
        normals = torch.randn(PROBES, round(freedom), generator=generator, dtype=torch.float64)
        noise = noise * (freedom / normals.square().sum(dim=1, keepdim=True)).sqrt()
        log_g = level + math.lgamma((freedom + d) / 2) - math.lgamma(freedom / 2)
        log_g = log_g - 0.5 * d * math.log(freedom * math.pi)
        log_g = log_g - 0.5 * (freedom + d) * torch.log1p(noise.square().sum(dim=1) / freedom)
    y = centre + noise @ factor.T
    x, log_det = density.density.support.from_unconstrained_with_log_det(y)
    # Where exponentials of far points overflow, nothing can be said of a density.
    sane = (noise.abs() <= FARTHEST).all(dim=1) & (x.abs() <= largest).all(dim=1)
    log_p = density.log_prob(y[sane]) - log_z
    missing = log_p - mixture.log_prob(x[sane]) - log_det[sane] > MISSING
    return float(torch.where(missing, (log_p - log_g[sane]).exp(), 0.0).sum()) / PROBES


def judged(
    comparison: Comparison,
    sample: PosteriorSample,
    split: Split,
    mixture: Mixture,
    density: UnconstrainedDensity,
    missed: list[str],
    *,
    refined: PosteriorSample | None,
) -> Diagnostics:
    """The diagnostics of a fit, verdict included.

    Args:
        sample: of the first sampling, which started broad.
        refined: of the last sampling that started from a mixture, if there was one.
    """
    found, threshold = comparison.importance, khat_threshold(comparison.importance.draws)
    eubo = _eubo(mixture, split, density)
    last = refined or sample
    against: list[str] = []
    if sample.stopped_by is not None:
        against.append(f"the sampler was stopped by {sample.stopped_by}")
    if not found.khat < threshold:
        against.append(
            f"k̂ is {found.khat:.2f}, not below {threshold:.2f}: the posterior has tails or parts "
            "that the mixture covers too thinly for weights to mend (heavy tails? the expert tmm)"
        )
    difference = abs(found.log_z.mean - last.log_z.mean)
    allowed = max(SAME_LOG_Z, 4 * math.hypot(found.log_z.se, last.log_z.se))
    if not difference <= allowed:
        against.append(
            f"log Z is {found.log_z.mean:.3f} by the mixture and {last.log_z.mean:.3f} by the "
            f"sampler, further apart than their errors"
        )
    if len(last.log_z_of_runs) > 1 and last.disagreement > SAME_MEANS:
        against.append(
            f"two runs of the sampler differ by {last.disagreement:.2f} standard deviations "
            "in the mean of a parameter"
        )
    estimates = last.log_z_of_runs
    if len(estimates) > 1:
        apart = abs(estimates[0].mean - estimates[1].mean)
        if apart > max(SAME_RUNS, 4 * math.hypot(estimates[0].se, estimates[1].se)):
            against.append(f"two runs of the sampler differ by {apart:.2f} in log Z")
    if eubo is not None and found.efficiency > 0:
        excess = eubo.mean - found.log_z.mean
        if excess > max(SAME_RUNS, 3 * math.log(1 / found.efficiency)) + 2 * eubo.se:
            against.append(
                f"draws of the sampler put log Z at {eubo.mean:.2f} at most, {excess:.2f} above "
                "what the mixture's own draws give: it lacks parts that they visit"
            )
    against += [f"the mixture lacks {one}" for one in missed]
    scope = (
        f"nothing is known of modes that no start reached (the sampler started from {sample.start})"
    )
    if against:
        verdict, reasons = DO_NOT_TRUST, against
    elif found.efficiency < GOOD_EFFICIENCY:
        verdict = USE_WITH_WEIGHTS
        reasons = [
            f"{found.efficiency:.0%} of the mixture's draws are effective and k̂ is "
            f"{found.khat:.2f}: weighted draws are reliable, plain ones approximate"
        ]
    else:
        verdict = TRUST
        reasons = [f"{found.efficiency:.0%} of its draws are effective, k̂ is {found.khat:.2f}"]
    return Diagnostics(
        verdict=verdict,
        reasons=(*reasons, scope),
        log_z=found.log_z.mean,
        log_z_se=found.log_z.se,
        log_z_sampler=last.log_z.mean,
        log_z_sampler_se=last.log_z.se,
        elbo=found.elbo.mean,
        elbo_se=found.elbo.se,
        eubo=eubo.mean if eubo else None,
        eubo_se=eubo.se if eubo else None,
        ess=found.ess,
        khat=found.khat,
        khat_threshold=threshold,
        draws=found.draws,
        calls=density.budget.spent,
        start=sample.start,
    )


def _eubo(mixture: Mixture, split: Split, density: UnconstrainedDensity) -> Estimate | None:
    """E_p[log p̃ − log q] at test draws of the sampler; None without any, or without calls."""
    if split.test is None:
        return None
    y, log_det = density.density.support.to_unconstrained(split.test)
    try:
        log_p = density.log_prob(y) + log_det
    except OutOfBudgetError:
        return None
    return Estimate.of(log_p - mixture.log_prob(split.test), split.test_weight)
