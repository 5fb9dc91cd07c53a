"""Markov chains where the variance of a posterior comes from.

Chains that sample the posterior times the squared distance from its center spend their time
in proportion to the variance. Those that start from the farthest draws come beyond them, to
the end of a ridge that has a thousandth of the mass and a third of the variance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.sampler.resolution import evaluate_where_possible

__all__ = ["N_STEPS", "OuterChains"]

FARTHEST = 2.0
"""Distance, relative to the farthest draw, beyond which the factor no longer grows: where there
is no variance, chains would not come back."""

OUTER_SHARE = 0.3
"""Share of the variance, from the farthest draws, in which chains are, if no other is asked for."""

N_STEPS = 40
"""Steps of each chain, of which the states of the second half count."""

N_NEIGHBORS = 40
"""Draws around a state whose covariance shapes its proposal."""

STEP = 1.2
"""Standard deviation of a proposal, times √d, in units of that covariance."""

SCALES = (0.5, 1.0, 2.0)
"""Factors of it, of which each step takes one at random: a ridge is one direction of d."""


class OuterChains:
    """Chains from the farthest draws, in the posterior times the squared distance.

    They start from the farthest draws that carry a share of the variance, in proportion to
    what each carries, do not come nearer than these, and take Metropolis–Hastings steps whose
    proposal has the covariance of the nearest draws, so that it lies along a ridge.

    Args:
        density: over unconstrained space.
        y: draws, (n, d).
        weights: of the draws, (n,), with mean one.
        share: of the variance; with 1 the chains may be anywhere.

    Attributes:
        mean_square: weighted mean of the squared distance over the draws.

    Examples:
        >>> from amfvi.density.log_density import LogDensity
        >>> density = UnconstrainedDensity(LogDensity(lambda x: -0.5 * x.square().sum(1), 1))
        >>> generator = torch.Generator().manual_seed(0)
        >>> draws = torch.randn(1000, 1, generator=generator).double().clamp(-2, 2)
        >>> chains = OuterChains(density, draws, torch.ones(1000))
        >>> states = torch.cat([state for state, _ in chains.walk(50, generator)])
        >>> float(states.abs().mean()) > 1.4  # 0.8 in the normal distribution itself
        True
    """

    def __init__(
        self,
        density: UnconstrainedDensity,
        y: Tensor,
        weights: Tensor,
        *,
        share: float = OUTER_SHARE,
    ) -> None:
        self._y = y
        self._target = _TimesSquaredDistance(density, y)
        squared = self._target.squared_distance(y)
        self._carried = weights * squared
        self.mean_square = float(self._carried.sum() / weights.sum())
        order = squared.argsort(descending=True)
        further_out = self._carried[order].cumsum(dim=0) - self._carried[order]
        self._outer = order[further_out <= share * self._carried.sum()]
        self._nearest = 0.0 if share == 1 else float(squared[self._outer].min())
        self._proposal = _LocalProposal(y, self._target.scale)

    def is_outer(self, points: Tensor) -> Tensor:
        """Which points (k, d) are as far out as the chains are, (k,)."""
        return self._target.squared_distance(points) >= self._nearest

    def squared_distance(self, points: Tensor) -> Tensor:
        """The factor at points (k, d), (k,): squared distance in standard deviations, bounded."""
        return self._target.bounded_square(points)

    def share_by_coordinate(self, points: Tensor) -> Tensor:
        """What each coordinate has of the squared distance of points (k, d), (k, d)."""
        return self._target.share_by_coordinate(points)

    def walk(
        self, n_chains: int, generator: torch.Generator, n_steps: int = N_STEPS
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """States (n_chains, d) and their log densities, after each step of the second half.

        Raises:
            OutOfBudgetError: a limit was reached.
        """
        carried = self._carried[self._outer]
        rows = torch.multinomial(carried, n_chains, True, generator=generator)
        state = self._y[self._outer[rows]]
        log_p, log_target = self._target.evaluate(state)
        factor = self._proposal.factor(state)
        for step in range(n_steps):
            scale = SCALES[int(torch.randint(len(SCALES), (), generator=generator))]
            noise = scale * torch.randn(state.shape, generator=generator, dtype=torch.float64)
            proposed = state + (factor @ noise[:, :, None]).squeeze(2)
            proposed_log_p, proposed_log_target = self._target.evaluate(proposed)
            proposed_factor = self._proposal.factor(proposed)
            log_ratio = proposed_log_target - log_target
            log_ratio += _log_normal(proposed_factor, (state - proposed) / scale)
            log_ratio -= _log_normal(factor, (proposed - state) / scale)
            accepted = (
                torch.rand(len(state), generator=generator, dtype=torch.float64).log() < log_ratio
            )
            accepted &= self.is_outer(proposed)
            state = torch.where(accepted[:, None], proposed, state)
            log_p = torch.where(accepted, proposed_log_p, log_p)
            log_target = torch.where(accepted, proposed_log_target, log_target)
            factor = torch.where(accepted[:, None, None], proposed_factor, factor)
            if step >= n_steps // 2:
                yield state, log_p


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
        return squares / squares.sum(dim=1, keepdim=True).clamp(min=1e-300)  # 0 at the center

    def evaluate(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Log density of points (k, d), and log of it times the squared distance."""
        log_p = evaluate_where_possible(self._density, points, gradient=False)[0]
        return log_p, log_p + self.bounded_square(points).log()

    def bounded_square(self, points: Tensor) -> Tensor:
        return self.squared_distance(points).clamp(1e-300, self._farthest)

    def _squares(self, points: Tensor) -> Tensor:
        return ((points - self._center) / self.scale).square()


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
