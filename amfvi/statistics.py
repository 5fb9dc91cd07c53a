"""Weighted samples: effective sample size, moments, subsets, and estimates with errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "Estimate",
    "average_ranks",
    "effective_sample_size",
    "normalize_to_mean",
    "normalize_to_sum",
    "resample",
    "weighted_sd",
    "weighted_subset",
]


@dataclass(frozen=True)
class Estimate:
    """A mean over independent draws with its standard error.

    Examples:
        >>> import torch
        >>> Estimate.from_terms(torch.tensor([1.0, 3.0]))
        Estimate(mean=2.0, se=1.0)
    """

    mean: float
    se: float

    @classmethod
    def from_terms(cls, terms: Tensor, sample_weight: Tensor | None = None) -> Estimate:
        """Average independent terms (n,), with importance weights (n,) if there are any.

        The standard error of a single term is NaN.
        """
        terms = terms.double()
        if sample_weight is not None:
            share = normalize_to_sum(sample_weight)
            mean = (share * terms).sum()
            return cls(float(mean), float((share * (terms - mean)).square().sum().sqrt()))
        se = terms.std() / len(terms) ** 0.5 if len(terms) > 1 else terms.new_tensor(float("nan"))
        return cls(float(terms.mean()), float(se))


def effective_sample_size(weights: Tensor) -> float:
    """(Σw)²/Σw² of non-negative weights (n,) (Kish 1965).

    Examples:
        >>> import torch
        >>> effective_sample_size(torch.tensor([1.0, 1.0, 0.0]))
        2.0
    """
    return float(weights.sum().square() / weights.square().sum())


def normalize_to_sum(weights: Tensor) -> Tensor:
    """Scale non-negative weights (n,) so that they sum to one.

    Examples:
        >>> import torch
        >>> normalize_to_sum(torch.tensor([1.0, 3.0]))
        tensor([0.2500, 0.7500])
    """
    return weights / weights.sum()


def normalize_to_mean(weights: Tensor) -> Tensor:
    """Scale non-negative weights (n,) so that their mean is one.

    Examples:
        >>> import torch
        >>> normalize_to_mean(torch.tensor([1.0, 3.0]))
        tensor([0.5000, 1.5000])
    """
    return weights / weights.mean()


def weighted_sd(values: Tensor, sample_weight: Tensor | None) -> Tensor:
    """Standard deviation of each column of (n, d), shape (d,).

    Examples:
        >>> import torch
        >>> weighted_sd(torch.tensor([[0.0], [2.0]]), torch.tensor([1.0, 1.0]))
        tensor([1.])
    """
    if sample_weight is None:
        return values.std(dim=0)
    share = normalize_to_sum(sample_weight)[:, None]
    return (share * (values - (share * values).sum(dim=0)).square()).sum(dim=0).sqrt()


def resample(weights: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Choose ``n`` rows in proportion to their weights, with as few repeats as there can be.

    Systematic resampling, in random order: a row with a share w of the weights is chosen n·w
    times, rounded up or down.

    Args:
        weights: of the rows, (m,), non-negative.

    Returns:
        Row numbers (n,).

    Examples:
        >>> import torch
        >>> weights = torch.tensor([1.0, 0.0, 3.0]).double()
        >>> resample(weights, 4, torch.Generator().manual_seed(0)).bincount()
        tensor([1, 0, 3])
    """
    cumulative = weights.cumsum(dim=0) / weights.sum()
    offset = torch.rand(1, generator=generator, dtype=torch.float64)
    positions = (torch.arange(n, dtype=torch.float64) + offset) / n
    rows = torch.searchsorted(cumulative, positions).clamp(max=len(weights) - 1)
    return rows[torch.randperm(n, generator=generator)]


def weighted_subset(
    values: Tensor, sample_weight: Tensor | None, n: int, generator: torch.Generator
) -> Tensor:
    """Choose ``n`` different rows of (m, d) at random, with probability by weight.

    Examples:
        >>> import torch
        >>> rows = torch.arange(3.0)[:, None]
        >>> chosen = weighted_subset(rows, torch.tensor([1.0, 0.0, 1.0]), 2, torch.Generator())
        >>> sorted(chosen.squeeze(1).tolist())
        [0.0, 2.0]
    """
    if sample_weight is None:
        return values[torch.randperm(len(values), generator=generator)[:n]]
    return values[torch.multinomial(sample_weight, n, replacement=False, generator=generator)]


def average_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank numbers (n,) from 1; equal ones share the mean of their ranks.

    As ``scipy.stats.rankdata``, whose module takes seconds to import.

    Examples:
        >>> average_ranks(np.array([3.0, 1.0, 3.0])).tolist()
        [2.5, 1.0, 2.5]
    """
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse])
