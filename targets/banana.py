"""Banana: a Gaussian bent along a parabola."""

from __future__ import annotations

import math

import torch
from amfvi.targets.base import ExactTarget, normal
from torch import Tensor

__all__ = ["Banana"]


class Banana(ExactTarget):
    """x₁ ~ N(0, 2), x₂ | x₁ ~ N(x₁²/4, 1); 2 and 1 are variances."""

    name = "banana"
    dim = 2
    entropy = 0.5 * math.log(2 * math.pi * math.e * 2) + 0.5 * math.log(2 * math.pi * math.e)
    entropy_source = "closed form: the bend keeps volume"
    source = "AMF-VI, arXiv:2510.02056; Haario, Saksman & Tamminen 1999"
    view = ((-5.0, 5.0), (-3.5, 6.5))

    def _log_prob(self, x: Tensor) -> Tensor:
        bent = x[:, 1] - x[:, 0].square() / 4
        return (
            -0.5 * (x[:, 0].square() / 2 + bent.square())
            - 0.5 * math.log(2)
            - math.log(2 * math.pi)
        )

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        scores = normal(n, 2, generator)
        first = math.sqrt(2) * scores[:, 0]
        return torch.stack([first, scores[:, 1] + first.square() / 4], dim=1)
