"""Two independent runs of the sampler from one reference, each a check on the other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from amfvi.constraints.tails import PERHAPS_HEAVY, TailCompression
from amfvi.density.budget import OutOfBudgetError
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.errors import InputError
from amfvi.randomness import generator_for
from amfvi.reporting import Reporter
from amfvi.sampler.checkpoint import SamplerCheckpoint
from amfvi.sampler.integrability import NotIntegrableError, require_decay
from amfvi.sampler.reference import ReferenceDistribution, find_reference
from amfvi.sampler.resolution import is_far_out, is_resolved
from amfvi.sampler.schedule import HIGH_DIM
from amfvi.sampler.tempering import TemperedSample, temper
from amfvi.statistics import Estimate

__all__ = ["PosteriorSample", "sample_posterior"]

N_RUNS = 2
"""Independent runs of the sampler."""

MAX_LOST_SHARE = 0.5
"""Share of the draws that may be beyond the floating-point numbers before that is an error."""

MAX_FAR_OUT_SHARE = 0.01
"""Share of the draws that may be near the largest of these numbers before that is an error."""

PARTICLES = 2_000
"""Particles of a run up to ``HIGH_DIM`` dimensions."""

PARTICLES_IN_HIGH_DIM = 4_000
"""Particles of a run above ``HIGH_DIM`` dimensions."""


@dataclass(frozen=True, kw_only=True)
class PosteriorSample:
    """Draws of a posterior from all runs, with what the runs say about each other.

    Attributes:
        x: in the user's parameters, (n, d), run after run and chain after chain.
        sample_weight: importance weights, 1 on average, (n,), or None.
        run: number of the run that each draw is from, (n,).
        log_z: log normalizing constant over the runs, nats.
        log_z_of_runs: the same of each run alone.
        max_mean_discrepancy_in_sd: largest distance between the runs' means of an
            unconstrained coordinate, in its standard deviations; NaN for one run.
        unresolved_share: share of the draws that are nearer to a bound than floating-point
            numbers resolve, which is where an improper prior such as 1/x puts them.
        reference: description of the distribution from which the runs started.
        n_temperatures: values of β after 0, in the longest run.
        history: points in unconstrained space that the runs passed before their draws,
            (k, m).
        history_log_p: the log densities there, (k,), nats.
        stopped_by: the limit that ended a run early, and where; else None.
        is_given: whether the draws are the user's, of any sampler.

    Examples:
        >>> from amfvi.density.log_density import LogDensity
        >>> normal = LogDensity(lambda x: -0.5 * x.square().sum(1), 1, box=(-9, 9))
        >>> sample = sample_posterior(UnconstrainedDensity(normal), 1000, seed=0)
        >>> sample.reference, sample.stopped_by
        ('the box', None)
    """

    x: Tensor
    sample_weight: Tensor | None
    run: Tensor
    log_z: Estimate
    log_z_of_runs: tuple[Estimate, ...]
    max_mean_discrepancy_in_sd: float
    unresolved_share: float = 0.0
    reference: str
    n_temperatures: int
    history: Tensor
    history_log_p: Tensor
    stopped_by: str | None
    is_given: bool = False

    @property
    def origin(self) -> str:
        """Whose draws they are, in words."""
        return "the given draws" if self.is_given else "the sampler"


def sample_posterior(
    density: UnconstrainedDensity,
    n_draws: int,
    *,
    seed: int,
    reference: ReferenceDistribution | None = None,
    particle_multiplier: int = 1,
    stream_name: str = "sampler",
    reporter: Reporter | None = None,
    checkpoint: SamplerCheckpoint | None = None,
) -> PosteriorSample:
    """Draw about ``n_draws`` points of a posterior by independent runs of the sampler.

    Args:
        reference: where tempering starts; by default the user's prior or box, else wide
            Gaussians around the modes that a search finds.
        particle_multiplier: factor of the usual number of particles.
        stream_name: calls with different names use independent random numbers, and
            separate entries of a checkpoint.
        reporter: told how far the sampler is.
        checkpoint: from which runs are continued, and to which they are saved.

    Raises:
        NotIntegrableError: the density does not fall off.
        InputError: the density is −∞ at every point tried, or broken.
        OutOfBudgetError: a limit was reached before there was a single draw.

    Examples:
        >>> from amfvi.density.log_density import LogDensity
        >>> normal = LogDensity(lambda x: -0.5 * x.square().sum(1), 1)
        >>> sample = sample_posterior(UnconstrainedDensity(normal), 1000, seed=0)
        >>> abs(sample.log_z.mean - 0.919) < 0.2  # ½ log 2π
        True
    """
    if reference is None:
        generator = generator_for(seed, stream_name, "start")
        with _diagnose_overflow(density):
            reference = find_reference(density, generator, checkpoint)
    n_particles = PARTICLES if density.dim <= HIGH_DIM else PARTICLES_IN_HIGH_DIM
    runs: list[TemperedSample] = []
    stopped_by = None
    for number in range(N_RUNS):
        try:
            with _diagnose_overflow(density):
                run = temper(
                    reference,
                    density,
                    n_particles=particle_multiplier * n_particles,
                    n_draws=math.ceil(n_draws / N_RUNS),
                    generator=generator_for(seed, stream_name, number),
                    reporter=reporter,
                    checkpoint=checkpoint,
                    run_name=f"{stream_name} {number}",
                )
            runs.append(run)
        except OutOfBudgetError as error:
            stopped_by = f"{error} before run {number + 1}"
            if not runs:
                raise
    return _combine(density, reference, runs, stopped_by)


@contextmanager
def _diagnose_overflow(density: UnconstrainedDensity) -> Iterator[None]:
    """Look whether an error of a density is the end of a growth without limit.

    Raises:
        NotIntegrableError: it is; else the error itself.
    """
    try:
        yield
    except NotIntegrableError:
        raise
    except InputError as error:
        # The points seen so far are not at hand: any other one will do.
        generator = torch.Generator().manual_seed(0)
        point = torch.randn(1, density.dim, generator=generator, dtype=torch.float64)
        try:
            require_decay(density, point, torch.zeros(1))
        except NotIntegrableError as growth:
            raise growth from error
        except OutOfBudgetError:
            raise error from None
        raise


def _combine(
    density: UnconstrainedDensity,
    reference: ReferenceDistribution,
    runs: list[TemperedSample],
    stopped_by: str | None,
) -> PosteriorSample:
    """Join the runs that reached β = 1, or all of them if none did."""
    complete = [run for run in runs if run.stopped_by is None]
    used = complete or runs
    estimates = tuple(Estimate(run.log_z, run.log_z_se) for run in used)
    reasons = [run.stopped_by for run in runs if run.stopped_by is not None]
    reasons += [] if stopped_by is None else [stopped_by]
    y = torch.cat([run.y for run in used])
    _require_within_numbers(density, y)
    return PosteriorSample(
        x=density.transform.from_unconstrained(y),
        sample_weight=None if complete else torch.cat([_weights(run) for run in used]),
        run=torch.cat([torch.full((len(run.y),), i) for i, run in enumerate(used)]),
        log_z=_mean_log_z(estimates),
        log_z_of_runs=estimates,
        max_mean_discrepancy_in_sd=_max_mean_discrepancy(used),
        unresolved_share=float((~is_resolved(density.transform, y)).double().mean()),
        reference=reference.description,
        n_temperatures=max(len(run.betas) - 1 for run in used),
        history=torch.cat([run.history for run in runs]),
        history_log_p=torch.cat([run.history_log_p for run in runs]),
        stopped_by=reasons[0] if reasons else None,
    )


def _require_within_numbers(density: UnconstrainedDensity, y: Tensor) -> None:
    """Require that most draws (n, m) are where floating-point numbers can tell them apart.

    Raises:
        NotIntegrableError: they are at a bound or at the end of the numbers.
    """
    x = density.transform.from_unconstrained(y)
    lost = ~is_resolved(density.transform, y) | ~x.isfinite().all(dim=1)
    far_out = is_far_out(density, x)
    for are, largest_share in ((lost | far_out, MAX_LOST_SHARE), (far_out, MAX_FAR_OUT_SHARE)):
        share = float(are.double().mean())
        if share > largest_share:
            raise NotIntegrableError(
                f"{share:.0%} of the draws run to a bound or to the end of the floating-point "
                f"numbers ({density.describe(x[are.nonzero()[0, 0]])}), so the density cannot be "
                "integrated there; is every prior proper, and is the sign right?"
            )


def _weights(run: TemperedSample) -> Tensor:
    if run.sample_weight is None:
        return torch.ones(len(run.y), dtype=torch.float64)
    return run.sample_weight.double()


def _mean_log_z(estimates: tuple[Estimate, ...]) -> Estimate:
    """Log of the mean Z, with the larger of the claimed and the observed standard error."""
    log_z = torch.tensor([estimate.mean for estimate in estimates], dtype=torch.float64)
    claimed = math.sqrt(sum(estimate.se**2 for estimate in estimates)) / len(estimates)
    observed = float(log_z.std()) / math.sqrt(len(log_z)) if len(log_z) > 1 else 0.0
    return Estimate(float(log_z.logsumexp(dim=0)) - math.log(len(log_z)), max(claimed, observed))


def _max_mean_discrepancy(runs: list[TemperedSample]) -> float:
    """Heavy tails, whose means say little, are compressed first."""
    if len(runs) < 2:
        return math.nan
    compression = TailCompression.fit(torch.cat([run.y for run in runs]), PERHAPS_HEAVY)
    clouds = [compression.compress(run.y)[0] for run in runs]
    means = torch.stack([cloud.mean(dim=0) for cloud in clouds])
    sd = torch.cat(clouds).std(dim=0).clamp(min=1e-300)
    return float(((means.max(dim=0).values - means.min(dim=0).values) / sd).max())
