"""Chains where the variance of a posterior comes from, and whether a mixture lacks some of it.

The end of a ridge that a mixture cuts off is beyond its own draws. It may have a thousandth of
the mass and a third of the variance. Chains that sample the posterior times the squared distance
from its center spend their time in proportion to the variance, so that they come there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.diagnostics.comparison import WeightedDraws
from amfvi.mixture import Mixture
from amfvi.sampler.resolution import evaluate_where_possible

__all__ = ["measure_outside"]

FARTHEST = 2.0
"""Distance, relative to the farthest draw, beyond which the factor no longer grows: where there
is no variance, chains would not come back."""

OUTER_SHARE = 0.5
"""Share of the variance, from the farthest draws, in which chains start."""

LOG_THIN_RATIO = math.log(2.0)
"""Nats that q lies below p where what is lacking is counted; below, it may be noise."""

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
    """Share of the posterior's variance that comes from where the mixture lacks density.

    Of the unconstrained coordinate of which most is lacking. Chains start from the farthest
    weighted draws that carry half of the variance, in proportion to what they carry, and take
    Metropolis–Hastings steps with a normal proposal that has the covariance of the draws
    nearest to a state, so that it lies along a ridge. They leave the posterior times the squared
    distance invariant: by detailed balance what they find lacking is a share of that half.

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
    center = y.median(dim=0).values

    def squares(points: Tensor) -> Tensor:
        return ((points - center) / scale).square()

    farthest = FARTHEST**2 * float(squares(y).sum(dim=1).max())

    def log_p_of(points: Tensor) -> tuple[Tensor, Tensor]:
        """Log density, and log of it times the squared distance."""
        log_p = evaluate_where_possible(density, points, gradient=False)[0]
        return log_p, log_p + squares(points).sum(dim=1).clamp(1e-300, farthest).log()

    carried = weights * squares(y).sum(dim=1)
    order = squares(y).sum(dim=1).argsort(descending=True)
    further_out = carried[order].cumsum(dim=0) - carried[order]
    outer = order[further_out <= OUTER_SHARE * carried.sum()]
    rows = outer[torch.multinomial(carried[outer], N_CHAINS, True, generator=generator)]
    proposal = _LocalProposal(y, scale)
    state = y[rows]
    log_p, log_target = log_p_of(state)
    log_z = weighted.importance.log_z.mean
    lacking, all_variance = y.new_zeros(y.shape[1]), y.new_zeros(y.shape[1])
    factor = proposal.factor(state)
    for step in range(N_STEPS):
        noise = torch.randn(state.shape, generator=generator, dtype=torch.float64)
        proposed = state + (factor @ noise[:, :, None]).squeeze(2)
        proposed_log_p, proposed_log_target = log_p_of(proposed)
        proposed_factor = proposal.factor(proposed)
        log_ratio = proposed_log_target - log_target
        log_ratio += _log_normal(proposed_factor, state - proposed)
        log_ratio -= _log_normal(factor, proposed - state)
        accepted = torch.rand(N_CHAINS, generator=generator).log() < log_ratio
        state = torch.where(accepted[:, None], proposed, state)
        log_p = torch.where(accepted, proposed_log_p, log_p)
        log_target = torch.where(accepted, proposed_log_target, log_target)
        factor = torch.where(accepted[:, None, None], proposed_factor, factor)
        if step >= N_STEPS // 2:
            log_q = mixture.log_prob_unconstrained(state, mixture.transform)
            log_ratio = log_p - log_z - log_q
            is_lacking = log_ratio > LOG_THIN_RATIO
            by_coordinate = squares(state) / squares(state).sum(dim=1, keepdim=True)
            missing = torch.where(is_lacking, -torch.expm1(-log_ratio), 0.0)
            lacking += (missing[:, None] * by_coordinate).sum(dim=0)
            all_variance += by_coordinate.sum(dim=0)
    return OUTER_SHARE * float((lacking / all_variance.clamp(min=1e-300)).max())


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
