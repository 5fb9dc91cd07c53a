"""Masked autoregressive flow (Papamakarios, Pavlakou & Murray 2017, arXiv:1705.07057)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from amfvi.experts.elementwise import SoftplusAffine
from amfvi.experts.flow import Flow
from amfvi.experts.neural import NeuralFlowConfig

__all__ = ["MAF"]


@dataclass(frozen=True, kw_only=True)
class MAF(NeuralFlowConfig):
    """Settings of a masked autoregressive flow.

    Each layer shifts and scales every coordinate by functions of those before it;
    the order is reversed from layer to layer. A density takes one pass, a draw
    takes d passes. In one dimension there is nothing to condition on and the flow
    is a Gaussian.
    """

    kind: ClassVar[str] = "maf"
    activation: str = "leaky_relu"

    def build(self, dim: int) -> Flow:
        return self._flow(dim, SoftplusAffine(), autoregressive=True)
