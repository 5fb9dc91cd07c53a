"""Funnel: nine parameters whose scale is the tenth."""

from __future__ import annotations

import math

import torch
from amfvi.targets.base import ExactTarget, normal
from torch import Tensor

__all__ = ["Funnel"]


class Funnel(ExactTarget):
    """Neal's funnel: v ~ N(0, 3²), xᵢ | v ~ N(0, eᵛ), i = 1 to 9."""

    name = "funnel"
    dim = 10
    names = ("v", *(f"x{i}" for i in range(1, 10)))
    entropy = 0.5 * dim * math.log(2 * math.pi * math.e) + math.log(3)
    entropy_source = "closed form: E[v] is 0"
    source = "Neal 2003, Annals of Statistics 31:705"

    def _log_prob(self, x: Tensor) -> Tensor:
        v, rest = x[:, 0], x[:, 1:]
        level = self.dim * math.log(2 * math.pi) + 2 * math.log(3)
        scaled = rest.square().sum(dim=1) * torch.exp(-v)
        return -0.5 * (v.square() / 9 + scaled + (self.dim - 1) * v + level)

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        noise = normal(n, self.dim, generator)
        v = 3 * noise[:, :1]
        return torch.cat([v, noise[:, 1:] * torch.exp(v / 2)], dim=1)
