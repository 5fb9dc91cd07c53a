"""Whether ranks of observed values among draws depend on the condition."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

__all__ = ["RankDependence"]


@dataclass(frozen=True, kw_only=True, eq=False)
class RankDependence:
    """Correlation of ranks with conditions, which a right density leaves none of.

    Ranks u are uniform for every condition if q is right, and so is |2u − 1|. Neither may then
    correlate with a condition: the first shows means that do not follow it, the second widths
    that do not. A q that ignores its condition has uniform ranks on average over conditions,
    and is found here. Scores are z = √12 Σ w (u − 1/2)/‖w‖, with w the centered ranks of a
    condition among all pairs. Sums of uniform numbers have lighter tails than a normal of the
    same variance, so that normal p-values are safe far out.

    Attributes:
        mean_scores: z for the ranks of each parameter with each condition, (dim, given_dim).
        width_scores: the same for |2u − 1|.

    Examples:
        >>> given = torch.linspace(-1, 1, 100)[:, None].double()
        >>> dependence = RankDependence.from_ranks(0.5 + 0.2 * given, given)
        >>> round(float(dependence.mean_scores), 1), dependence.p_value < 1e-3
        (4.0, True)
    """

    mean_scores: Tensor
    width_scores: Tensor

    @classmethod
    def from_ranks(cls, ranks: Tensor, given: Tensor) -> RankDependence:
        """Correlate ranks (n, dim) in (0, 1) with conditions (n, given_dim)."""
        weights = torch.from_numpy(stats.rankdata(given.numpy(), axis=0))
        weights = weights - weights.mean(dim=0)
        norm = weights.norm(dim=0)
        weights = weights / torch.where(norm > 0, norm, torch.ones_like(norm))
        return cls(
            mean_scores=12**0.5 * (ranks - 0.5).T @ weights,
            width_scores=12**0.5 * ((2 * ranks - 1).abs() - 0.5).T @ weights,
        )

    @property
    def p_value(self) -> float:
        """Of the largest score in absolute value, by Bonferroni's rule over all of them."""
        scores = self._absolute
        return min(1.0, scores.numel() * 2 * float(stats.norm.sf(float(scores.max()))))

    @property
    def strongest(self) -> tuple[int, int, bool]:
        """Parameter and condition with the largest score, and whether it is one of widths."""
        scores = self._absolute
        kind, parameter, condition = torch.unravel_index(scores.argmax(), scores.shape)
        return int(parameter), int(condition), bool(kind)

    @property
    def _absolute(self) -> Tensor:
        return torch.stack([self.mean_scores, self.width_scores]).abs()
