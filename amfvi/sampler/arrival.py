"""Move on until draws no longer change: a sampler that arrives, or says that it did not."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from amfvi.density.budget import OutOfBudgetError
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.errors import FitError
from amfvi.randomness import generator_for
from amfvi.reporting import Reporter
from amfvi.sampler.latent_walk import walk_in_latent_space
from amfvi.sampler.outer_chains import OuterChains
from amfvi.sampler.reference import ReferenceDistribution
from amfvi.sampler.schedule import HIGH_DIM
from amfvi.sampler.tempering import TemperedSample, temper
from amfvi.sampler.widening import WidenedReference

__all__ = ["Arrival", "arrive", "compare_clouds"]

MIN_ROUNDS = 3
"""Rounds at least, since a slow drift looks like none."""

MAX_ROUNDS = 8
"""Rounds at most."""

N_PARTICLES = 2_000
"""Particles of the sampler in one round up to ``HIGH_DIM`` dimensions."""

N_PARTICLES_IN_HIGH_DIM = 4_000
"""Particles of the sampler in one round above ``HIGH_DIM`` dimensions."""

N_DRAWS = 3_000
"""Draws of the sampler in one round."""

N_CHAINS = 128
"""Chains that walk in latent space in one round."""

WALK_EVALUATIONS = 5_000
"""Evaluations of the density that these chains take."""

N_OUTER_CHAINS = 60
"""Chains that walk where the variance comes from in one round, beyond the farthest draws."""

OUTER_THINNING = 4
"""Steps of these chains from one state that is kept to the next."""

ARRIVED = 0.15
"""Difference of two clouds, in standard deviations, that counts as none."""

QUANTILES = (0.05, 0.5, 0.95)
"""Quantiles that are compared."""


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """Where the rounds ended.

    Attributes:
        y: draws of the last round in unconstrained space: those of the sampler, states of the
            walk, and some far out, (n, d).
        reference: a widened fit to them; None if not a single round was finished.
        change: the largest difference that one of the last two rounds made, in standard
            deviations; infinite after fewer than two.
        rounds: how many were finished.

    Examples:
        >>> arrival = Arrival(y=torch.zeros(1, 2), reference=None, change=0.2, rounds=3)
        >>> arrival.arrived
        False
    """

    y: Tensor
    reference: ReferenceDistribution | None
    change: float
    rounds: int

    @property
    def arrived(self) -> bool:
        """Whether further rounds would change nothing."""
        return self.change < ARRIVED


def arrive(
    density: UnconstrainedDensity,
    y: Tensor,
    *,
    seed: int,
    stream_name: str,
    max_rounds: int = MAX_ROUNDS,
    reserve: int = 0,
    reporter: Reporter | None = None,
) -> Arrival:
    """Move draws on until they no longer change.

    A round fits a flow and Gaussians to the draws, widens them, tempers from there to the
    posterior, and lets chains walk in the latent space of the flow, and others from its farthest
    draws outward. Its draws and their states are what the next round starts from.

    Args:
        y: draws in unconstrained space, (n, d).
        seed, stream_name: of the random numbers.
        reserve: evaluations of a limit that are left for others.
        reporter: told the difference that each round made.

    Raises:
        InputError: the density is broken.

    Examples:
        >>> from amfvi.density.log_density import LogDensity
        >>> density = UnconstrainedDensity(LogDensity(lambda x: -0.5 * x.square().sum(1), 1))
        >>> narrow = 0.3 * torch.randn(500, 1, generator=torch.Generator().manual_seed(0)).double()
        >>> arrival = arrive(density, narrow, seed=0, stream_name="example", max_rounds=3)
        >>> 0.9 < float(arrival.y.std()) < 1.3  # states far out among them
        True
    """
    reference, rounds, previous = None, 0, y
    changes = [math.inf, math.inf]
    while rounds < max_rounds and not _is_settled(changes[2:]):
        if density.budget.left is not None and density.budget.left < reserve:
            break
        try:
            clouds = _move(density, y, generator_for(seed, stream_name, "arrival", rounds))
        except (OutOfBudgetError, FitError):
            break
        if clouds is None:
            break
        run, walked = clouds
        changes.append(compare_clouds(previous, run.y))
        y, previous, rounds = torch.cat([run.y, walked]), run.y, rounds + 1
        if reporter is not None:
            reporter.log(
                f"moved on, round {rounds}: largest change {changes[-1]:.2f} sd, "
                f"log Z {run.log_z:.3f} ± {run.log_z_se:.3f}, {density.budget.spent} evaluations"
            )
    if rounds:
        generator = generator_for(seed, stream_name, "arrival", "reference")
        reference = WidenedReference.fit(y, generator).as_reference()
    return Arrival(y=y, reference=reference, change=max(changes[-2:]), rounds=rounds)


def _is_settled(changes: list[float]) -> bool:
    """Whether further rounds would change nothing, or no longer less."""
    if len(changes) < MIN_ROUNDS:
        return False
    return max(changes[-2:]) < ARRIVED or min(changes[-2:]) >= min(changes[:-2])


def _move(
    density: UnconstrainedDensity, y: Tensor, generator: torch.Generator
) -> tuple[TemperedSample, Tensor] | None:
    """One round: what the sampler returns, and states of the walk; None if it was stopped."""
    in_high_dim = density.dim > HIGH_DIM
    widened = WidenedReference.fit(y, generator)
    run = temper(
        widened.as_reference(),
        density,
        n_particles=N_PARTICLES_IN_HIGH_DIM if in_high_dim else N_PARTICLES,
        n_draws=N_DRAWS,
        generator=generator,
    )
    if run.stopped_by is not None:
        return None
    if widened.compression.is_needed:  # the flow's space is not that of the density
        return run, run.y[:0]
    rows = torch.randperm(len(run.y), generator=generator)[:N_CHAINS]
    walk = walk_in_latent_space(
        density, widened.flow.flow, run.y[rows], WALK_EVALUATIONS, generator
    )
    chains = OuterChains(density, run.y, run.y.new_ones(len(run.y)))
    far_out = [state for state, _ in chains.walk(N_OUTER_CHAINS, generator)]
    return run, torch.cat([walk.y, *far_out[::OUTER_THINNING]])


def compare_clouds(first: Tensor, second: Tensor) -> float:
    """Largest difference between two clouds (n, d) and (m, d), in standard deviations.

    Of means, quantiles and the logarithm of the spread, in each coordinate. The spread is
    that of the clouds clipped at their joint 0.5 and 99.5% quantiles, so that heavy tails
    do not decide.

    Examples:
        >>> cloud = torch.arange(100.0)[:, None].double()
        >>> compare_clouds(cloud, cloud), compare_clouds(cloud, cloud + 29) > 0.5
        (0.0, True)
    """
    joint = torch.cat([first, second])
    low, high = joint.quantile(torch.tensor([0.005, 0.995]).double(), dim=0)
    first, second = first.clamp(low, high), second.clamp(low, high)
    scale = torch.cat([first, second]).std(dim=0).clamp(min=1e-300)
    levels = torch.tensor(QUANTILES, dtype=torch.float64)
    differences = [
        (first.mean(dim=0) - second.mean(dim=0)) / scale,
        *((first.quantile(levels, dim=0) - second.quantile(levels, dim=0)) / scale),
        (first.std(dim=0).clamp(min=1e-300) / second.std(dim=0).clamp(min=1e-300)).log(),
    ]
    return float(torch.stack(differences).abs().max())
