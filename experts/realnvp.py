"""RealNVP coupling flow (Dinh, Sohl-Dickstein & Bengio 2017, arXiv:1605.08803)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from amfvi.experts.elementwise import BoundedAffine
from amfvi.experts.flow import Flow
from amfvi.experts.neural import NeuralFlowConfig

__all__ = ["RealNVP"]


@dataclass(frozen=True, kw_only=True)
class RealNVP(NeuralFlowConfig):
    """Settings of a RealNVP.

    Each layer shifts and scales every other coordinate by functions of the rest;
    the two halves take turns. Densities and draws both take one pass. In one
    dimension there is no other half and the flow is a Gaussian.
    """

    kind: ClassVar[str] = "realnvp"
    layers: int = 6
    activation: str = "leaky_relu"

    def build(self, dim: int) -> Flow:
        return self._flow(dim, BoundedAffine(), autoregressive=False)
