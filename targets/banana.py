"""Banana: a Gaussian bent along a parabola."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from amfvi.targets.base import ExactTarget, normal, require_parameters

__all__ = ["Banana"]


@dataclass(frozen=True, kw_only=True, repr=False)
class Banana(ExactTarget):
    """x₁ ~ N(0, 2), x₂ | x₁ ~ N(x₁²/4, 1); 2 and 1 are variances.

    Attributes:
        variance: of x₁, by default 2.
        curvature: the factor of x₁² in the mean of x₂, by default ¼.

    Examples:
        >>> Banana()
        <target banana: d = 2, variance = 2.0, curvature = 0.25, entropy 3.18445 nats>
    """

    name = "banana"
    dim = 2
    entropy_source = "closed form: the bend keeps volume"
    source = "AMF-VI, arXiv:2510.02056; Haario, Saksman & Tamminen 1999"
    variance: float = 2.0
    curvature: float = 0.25

    def __post_init__(self) -> None:
        require_parameters(self.name, self.variance > 0, "variance > 0")

    @property
    def entropy(self) -> float:
        straight = 2 * math.pi * math.e
        return 0.5 * math.log(straight * self.variance) + 0.5 * math.log(straight)

    @property
    def view(self) -> tuple[tuple[float, float], ...]:
        half = 5 * math.sqrt(self.variance / 2)
        bend = self.curvature * half**2
        return ((-half, half), (min(0.0, bend) - 3.5, max(3.5, bend + 0.25)))

    def _log_prob(self, x: Tensor) -> Tensor:
        bent = x[:, 1] - x[:, 0].square() * self.curvature
        return (
            -0.5 * (x[:, 0].square() / self.variance + bent.square())
            - 0.5 * math.log(self.variance)
            - math.log(2 * math.pi)
        )

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        scores = normal(n, 2, generator)
        first = math.sqrt(self.variance) * scores[:, 0]
        return torch.stack([first, scores[:, 1] + first.square() * self.curvature], dim=1)
