"""Many-well: sixteen double wells, 2¹⁶ modes of two different heights each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from amfvi.targets.base import ExactTarget, normal, require_parameters, uniform

__all__ = ["ManyWell"]

EDGE = 3.5
"""Where the grid over a well ends; its density is e⁻⁷⁰ of its peak there."""

NODES = 20_001
"""Nodes of the grid over a well."""


def _well(x: Tensor) -> Tensor:
    return -x.pow(4) + 6 * x.square() + 0.5 * x


class _Grid(NamedTuple):
    """One well by quadrature."""

    nodes: Tensor
    cumulative: Tensor
    log_z: float
    entropy: float


@cache
def _grid() -> _Grid:
    x = torch.linspace(-EDGE, EDGE, NODES, dtype=torch.float64)
    step = float(x[1] - x[0])
    log_z = float(torch.logsumexp(_well(x), dim=0)) + math.log(step)
    p = (_well(x) - log_z).exp() * step
    entropy = float(-(p * (_well(x) - log_z)).sum())
    return _Grid(x, p.cumsum(dim=0) - p / 2, log_z, entropy)


@dataclass(frozen=True, kw_only=True, repr=False)
class ManyWell(ExactTarget):
    """log p̃ = Σᵢ (−aᵢ⁴ + 6aᵢ² + ½aᵢ − ½bᵢ²) over sixteen pairs (aᵢ, bᵢ).

    Attributes:
        dim: number of parameters, two per pair, by default 32.

    Examples:
        >>> ManyWell(dim=4).names
        ('a[1]', 'b[1]', 'a[2]', 'b[2]')
    """

    name = "many_well"
    entropy_source = "quadrature in one dimension"
    source = "Noé et al. 2019; Midgley et al. 2023 (arXiv:2208.01893)"
    dim: int = 32

    def __post_init__(self) -> None:
        require_parameters(self.name, self.dim >= 2 and self.dim % 2 == 0, "an even dim ≥ 2")

    @property
    def n_wells(self) -> int:
        """Number of pairs (a, b)."""
        return self.dim // 2

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{letter}[{i}]" for i in range(1, self.n_wells + 1) for letter in "ab")

    @property
    def log_z(self) -> float:
        return self.n_wells * (_grid().log_z + 0.5 * math.log(2 * math.pi))

    @property
    def entropy(self) -> float:
        return self.n_wells * (_grid().entropy + 0.5 * math.log(2 * math.pi * math.e))

    def _log_prob(self, x: Tensor) -> Tensor:
        a, b = x[:, 0::2], x[:, 1::2]
        return (_well(a) - 0.5 * b.square()).sum(dim=1) - self.log_z

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        nodes, cumulative, _, _ = _grid()
        wanted = uniform(n * self.n_wells, generator)
        right = torch.searchsorted(cumulative, wanted).clamp(1, NODES - 1)
        below, above = cumulative[right - 1], cumulative[right]
        share = ((wanted - below) / (above - below)).clamp(0, 1)
        a = torch.lerp(nodes[right - 1], nodes[right], share).view(n, self.n_wells)
        return torch.stack([a, normal(n, self.n_wells, generator)], dim=2).flatten(1)
