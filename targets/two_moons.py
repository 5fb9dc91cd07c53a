"""Two moons: interleaved half circles with Gaussian noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from amfvi.targets.noisy_curves import NoisyCurvesTarget

__all__ = ["TwoMoons"]


@dataclass(frozen=True, repr=False)
class TwoMoons(NoisyCurvesTarget):
    """A point at angle θ ~ U(0, π) on one of two arcs, plus N(0, 0.1² I).

    The arcs are (cos θ, sin θ) and (1 − cos θ, ½ − sin θ), each with probability ½.

    Examples:
        >>> TwoMoons()
        <target two_moons: d = 2, entropy 1.00758 nats>
    """

    name = "two_moons"
    entropy = 1.00758
    entropy_source = "quadrature on a grid"
    source = "AMF-VI, arXiv:2510.02056; scikit-learn's make_moons"
    view = ((-1.6, 2.6), (-1.1, 1.6))
    noise = 0.1
    nodes = 400

    @classmethod
    def curves(cls, t: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = (math.pi * t).cos(), (math.pi * t).sin()
        return torch.stack([cos, sin], dim=1), torch.stack([1 - cos, 0.5 - sin], dim=1)
