"""Targets that are two curves in the plane, blurred by Gaussian noise."""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from amfvi.targets.base import ExactTarget, normal, uniform

__all__ = ["NoisyCurvesTarget"]

CHUNK = 10_000
"""Points evaluated at a time, so that the table of points × nodes stays small."""


class NoisyCurvesTarget(ExactTarget):
    """A point at t ~ U(0, 1) of one of two curves, each with probability ½, plus N(0, noise² I).

    The density is an integral over t, done by Gauss–Legendre quadrature: subclasses give
    as many ``nodes`` as put neighbors well within ``noise`` of each other.

    Attributes:
        noise: standard deviation of the noise.
        nodes: of the quadrature, on each curve.

    Examples:
        >>> class Lines(NoisyCurvesTarget):
        ...     name, source, noise, nodes = "lines", "an example", 0.1, 50
        ...
        ...     @classmethod
        ...     def curves(cls, t):
        ...         line = torch.stack([t, 0 * t], dim=1)
        ...         return line, line + 1
        >>> Lines().sample(3, torch.Generator()).shape
        torch.Size([3, 2])
    """

    dim = 2
    noise: ClassVar[float]
    nodes: ClassVar[int]

    @classmethod
    @abstractmethod
    def curves(cls, t: Tensor) -> tuple[Tensor, Tensor]:
        """The points (n, 2) of either curve at ``t`` (n,) in [0, 1]."""

    @classmethod
    @cache
    def _quadrature(cls) -> tuple[Tensor, Tensor]:
        """Nodes on both curves (2·nodes, 2) and their log weights (2·nodes,)."""
        nodes, weights = np.polynomial.legendre.leggauss(cls.nodes)
        centers = torch.cat(cls.curves(torch.from_numpy((nodes + 1) / 2)))
        log_weights = torch.from_numpy(np.log(weights / 4))  # ½ a curve, ½ for [−1, 1] → U(0, 1)
        return centers, log_weights.repeat(2)

    def _log_prob(self, x: Tensor) -> Tensor:
        centers, log_weights = (t.to(x.device) for t in self._quadrature())
        variance = self.noise**2
        parts = [
            torch.logsumexp(
                log_weights - torch.cdist(chunk, centers).square() / (2 * variance), dim=1
            )
            for chunk in x.split(CHUNK)
        ]
        return torch.cat(parts) - math.log(2 * math.pi * variance)

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        first, second = self.curves(uniform(n, generator))
        which = (uniform(n, generator) < 0.5)[:, None]
        return torch.where(which, first, second) + self.noise * normal(n, 2, generator)
