"""Funnel: nine parameters whose scale is the tenth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from amfvi.targets.base import ExactTarget, normal, require_parameters

__all__ = ["Funnel"]


@dataclass(frozen=True, kw_only=True, repr=False)
class Funnel(ExactTarget):
    """Neal's funnel: v ~ N(0, 3²), xᵢ | v ~ N(0, eᵛ), i = 1 to 9.

    Attributes:
        dim: number of parameters, v included, by default 10.
        sd: standard deviation of v, by default 3.

    Examples:
        >>> Funnel(dim=30, sd=1.0)
        <target funnel: d = 30, sd = 1.0, entropy 42.56816 nats>
    """

    name = "funnel"
    entropy_source = "closed form: E[v] is 0"
    source = "Neal 2003, Annals of Statistics 31:705"
    dim: int = 10
    sd: float = 3.0

    def __post_init__(self) -> None:
        require_parameters(self.name, self.dim >= 2 and self.sd > 0, "dim ≥ 2 and sd > 0")

    @property
    def names(self) -> tuple[str, ...]:
        return ("v", *(f"x{i}" for i in range(1, self.dim)))

    @property
    def entropy(self) -> float:
        return 0.5 * self.dim * math.log(2 * math.pi * math.e) + math.log(self.sd)

    def _log_prob(self, x: Tensor) -> Tensor:
        v, rest = x[:, 0], x[:, 1:]
        level = self.dim * math.log(2 * math.pi) + 2 * math.log(self.sd)
        scaled = rest.square().sum(dim=1) * torch.exp(-v)
        return -0.5 * (v.square() / self.sd**2 + scaled + (self.dim - 1) * v + level)

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        noise = normal(n, self.dim, generator)
        v = self.sd * noise[:, :1]
        return torch.cat([v, noise[:, 1:] * torch.exp(v / 2)], dim=1)
