"""Two runs of the sampler from one start, so that each can contradict the other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from amfvi.log_density import OutOfBudgetError, UnconstrainedDensity
from amfvi.metrics.likelihood import Estimate
from amfvi.randomness import stream
from amfvi.sampler.checkpoint import SamplerCheckpoint
from amfvi.sampler.kernels import HIGH_DIM
from amfvi.sampler.start import Start, start_at
from amfvi.sampler.tempering import Sample, SamplerProgress, temper

__all__ = ["PosteriorSample", "sample_posterior"]

REPLICAS = 2
PARTICLES, PARTICLES_IN_HIGH_DIM = 2_000, 4_000


@dataclass(frozen=True)
class PosteriorSample:
    """Draws of a posterior from all runs, and what they say about themselves.

    Attributes:
        x: in the user's parameters, (n, d), run after run and chain after chain.
        weight: importance weights, 1 on average, or None.
        run: which run each draw is from, (n,).
        log_z: of the normalising constant, over the runs, nats.
        log_z_of_runs: of each run alone.
        disagreement: largest distance between the runs' means of an unconstrained
            coordinate, in its standard deviations.
        start: where the sampler started, in words.
        temperatures: how many, of the longest run.
        trail, trail_log_p: points in unconstrained space that the runs passed before their
            draws, (k, free), and the log densities there, (k,).
        stopped_by: what ended a run early, or None.
    """

    x: Tensor
    weight: Tensor | None
    run: Tensor
    log_z: Estimate
    log_z_of_runs: tuple[Estimate, ...]
    disagreement: float
    start: str
    temperatures: int
    trail: Tensor
    trail_log_p: Tensor
    stopped_by: str | None


def sample_posterior(
    density: UnconstrainedDensity,
    draws: int,
    *,
    seed: int,
    start: Start | None = None,
    effort: int = 1,
    purpose: str = "sampler",
    progress: SamplerProgress | None = None,
    checkpoint: SamplerCheckpoint | None = None,
) -> PosteriorSample:
    """About ``draws`` draws of the posterior from independent runs of the sampler.

    Args:
        start: where to start; by default the user's prior or box, or found by optimisation.
        effort: times as many particles as usual.
        purpose: sets the random streams of one call apart from those of another.
        checkpoint: where to go on from, and to save to.

    Raises:
        InputError: the density is −∞ wherever the sampler started, or broken.
        OutOfBudgetError: before there was a single draw.
    """
    if start is None:
        start = start_at(density, stream(seed, purpose, "start"), checkpoint)
    particles = effort * (PARTICLES if density.dim <= HIGH_DIM else PARTICLES_IN_HIGH_DIM)
    runs: list[Sample] = []
    stopped_by = None
    for number in range(REPLICAS):
        try:
            runs.append(
                temper(
                    start,
                    density,
                    particles=particles,
                    draws=math.ceil(draws / REPLICAS),
                    generator=stream(seed, purpose, number),
                    progress=progress,
                    checkpoint=checkpoint,
                    name=f"{purpose} {number}",
                )
            )
        except OutOfBudgetError as error:
            stopped_by = f"{error} before run {number + 1}"
            if not runs:
                raise
    return _combined(density, start, runs, stopped_by)


def _combined(
    density: UnconstrainedDensity, start: Start, runs: list[Sample], stopped_by: str | None
) -> PosteriorSample:
    # A run that did not arrive is worth little beside one that did.
    arrived = [one for one in runs if one.stopped_by is None]
    used = arrived or runs
    y = torch.cat([one.y for one in used])
    weights = [torch.ones(len(one.y)) if one.weight is None else one.weight for one in used]
    estimates = tuple(Estimate(one.log_z, one.log_z_se) for one in used)
    reasons = [one.stopped_by for one in runs if one.stopped_by is not None]
    return PosteriorSample(
        x=density.density.support.from_unconstrained(y),
        weight=None if arrived else torch.cat(weights).double(),
        run=torch.cat([torch.full((len(one.y),), i) for i, one in enumerate(used)]),
        log_z=_mean(estimates),
        log_z_of_runs=estimates,
        disagreement=_disagreement(used),
        start=start.words,
        temperatures=max(len(one.betas) - 1 for one in used),
        trail=torch.cat([one.trail for one in runs]),
        trail_log_p=torch.cat([one.trail_log_p for one in runs]),
        stopped_by=stopped_by or (reasons[0] if reasons else None),
    )


def _mean(estimates: tuple[Estimate, ...]) -> Estimate:
    """The mean of Z over the runs, with the error they claim or show, whichever is larger."""
    values = torch.tensor([e.mean for e in estimates], dtype=torch.float64)
    claimed = math.sqrt(sum(e.se**2 for e in estimates)) / len(estimates)
    shown = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return Estimate(float(values.logsumexp(dim=0)) - math.log(len(values)), max(claimed, shown))


def _disagreement(runs: list[Sample]) -> float:
    if len(runs) < 2:
        return math.nan
    means = torch.stack([one.y.mean(dim=0) for one in runs])
    sd = torch.cat([one.y for one in runs]).std(dim=0).clamp(min=1e-300)
    return float(((means.max(dim=0).values - means.min(dim=0).values) / sd).max())
