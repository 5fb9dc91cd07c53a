"""Chains that start from a mixture's outermost draws, and whether they go on outwards.

The end of a ridge that a mixture cuts off is beyond its own draws. Chains that start
anywhere seldom come there; those that start at the end and step along the draws around
them do at once.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.diagnostics.comparison import WeightedDraws
from amfvi.diagnostics.thresholds import LOG_UNDETECTED_RATIO
from amfvi.mixture import Mixture
from amfvi.sampler.resolution import evaluate_where_possible

__all__ = ["measure_outside"]

OUTERMOST = 0.02
"""Share of the mass, farthest from the center, in which chains start."""

N_CHAINS = 40
"""Chains."""

N_STEPS = 40
"""Steps of each chain; states of the second half are looked at."""

N_NEIGHBORS = 40
"""Draws around a state whose covariance shapes its proposal."""

STEP = 1.2
"""Standard deviation of a proposal, times √d, in units of that covariance."""


@torch.no_grad()
def measure_outside(
    mixture: Mixture,
    density: UnconstrainedDensity,
    weighted: WeightedDraws,
    generator: torch.Generator,
) -> float:
    """Share of the states of chains from the outermost draws where the mixture lacks density.

    Metropolis–Hastings steps with a normal proposal that has the covariance of the draws
    nearest to a state, so that it lies along a ridge. The chains leave the posterior
    invariant: by detailed balance at least this share of the outermost mass is lacking.

    Args:
        weighted: draws of the mixture with their weights.

    Raises:
        OutOfBudgetError: too few evaluations are left.

    Examples:
        >>> import amfvi
        >>> normal = amfvi.LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), dim=2)
        >>> fit = amfvi.fit(normal, experts="gmm", n_draws=500)
        >>> generator = torch.Generator().manual_seed(0)
        >>> measure_outside(fit, UnconstrainedDensity(normal), fit.weighted_draws(), generator)
        0.0
    """
    density = density.with_transform(mixture.transform)
    y = density.transform.to_unconstrained(weighted.x)[0]
    finite = y.isfinite().all(dim=1)
    y, weights = y[finite], weighted.weights[finite]
    scale = y.std(dim=0).clamp(min=1e-300)
    draws = (y - y.median(dim=0).values) / scale
    order = draws.square().sum(dim=1).argsort(descending=True)
    # Up to and with the draw that completes the share, which may have all of it.
    outer = order[weights[order].cumsum(dim=0) - weights[order] <= OUTERMOST]
    rows = outer[torch.multinomial(weights[outer], N_CHAINS, True, generator=generator)]
    proposal = _LocalProposal(y, scale)
    state, log_p = y[rows], evaluate_where_possible(density, y[rows], gradient=False)[0]
    log_z, lacking = weighted.importance.log_z.mean, []
    factor = proposal.factor(state)
    for step in range(N_STEPS):
        noise = torch.randn(state.shape, generator=generator, dtype=torch.float64)
        proposed = state + (factor @ noise[:, :, None]).squeeze(2)
        proposed_log_p = evaluate_where_possible(density, proposed, gradient=False)[0]
        proposed_factor = proposal.factor(proposed)
        log_ratio = proposed_log_p - log_p
        log_ratio += _log_normal(proposed_factor, state - proposed)
        log_ratio -= _log_normal(factor, proposed - state)
        accepted = torch.rand(N_CHAINS, generator=generator).log() < log_ratio
        state = torch.where(accepted[:, None], proposed, state)
        log_p = torch.where(accepted, proposed_log_p, log_p)
        factor = torch.where(accepted[:, None, None], proposed_factor, factor)
        if step >= N_STEPS // 2:
            log_q = mixture.log_prob_unconstrained(state, mixture.transform)
            lacking.append(log_p - log_z - log_q > LOG_UNDETECTED_RATIO)
    return float(torch.stack(lacking).double().mean())


class _LocalProposal:
    """Factors of the covariance of the draws (n, d) around a point."""

    def __init__(self, y: Tensor, scale: Tensor) -> None:
        self._y = y
        self._scale = scale

    def factor(self, points: Tensor) -> Tensor:
        """Lower triangular factors (k, d, d) of the proposals at points (k, d)."""
        d = points.shape[1]
        distances = torch.cdist(points / self._scale, self._y / self._scale)
        nearest = distances.topk(min(max(N_NEIGHBORS, 2 * d), len(self._y)), largest=False).indices
        neighbors = self._y[nearest] / self._scale
        centered = neighbors - neighbors.mean(dim=1, keepdim=True)
        covariance = centered.mT @ centered / centered.shape[1]
        jitter = 1e-9 * covariance.diagonal(dim1=1, dim2=2).mean(dim=1).clamp(min=1e-12)
        covariance = covariance + jitter[:, None, None] * torch.eye(d, dtype=torch.float64)
        factor = torch.linalg.cholesky(covariance)
        return STEP / math.sqrt(d) * self._scale[:, None] * factor


def _log_normal(factor: Tensor, difference: Tensor) -> Tensor:
    """Log density (k,) of N(0, factor factorᵀ) at differences (k, d), up to a constant."""
    z = torch.linalg.solve_triangular(factor, difference[:, :, None], upper=False).squeeze(2)
    return -0.5 * z.square().sum(dim=1) - factor.diagonal(dim1=1, dim2=2).log().sum(dim=1)
