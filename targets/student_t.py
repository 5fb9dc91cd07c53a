"""Student-t: heavy tails in 20 parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.special import psi
from torch import Tensor

from amfvi.targets.base import ExactTarget, normal, require_parameters

__all__ = ["StudentT"]


@dataclass(frozen=True, kw_only=True, repr=False)
class StudentT(ExactTarget):
    """Multivariate Student-t with 5 degrees of freedom, scale identity, in 20 dimensions.

    Attributes:
        dim: number of parameters, by default 20.
        df: degrees of freedom, a whole number, by default 5.

    Examples:
        >>> StudentT(dim=2, df=3)
        <target student_t: d = 2, df = 3, entropy 3.50454 nats>
    """

    name = "student_t"
    log_z = -4.0
    entropy_source = "closed form"
    source = "Kotz & Nadarajah 2004"
    dim: int = 20
    df: int = 5

    def __post_init__(self) -> None:
        fits = self.dim >= 1 and self.df >= 1 and self.df == int(self.df)
        require_parameters(self.name, fits, "dim ≥ 1 and a whole df ≥ 1")

    @property
    def entropy(self) -> float:
        both = self.df + self.dim
        return -self._level + 0.5 * both * float(psi(both / 2) - psi(self.df / 2))

    @property
    def _level(self) -> float:
        """The log density at the center."""
        return (
            math.lgamma((self.df + self.dim) / 2)
            - math.lgamma(self.df / 2)
            - 0.5 * self.dim * math.log(self.df * math.pi)
        )

    def _log_prob(self, x: Tensor) -> Tensor:
        squared = x.square().sum(dim=1)
        return self._level - 0.5 * (self.df + self.dim) * torch.log1p(squared / self.df)

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        chi_squared = normal(n, self.df, generator).square().sum(dim=1, keepdim=True)
        return normal(n, self.dim, generator) * (self.df / chi_squared).sqrt()
