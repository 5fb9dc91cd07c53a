"""Chains where the variance of a posterior comes from, and whether a mixture lacks some of it.

The end of a ridge that a mixture cuts off is beyond its own draws. It may have a thousandth of
the mass and a third of the variance. Chains that sample the posterior times the squared distance
from its center spend their time in proportion to the variance, so that they come there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from amfvi.density.budget import OutOfBudgetError
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.diagnostics.comparison import WeightedDraws
from amfvi.diagnostics.importance import HEAVY_KHAT, khat_of_squares
from amfvi.diagnostics.thresholds import MAX_OUTSIDE
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

N_PLAIN_DRAWS = 20_000
"""Draws of the mixture that show whether a coordinate has a variance."""

N_CHAINS = 40
"""Chains of a first look."""

N_MORE_CHAINS = 160
"""Further chains where the first find more lacking than ``NOTABLE_SHARE``."""

NOTABLE_SHARE = 0.5 * MAX_OUTSIDE
"""Share of a variance above which a few chains are too noisy a measure to decide by."""

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

    Where a few chains find a notable share, more are run and all of them decide.

    The largest over unconstrained coordinates that have a variance. Chains start from the
    farthest weighted draws that carry half of it, and take Metropolis–Hastings steps whose
    proposal has the covariance of the nearest draws, so that it lies along a ridge. They leave
    the posterior times the squared distance invariant: what they find lacking is a share of
    that half.

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
    has_variance = _find_variances(mixture, density, generator)
    target = _TimesSquaredDistance(density, y)
    proposal, log_z = _LocalProposal(y, target.scale), weighted.importance.log_z.mean
    squared = target.squared_distance(y)
    lacking, whole = y.new_zeros(y.shape[1]), y.new_zeros(y.shape[1])
    share = math.inf
    for n_chains in (N_CHAINS, N_MORE_CHAINS):
        start = y[_choose_outer(squared, weights, n_chains, generator)]
        try:
            parts = _walk(mixture, density, target, proposal, start, log_z, generator)
        except OutOfBudgetError:
            if share == math.inf:
                raise
            return share
        lacking, whole = lacking + parts[0], whole + parts[1]
        shares = torch.where(has_variance, lacking / whole.clamp(min=1e-300), 0.0)
        share = OUTER_SHARE * float(shares.max())
        if share <= NOTABLE_SHARE:
            break
    return share


def _walk(
    mixture: Mixture,
    density: UnconstrainedDensity,
    target: _TimesSquaredDistance,
    proposal: _LocalProposal,
    state: Tensor,
    log_z: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """What chains from states (k, d) find lacking of each coordinate's variance, and all of it."""
    log_p, log_target = target.evaluate(state)
    factor = proposal.factor(state)
    lacking, whole = state.new_zeros(state.shape[1]), state.new_zeros(state.shape[1])
    for step in range(N_STEPS):
        noise = torch.randn(state.shape, generator=generator, dtype=torch.float64)
        proposed = state + (factor @ noise[:, :, None]).squeeze(2)
        proposed_log_p, proposed_log_target = target.evaluate(proposed)
        proposed_factor = proposal.factor(proposed)
        log_ratio = proposed_log_target - log_target
        log_ratio += _log_normal(proposed_factor, state - proposed)
        log_ratio -= _log_normal(factor, proposed - state)
        accepted = (
            torch.rand(len(state), generator=generator, dtype=torch.float64).log() < log_ratio
        )
        state = torch.where(accepted[:, None], proposed, state)
        log_p = torch.where(accepted, proposed_log_p, log_p)
        log_target = torch.where(accepted, proposed_log_target, log_target)
        factor = torch.where(accepted[:, None, None], proposed_factor, factor)
        if step >= N_STEPS // 2:
            log_q = mixture.log_prob_unconstrained(state, mixture.transform)
            share = target.share_by_coordinate(state)
            lacking += (_missing(log_p - log_z - log_q)[:, None] * share).sum(dim=0)
            whole += share.sum(dim=0)
    return lacking, whole


def _find_variances(
    mixture: Mixture, density: UnconstrainedDensity, generator: torch.Generator
) -> Tensor:
    """Which coordinates (m,) have tails light enough for draws to tell a variance."""
    y = density.transform.to_unconstrained(mixture.sample((N_PLAIN_DRAWS,), generator))[0]
    y = y[y.isfinite().all(dim=1)]
    return khat_of_squares(y, y.median(dim=0).values) < HEAVY_KHAT


class _TimesSquaredDistance:
    """A density times the squared distance from the center of draws (n, d)."""

    def __init__(self, density: UnconstrainedDensity, y: Tensor) -> None:
        self._density = density
        self._center = y.median(dim=0).values
        self.scale = y.std(dim=0).clamp(min=1e-300)
        self._farthest = FARTHEST**2 * float(self.squared_distance(y).max())

    def squared_distance(self, points: Tensor) -> Tensor:
        return self._squares(points).sum(dim=1)

    def share_by_coordinate(self, points: Tensor) -> Tensor:
        """What each coordinate has of the squared distance of points (k, d), (k, d)."""
        squares = self._squares(points)
        return squares / squares.sum(dim=1, keepdim=True)

    def evaluate(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Log density of points (k, d), and log of it times the squared distance."""
        log_p = evaluate_where_possible(self._density, points, gradient=False)[0]
        squared = self.squared_distance(points).clamp(1e-300, self._farthest)
        return log_p, log_p + squared.log()

    def _squares(self, points: Tensor) -> Tensor:
        return ((points - self._center) / self.scale).square()


def _choose_outer(
    squared: Tensor, weights: Tensor, n_chains: int, generator: torch.Generator
) -> Tensor:
    """Rows where chains start, of draws with squared distances (n,) and weights (n,)."""
    carried = weights * squared
    order = squared.argsort(descending=True)
    further_out = carried[order].cumsum(dim=0) - carried[order]
    outer = order[further_out <= OUTER_SHARE * carried.sum()]
    return outer[torch.multinomial(carried[outer], n_chains, True, generator=generator)]


def _missing(log_ratio: Tensor) -> Tensor:
    """Share of the density at each point that a mixture lacks, from log p − log q."""
    return torch.where(log_ratio > LOG_THIN_RATIO, -torch.expm1(-log_ratio), 0.0)


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
        factor, failed = torch.linalg.cholesky_ex(covariance)
        # Tails so heavy that products of distances round to no covariance at all.
        axes = covariance.diagonal(dim1=1, dim2=2).clamp(1e-300, 1e300).sqrt().diag_embed()
        factor = torch.where((failed > 0)[:, None, None], axes.nan_to_num(1.0), factor)
        return STEP / math.sqrt(d) * self._scale[:, None] * factor


def _log_normal(factor: Tensor, difference: Tensor) -> Tensor:
    """Log density (k,) of N(0, factor factorᵀ) at differences (k, d), up to a constant."""
    z = torch.linalg.solve_triangular(factor, difference[:, :, None], upper=False).squeeze(2)
    return -0.5 * z.square().sum(dim=1) - factor.diagonal(dim1=1, dim2=2).log().sum(dim=1)
