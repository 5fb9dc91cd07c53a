"""Chains that start from a mixture's draws, and whether they leave it.

Chains that leave the posterior invariant stay where a right mixture is. Where they come to
points that are denser than it says, it lacks what is there: the ends of a ridge, for
instance, which no draw of the mixture shows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.diagnostics.comparison import WeightedDraws
from amfvi.diagnostics.thresholds import (
    LOG_UNDETECTED_RATIO,
    MAX_DEPARTURE,
    MAX_OUTSIDE,
    MIN_SHARE,
    SIGNIFICANT,
)
from amfvi.mixture import Mixture
from amfvi.sampler.latent_walk import walk_in_latent_space
from amfvi.statistics import resample
from amfvi.transport import choose_flow

__all__ = ["N_EVALUATIONS", "Departure", "measure_departure"]

N_CHAINS = 128
"""Chains that start from the mixture's draws."""

N_EVALUATIONS = 2_000
"""Evaluations of the density that the chains take, about."""

LARGEST_LOG_RATIO = 20.0
"""Nats at which one state's log ratio is cut on both sides, so that it does not decide alone."""


@dataclass(frozen=True, kw_only=True)
class Departure:
    """How far chains went from a mixture.

    Attributes:
        excess: mean of log p − log q at the chains' states, above what the weighted draws
            of the mixture say, nats.
        excess_se: its standard error.
        lacking: share of the states where the mixture has next to no density, beyond that of the
            mass where its weighted draws say so too: in many dimensions a good mixture has some.
        outside: share of a variance that chains far out find beyond what weighted draws show;
            0 if there were none.

    Examples:
        >>> Departure(excess=0.5, excess_se=0.05, lacking=0.02).leaves
        True
    """

    excess: float
    excess_se: float
    lacking: float
    outside: float = 0.0

    @property
    def leaves(self) -> bool:
        """Whether the chains left the mixture."""
        return bool(self.found)

    @property
    def found(self) -> tuple[str, ...]:
        """What says that the chains left the mixture, in words; empty if they did not."""
        found = []
        if self.excess > max(SIGNIFICANT * self.excess_se, MAX_DEPARTURE):
            found.append(f"the density there is {self.excess:.2f} nats above what it says")
        if self.lacking > 2 * MIN_SHARE:
            found.append(f"{self.lacking:.1%} of their states are where it has next to none")
        if not self.outside <= MAX_OUTSIDE:  # NaN counts
            found.append(f"far out they find {self.outside:.0%} of a variance that it lacks")
        return tuple(found)


def measure_departure(
    mixture: Mixture,
    density: UnconstrainedDensity,
    weighted: WeightedDraws,
    generator: torch.Generator,
    n_evaluations: int = N_EVALUATIONS,
) -> Departure:
    """Walk from weighted draws of the mixture and look where the chains come to.

    Args:
        n_evaluations: of the density, about.

    Raises:
        OutOfBudgetError: too few evaluations are left.

    Examples:
        >>> from amfvi.density.log_density import LogDensity
        >>> from amfvi.diagnostics.comparison import importance_sample
        >>> from amfvi.experts import GMM
        >>> generator = torch.Generator().manual_seed(0)
        >>> density = UnconstrainedDensity(LogDensity(lambda x: -0.5 * x.square().sum(1), 1))
        >>> draws = torch.randn(500, 1, generator=generator).double().clamp(-1.5, 1.5)
        >>> narrow = Mixture({"gmm": GMM(max_components=1).fit(0.5 * draws)}, [1.0])
        >>> weighted = importance_sample(narrow, density, 1000, generator)
        >>> measure_departure(narrow, density, weighted, generator).leaves
        True
    """
    log_weights = weighted.smoothed_log_weights
    rows = resample(weighted.weights, N_CHAINS, generator)
    density = density.with_transform(mixture.transform)
    y = density.transform.to_unconstrained(weighted.x)[0]
    y = torch.where(y.isfinite(), y, y.nanmedian(dim=0).values)
    flow = choose_flow(mixture, y)
    walk = walk_in_latent_space(density, flow, y[rows], n_evaluations, generator)
    log_q = mixture.log_prob_unconstrained(walk.y, mixture.transform)
    log_ratio = walk.log_p - log_q - weighted.importance.log_z.mean
    log_ratio = torch.nan_to_num(log_ratio, nan=0.0).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    of_chains = log_ratio.view(-1, N_CHAINS).mean(dim=0)
    usable = log_weights > -math.inf
    expected = (log_weights[usable].exp() * log_weights[usable]).sum() / len(log_weights)
    known = weighted.unlikely_share()
    lacking = float((log_ratio > LOG_UNDETECTED_RATIO).double().mean()) - known.mean
    return Departure(
        excess=float(of_chains.mean() - expected),
        excess_se=float(of_chains.std()) / math.sqrt(N_CHAINS),
        lacking=lacking if lacking > SIGNIFICANT * known.se else 0.0,
    )
