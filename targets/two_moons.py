"""Two moons: interleaved half circles with Gaussian noise."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from amfvi.targets.base import Target, normal, uniform
from torch import Tensor

__all__ = ["TwoMoons"]

NOISE = 0.1
NODES = 400  # per arc; the integrand is smooth on the scale π/400 of the nodes
CHUNK = 20_000  # points at a time, so that the points × nodes table stays small


@lru_cache(maxsize=1)
def _arcs() -> tuple[Tensor, Tensor]:
    """Quadrature nodes on both arcs (2·NODES, 2) and their log weights (2·NODES,)."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    angle = torch.from_numpy((nodes + 1) * math.pi / 2)
    upper = torch.stack([angle.cos(), angle.sin()], dim=1)
    lower = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], dim=1)
    log_weights = torch.from_numpy(np.log(weights / 4))  # ½ per arc, ½ for [−1, 1] → U(0, π)
    return torch.cat([upper, lower]), log_weights.repeat(2)


class TwoMoons(Target):
    """A point at angle θ ~ U(0, π) on one of two arcs, plus N(0, 0.1² I).

    The arcs are (cos θ, sin θ) and (1 − cos θ, ½ − sin θ), each with probability ½.
    The density is an integral over θ, done by Gauss–Legendre quadrature.
    """

    name = "two_moons"
    dim = 2
    entropy = 1.00758
    entropy_source = "quadrature on a grid"
    source = "AMF-VI, arXiv:2510.02056; scikit-learn's make_moons"
    view = ((-1.6, 2.6), (-1.1, 1.6))

    def _log_prob(self, x: Tensor) -> Tensor:
        centres, log_weights = (t.to(x.device) for t in _arcs())
        constant = math.log(2 * math.pi * NOISE**2)
        parts = [
            torch.logsumexp(
                log_weights - torch.cdist(chunk, centres).square() / (2 * NOISE**2), dim=1
            )
            for chunk in x.split(CHUNK)
        ]
        return torch.cat(parts) - constant if parts else x.new_zeros(0)

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        angle = math.pi * uniform(n, generator)
        upper = (uniform(n, generator) < 0.5)[:, None]
        first = torch.stack([angle.cos(), angle.sin()], dim=1)
        second = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], dim=1)
        return torch.where(upper, first, second) + NOISE * normal(n, 2, generator)
