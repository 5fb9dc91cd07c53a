"""Chains where the variance of a posterior comes from, and whether weighted draws lack some of it.

The end of a ridge that a mixture cuts off is beyond its own draws. It may have a thousandth of
the mass and a third of the variance. Chains that start from the farthest draws go there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from amfvi.density.budget import OutOfBudgetError
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.diagnostics.comparison import WeightedDraws
from amfvi.diagnostics.importance import HEAVY_KHAT, khat_of_squares
from amfvi.diagnostics.thresholds import NOTABLE_OUTSIDE
from amfvi.mixture import Mixture
from amfvi.sampler.outer_chains import OuterChains

__all__ = ["measure_outside"]

N_PLAIN_DRAWS = 20_000
"""Draws of the mixture that show whether a coordinate has a variance."""

SHARE = 0.1
"""Share of the variance, from the farthest draws, in which chains are."""

N_CHAINS = 40
"""Chains of a first look."""

N_MORE_CHAINS = 60
"""Further chains where the first find more lacking than ``NOTABLE_OUTSIDE``."""

N_STEPS = 60
"""Steps of each chain."""

N_ITERATIONS = 20
"""Iterations of the bridge estimate."""


@torch.no_grad()
def measure_outside(
    mixture: Mixture,
    density: UnconstrainedDensity,
    weighted: WeightedDraws,
    generator: torch.Generator,
) -> float:
    """Share of the posterior's variance that weighted draws of a mixture do not show.

    The largest over unconstrained coordinates that have a variance. Chains start from the
    farthest weighted draws, which carry a tenth of it, in the posterior times the squared
    distance from its center. What this integrates to out there is told by bridge sampling
    (Meng & Wong 1996) between their states and the mixture's draws, and compared with what the
    weighted draws say. Where a few chains find a notable share, more are run and all of them
    decide.

    Args:
        weighted: draws of the mixture with their weights.

    Raises:
        OutOfBudgetError: too few evaluations are left.

    Examples:
        >>> import amfvi
        >>> normal = amfvi.LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), dim=2)
        >>> fit = amfvi.fit(normal, experts="gmm", n_draws=500)
        >>> generator = torch.Generator().manual_seed(0)
        >>> share = measure_outside(
        ...     fit, UnconstrainedDensity(normal), fit.weighted_draws(), generator)
        >>> share < 0.03
        True
    """
    density = density.with_transform(mixture.transform)
    y = density.transform.to_unconstrained(weighted.x)[0]
    finite = y.isfinite().all(dim=1)
    log_z = weighted.importance.log_z.mean
    y, weights = y[finite], weighted.smoothed_log_weights.exp()[finite]
    has_variance = _find_variances(mixture, density, generator)
    log_ratio = weighted.log_weights[finite] - log_z
    chains = OuterChains(density, y, weights, share=SHARE)
    states, log_ratios = y[:0], log_ratio[:0]
    share = math.inf
    for n_chains in (N_CHAINS, N_MORE_CHAINS):
        try:
            for state, log_p in chains.walk(n_chains, generator, N_STEPS):
                log_q = mixture.log_prob_unconstrained(state, mixture.transform)
                states = torch.cat([states, state])
                log_ratios = torch.cat([log_ratios, log_p - log_z - log_q])
        except OutOfBudgetError:
            if share == math.inf:
                raise
            return share
        shares = _missing(chains, y, weights, log_ratio, states, log_ratios)
        share = float(torch.where(has_variance, shares, 0.0).max())
        if share <= NOTABLE_OUTSIDE:
            break
    return share


def _missing(
    chains: OuterChains,
    y: Tensor,
    weights: Tensor,
    log_ratio: Tensor,
    states: Tensor,
    log_ratio_of_states: Tensor,
) -> Tensor:
    """Share of each coordinate's variance (d,) that weighted draws do not show.

    Args:
        y, weights: the draws, (n, d), and their weights with mean one, (n,).
        states: of the chains, (k, d).
        log_ratio, log_ratio_of_states: log p − log q at both, nats, (n,) and (k,).
    """
    squared, outer = chains.squared_distance(y), chains.is_outer(y)
    log_bridge = _log_bridge(squared[outer], log_ratio[outer], log_ratio_of_states)
    shown = float((weights * squared)[outer].sum())
    lacking = math.exp(log_bridge) * float(squared[outer].sum()) - shown
    thin = torch.tanh(0.5 * (log_ratio_of_states - log_bridge)).clamp(min=0)
    of_coordinate = (thin[:, None] * chains.share_by_coordinate(states)).sum(dim=0)
    of_coordinate *= max(lacking, 0.0) / thin.sum().clamp(min=1e-300)
    whole = ((weights * squared)[:, None] * chains.share_by_coordinate(y)).sum(dim=0)
    return of_coordinate / (whole + of_coordinate)


def _log_bridge(squared: Tensor, log_ratio: Tensor, log_ratio_of_states: Tensor) -> float:
    """Log ratio of the integrals of p r² and q r², from draws of both (Meng & Wong 1996).

    Args:
        squared: r² at draws of q, (n,).
        log_ratio, log_ratio_of_states: log p − log q at these, (n,), and at draws of p r²,
            (k,), nats.
    """
    shares = squared.log() - squared.sum().log()
    log_bridge = 0.0
    for _ in range(N_ITERATIONS):
        of_draws = shares + torch.nn.functional.logsigmoid(log_ratio - log_bridge)
        of_states = torch.nn.functional.logsigmoid(log_bridge - log_ratio_of_states)
        mean = of_states.logsumexp(dim=0) - math.log(len(of_states))
        log_bridge += float(of_draws.logsumexp(dim=0) - mean)
    return log_bridge


def _find_variances(
    mixture: Mixture, density: UnconstrainedDensity, generator: torch.Generator
) -> Tensor:
    """Which coordinates (m,) have tails light enough for draws to tell a variance."""
    y = density.transform.to_unconstrained(mixture.sample((N_PLAIN_DRAWS,), generator))[0]
    y = y[y.isfinite().all(dim=1)]
    return khat_of_squares(y, y.median(dim=0).values) < HEAVY_KHAT
