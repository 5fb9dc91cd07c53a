"""Targets that are two curves in the plane, blurred by Gaussian noise."""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import cache
from typing import ClassVar

import numpy as np
import torch
from amfvi.targets.base import ExactTarget, normal, uniform
from torch import Tensor

__all__ = ["NoisyCurvesTarget"]

CHUNK = 10_000  # points at a time, so that the points × nodes table stays small


class NoisyCurvesTarget(ExactTarget):
    """A point at t ~ U(0, 1) of one of two curves, each with probability ½, plus N(0, noise² I).

    The density is an integral over t, done by Gauss–Legendre quadrature: subclasses give
    as many ``nodes`` as put neighbours well within ``noise`` of each other.
    """

    dim = 2
    noise: ClassVar[float]
    nodes: ClassVar[int]  # on each curve

    @classmethod
    @abstractmethod
    def curves(cls, t: Tensor) -> tuple[Tensor, Tensor]:
        """The points (n, 2) of either curve at ``t`` (n,) in [0, 1]."""

    @classmethod
    @cache
    def _quadrature(cls) -> tuple[Tensor, Tensor]:
        """Nodes on both curves (2·nodes, 2) and their log weights (2·nodes,)."""
        nodes, weights = np.polynomial.legendre.leggauss(cls.nodes)
        centres = torch.cat(cls.curves(torch.from_numpy((nodes + 1) / 2)))
        log_weights = torch.from_numpy(np.log(weights / 4))  # ½ a curve, ½ for [−1, 1] → U(0, 1)
        return centres, log_weights.repeat(2)

    def _log_prob(self, x: Tensor) -> Tensor:
        centres, log_weights = (t.to(x.device) for t in self._quadrature())
        variance = self.noise**2
        parts = [
            torch.logsumexp(
                log_weights - torch.cdist(chunk, centres).square() / (2 * variance), dim=1
            )
            for chunk in x.split(CHUNK)
        ]
        return torch.cat(parts) - math.log(2 * math.pi * variance)

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        first, second = self.curves(uniform(n, generator))
        which = (uniform(n, generator) < 0.5)[:, None]
        return torch.where(which, first, second) + self.noise * normal(n, 2, generator)
