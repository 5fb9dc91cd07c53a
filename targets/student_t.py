"""Student-t: heavy tails in 20 parameters."""

from __future__ import annotations

import math

import torch
from amfvi.targets.base import ExactTarget, normal
from scipy.special import psi
from torch import Tensor

__all__ = ["StudentT"]

FREEDOM = 5


class StudentT(ExactTarget):
    """Multivariate Student-t with 5 degrees of freedom, scale identity, in 20 dimensions."""

    name = "student_t"
    dim = 20
    log_z = -4.0
    _level = (
        math.lgamma((FREEDOM + dim) / 2)
        - math.lgamma(FREEDOM / 2)
        - 0.5 * dim * math.log(FREEDOM * math.pi)
    )
    entropy = -_level + 0.5 * (FREEDOM + dim) * float(psi((FREEDOM + dim) / 2) - psi(FREEDOM / 2))
    entropy_source = "closed form"
    source = "Kotz & Nadarajah 2004"

    def _log_prob(self, x: Tensor) -> Tensor:
        squared = x.square().sum(dim=1)
        return self._level - 0.5 * (FREEDOM + self.dim) * torch.log1p(squared / FREEDOM)

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        chi_squared = normal(n, FREEDOM, generator).square().sum(dim=1, keepdim=True)
        return normal(n, self.dim, generator) * (FREEDOM / chi_squared).sqrt()
