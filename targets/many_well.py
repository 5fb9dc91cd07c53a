"""Many-well: sixteen double wells, 2¹⁶ modes of two different heights each."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from amfvi.targets.base import ExactTarget, normal, uniform
from torch import Tensor

__all__ = ["ManyWell"]

WELLS = 16
EDGE = 3.5  # the density of a well is e⁻⁷⁰ of its peak there
NODES = 20_001


def _well(x: Tensor) -> Tensor:
    return -x.pow(4) + 6 * x.square() + 0.5 * x


@lru_cache(maxsize=1)
def _grid() -> tuple[Tensor, Tensor, float, float]:
    """Nodes, their cumulative probability, log ∫ and the entropy of one well."""
    x = torch.linspace(-EDGE, EDGE, NODES, dtype=torch.float64)
    step = float(x[1] - x[0])
    log_z = float(torch.logsumexp(_well(x), dim=0)) + math.log(step)
    p = (_well(x) - log_z).exp() * step
    entropy = float(-(p * (_well(x) - log_z)).sum())
    return x, p.cumsum(dim=0) - p / 2, log_z, entropy


class ManyWell(ExactTarget):
    """log p̃ = Σᵢ (−aᵢ⁴ + 6aᵢ² + ½aᵢ − ½bᵢ²) over sixteen pairs (aᵢ, bᵢ)."""

    name = "many_well"
    dim = 2 * WELLS
    names = tuple(f"{letter}[{i}]" for i in range(1, WELLS + 1) for letter in "ab")
    entropy_source = "quadrature in one dimension"
    source = "Noé et al. 2019; Midgley et al. 2023 (arXiv:2208.01893)"

    def __init__(self) -> None:
        _, _, log_z, entropy = _grid()
        self.log_z = WELLS * (log_z + 0.5 * math.log(2 * math.pi))
        self.entropy = WELLS * (entropy + 0.5 * math.log(2 * math.pi * math.e))

    def _log_prob(self, x: Tensor) -> Tensor:
        a, b = x[:, 0::2], x[:, 1::2]
        return (_well(a) - 0.5 * b.square()).sum(dim=1) - (self.log_z or 0.0)

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        nodes, cumulative, _, _ = _grid()
        wanted = uniform(n * WELLS, generator)
        right = torch.searchsorted(cumulative, wanted).clamp(1, NODES - 1)
        below, above = cumulative[right - 1], cumulative[right]
        share = ((wanted - below) / (above - below)).clamp(0, 1)
        a = torch.lerp(nodes[right - 1], nodes[right], share).view(n, WELLS)
        return torch.stack([a, normal(n, WELLS, generator)], dim=2).flatten(1)
