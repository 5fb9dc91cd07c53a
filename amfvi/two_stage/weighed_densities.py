"""The experts' densities at the draws that stage two rests on, as it needs them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from amfvi.errors import FitError
from amfvi.statistics import normalize_to_sum

__all__ = ["WeighedDensities"]

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class WeighedDensities:
    """Log densities (m, K) of the experts at the m draws that count, and what they weigh.

    Attributes:
        log_q: at the draws at which some expert has density, nats.
        row_weights: of these draws, (m,), with sum 1.
        n: number of all draws.

    Examples:
        >>> densities = WeighedDensities.of(np.log([[1.0, 2.0], [4.0, 1.0]]))
        >>> densities.ratios.round(2).tolist(), densities.row_weights.tolist()
        ([[0.5, 1.0], [1.0, 0.25]], [0.5, 0.5])
    """

    log_q: Array
    row_weights: Array
    n: int

    @classmethod
    def of(cls, log_densities: Tensor | Array, sample_weight: Tensor | Array | None = None) -> Self:
        """Check log densities (n, K) and importance weights (n,).

        Raises:
            FitError: a NaN or +inf entry, no draw at which any expert has density, or weights
                that are none.
        """
        log_q = _check_log_densities(log_densities)
        weights = _check_weights(sample_weight, len(log_q))
        reached = (log_q > -np.inf).any(axis=1) & (weights > 0)
        if not reached.any():
            raise FitError("no expert has any density at the draws the weights are estimated on")
        used = weights[reached]
        return cls(log_q=log_q[reached], row_weights=used / used.sum(), n=len(log_q))

    @cached_property
    def ratios(self) -> Array:
        """Densities (m, K) relative to the highest at each draw."""
        return np.asarray(np.exp(self.log_q - self.log_q.max(axis=1, keepdims=True)))


def _check_log_densities(log_densities: Tensor | Array) -> Array:
    """The n × K matrix as float64, free of NaN and +inf."""
    log_q = np.asarray(torch.as_tensor(log_densities).detach().cpu(), dtype=np.float64)
    if log_q.ndim != 2 or 0 in log_q.shape:
        raise FitError(f"log densities must be (n, K), found {log_q.shape}")
    bad = np.isnan(log_q) | (log_q == np.inf)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise FitError(f"expert {column} has log density {log_q[row, column]} at draw {row}")
    return log_q


def _check_weights(sample_weight: Tensor | Array | None, n: int) -> Array:
    """Importance weights (n,) that sum to one.

    Raises:
        FitError: not n finite non-negative numbers, or all zero.
    """
    if sample_weight is None:
        return np.full(n, 1 / n)
    w = torch.as_tensor(sample_weight).detach().cpu().double()
    if w.shape != (n,) or not bool(w.isfinite().all() and (w >= 0).all() and w.sum() > 0):
        raise FitError(f"sample weights must be {n} finite non-negative numbers, not all zero")
    return np.asarray(normalize_to_sum(w))
