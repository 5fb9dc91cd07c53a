"""Correlated: a Gaussian of 50 parameters, each correlated with its neighbors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from amfvi.targets.base import ExactTarget, normal, require_parameters

__all__ = ["Correlated"]


@dataclass(frozen=True, kw_only=True, repr=False)
class Correlated(ExactTarget):
    """x₁ ~ N(0, 1), xᵢ | xᵢ₋₁ ~ N(.9 xᵢ₋₁, 1 − .9²), i up to 50.

    Attributes:
        dim: number of parameters, by default 50.
        correlation: of neighbors, by default .9.

    Examples:
        >>> Correlated(dim=3, correlation=0.5).sample(4, torch.Generator()).shape
        torch.Size([4, 3])
    """

    name = "correlated"
    log_z = 12.5
    entropy_source = "closed form"
    source = "a stationary first-order autoregression"
    dim: int = 50
    correlation: float = 0.9

    def __post_init__(self) -> None:
        fits = self.dim >= 1 and abs(self.correlation) < 1
        require_parameters(self.name, fits, "dim ≥ 1 and a correlation between −1 and 1")

    @property
    def entropy(self) -> float:
        independent = 0.5 * self.dim * math.log(2 * math.pi * math.e)
        return independent + 0.5 * (self.dim - 1) * math.log1p(-(self.correlation**2))

    def _log_prob(self, x: Tensor) -> Tensor:
        variance = 1 - self.correlation**2
        steps = (x[:, 1:] - self.correlation * x[:, :-1]).square().sum(dim=1) / variance
        level = self.dim * math.log(2 * math.pi) + (self.dim - 1) * math.log(variance)
        return -0.5 * (x[:, 0].square() + steps + level)

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        noise = normal(n, self.dim, generator)
        columns = [noise[:, 0]]
        for column in noise[:, 1:].unbind(dim=1):
            innovation = math.sqrt(1 - self.correlation**2) * column
            columns.append(self.correlation * columns[-1] + innovation)
        return torch.stack(columns, dim=1)
