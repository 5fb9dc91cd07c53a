"""RealNVP coupling flow (Dinh, Sohl-Dickstein & Bengio 2017, arXiv:1605.08803)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from amfvi.experts.flows.elementwise import BoundedAffine
from amfvi.experts.flows.flow import Flow
from amfvi.experts.neural import NeuralFlowConfig

__all__ = ["RealNVP"]


@dataclass(frozen=True, kw_only=True)
class RealNVP(NeuralFlowConfig):
    """Settings of a RealNVP.

    Each layer shifts and scales every other coordinate by functions of the rest;
    the two halves alternate. Densities and draws both take one pass. From three dimensions
    on a learned linear map stands before each layer, as in Glow (Kingma & Dhariwal 2018,
    arXiv:1807.03039). In one dimension there is no other half and the flow is a Gaussian.

    Examples:
        >>> import torch
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> RealNVP(layers=2, max_steps=25).fit(x, folds=2).sample((3, 4)).shape
        torch.Size([3, 4, 2])
    """

    kind: ClassVar[str] = "realnvp"
    layers: int = 6
    activation: str = "leaky_relu"

    def build(self, dim: int, given: int = 0) -> Flow:
        """The architecture in ``dim`` dimensions, given a condition of ``given``."""
        return self._build_flow(dim, given, BoundedAffine(), autoregressive=False)
