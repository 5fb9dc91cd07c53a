"""Ranks of observed values among draws, and whether ranks are uniform."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from scipy import stats
from torch import Tensor

from amfvi.diagnostics.thresholds import SIGNIFICANT

__all__ = ["Uniformity", "ks_band", "ranks_among_draws"]


def ranks_among_draws(values: Tensor, generator: torch.Generator) -> Tensor:
    """Rank each observed value among draws, as a number in (0, 1).

    With r draws below it and t tied with it among m draws, a value has the rank
    (r + (t + 1) U)/(m + 1) with U uniform. If value and draws are exchangeable, ranks are
    exactly uniform, whatever m is and however many values coincide (Talts et al. 2018,
    arXiv:1804.06788, Theorem 1, with ties broken at random).

    Args:
        values: the observed values, followed by the draws, (1 + m, ...).

    Returns:
        Ranks, of the shape of the observed values.

    Examples:
        >>> values = torch.tensor([[2.5], [1.0], [2.0], [3.0]]).double()
        >>> rank = ranks_among_draws(values, torch.Generator().manual_seed(0))
        >>> bool(2 / 4 < rank[0] < 3 / 4)
        True
    """
    observed, draws = values[0], values[1:]
    below = (draws < observed).sum(dim=0)
    tied = (draws == observed).sum(dim=0)
    uniform = torch.rand(observed.shape, generator=generator, dtype=torch.float64)
    return (below + (tied + 1) * uniform) / (len(draws) + 1)


def ks_band(n: int, level: float = 0.95) -> float:
    """Largest distance from the diagonal that n uniform values keep to with this probability.

    The quantile of the Kolmogorov–Smirnov statistic, exact for any n.

    Examples:
        >>> round(ks_band(500), 4)
        0.0604
    """
    return _ks_quantile(n, level)


@lru_cache(maxsize=64)  # a search for a root, the same for every parameter
def _ks_quantile(n: int, level: float) -> float:
    return float(stats.kstwo.ppf(level, n))


@dataclass(frozen=True, kw_only=True)
class Uniformity:
    """Kolmogorov–Smirnov test of ranks against the uniform distribution.

    Attributes:
        distance: the largest difference between the share of ranks below a level and it.
        level: where the difference is largest.
        share: the share of ranks up to that level.
        p_value: of the distance, exact up to 10,000 ranks.
        band: the distance that uniform ranks exceed in 5% of cases.
        location: how far the mean of the ranks lies from 1/2, in its standard errors.
        spread: how far their mean square deviation from 1/2 lies from 1/12, likewise.

    Examples:
        >>> test = Uniformity.from_ranks(torch.linspace(0.005, 0.995, 100))
        >>> round(test.distance, 3), test.p_value > 0.99, round(test.band, 3)
        (0.005, True, 0.134)
        >>> round(Uniformity.from_ranks(torch.linspace(0.005, 0.995, 100) ** 2).distance, 2)
        0.25
    """

    distance: float
    level: float
    share: float
    p_value: float
    band: float
    location: float
    spread: float

    @classmethod
    def from_ranks(cls, ranks: Tensor) -> Uniformity:
        """Test ranks (n,) in (0, 1)."""
        ranks, n = ranks.double(), len(ranks)
        test = stats.kstest(ranks.numpy(), "uniform")
        level, distance = float(test.statistic_location), float(test.statistic)
        centered = ranks - 0.5
        return cls(
            distance=distance,
            level=level,
            share=level + float(test.statistic_sign) * distance,
            p_value=float(test.pvalue),
            band=ks_band(n),
            # Var U = 1/12 and Var (U − 1/2)² = 1/180 for uniform U.
            location=float(centered.mean()) * (12 * n) ** 0.5,
            spread=(float(centered.square().mean()) - 1 / 12) * (180 * n) ** 0.5,
        )

    @property
    def flaw(self) -> str:
        """What is wrong with the draws of a parameter if the ranks of its true values are these."""
        if max(abs(self.location), abs(self.spread)) < SIGNIFICANT:
            return "of the wrong shape"
        if abs(self.location) > abs(self.spread):
            return "too low" if self.location > 0 else "too high"
        return "too narrow" if self.spread > 0 else "too wide"
