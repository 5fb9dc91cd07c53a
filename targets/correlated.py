"""Correlated: a Gaussian of 50 parameters, each correlated with its neighbours."""

from __future__ import annotations

import math

import torch
from amfvi.targets.base import ExactTarget, normal
from torch import Tensor

__all__ = ["Correlated"]

CORRELATION = 0.9


class Correlated(ExactTarget):
    """x₁ ~ N(0, 1), xᵢ | xᵢ₋₁ ~ N(.9 xᵢ₋₁, 1 − .9²), i up to 50."""

    name = "correlated"
    dim = 50
    log_z = 12.5
    entropy = 0.5 * dim * math.log(2 * math.pi * math.e) + 0.5 * (dim - 1) * math.log1p(
        -(CORRELATION**2)
    )
    entropy_source = "closed form"
    source = "a stationary first-order autoregression"

    def _log_prob(self, x: Tensor) -> Tensor:
        variance = 1 - CORRELATION**2
        steps = (x[:, 1:] - CORRELATION * x[:, :-1]).square().sum(dim=1) / variance
        level = self.dim * math.log(2 * math.pi) + (self.dim - 1) * math.log(variance)
        return -0.5 * (x[:, 0].square() + steps + level)

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        noise = normal(n, self.dim, generator)
        columns = [noise[:, 0]]
        for column in noise[:, 1:].unbind(dim=1):
            columns.append(CORRELATION * columns[-1] + math.sqrt(1 - CORRELATION**2) * column)
        return torch.stack(columns, dim=1)
