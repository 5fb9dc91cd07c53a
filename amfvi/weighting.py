"""Importance weights of draws: what they are worth, and what they make of moments."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["effective_sample_size", "weighted_sd", "weighted_subset"]


def effective_sample_size(weights: Tensor) -> float:
    """(Σw)²/Σw² of non-negative weights (n,): how many equal draws they are worth (Kish 1965)."""
    return float(weights.sum().square() / weights.square().sum())


def weighted_sd(values: Tensor, weight: Tensor | None) -> Tensor:
    """Standard deviation of each column of (n, d), (d,)."""
    if weight is None:
        return values.std(dim=0)
    share = (weight / weight.sum())[:, None]
    return (share * (values - (share * values).sum(dim=0)).square()).sum(dim=0).sqrt()


def weighted_subset(
    values: Tensor, weight: Tensor | None, n: int, generator: torch.Generator
) -> Tensor:
    """``n`` different rows of (m, d), in random order, the likelier the heavier they are."""
    if weight is None:
        return values[torch.randperm(len(values), generator=generator)[:n]]
    return values[torch.multinomial(weight, n, replacement=False, generator=generator)]
