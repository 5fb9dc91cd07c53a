"""Masked autoregressive flow (Papamakarios, Pavlakou & Murray 2017, arXiv:1705.07057)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from amfvi.experts.flows.elementwise import SoftplusAffine
from amfvi.experts.flows.flow import Flow
from amfvi.experts.neural import NeuralFlowConfig

__all__ = ["MAF"]


@dataclass(frozen=True, kw_only=True)
class MAF(NeuralFlowConfig):
    """Settings of a masked autoregressive flow.

    Each layer shifts and scales every coordinate by functions of those before it;
    the order is reversed from layer to layer. A density takes one pass, a draw
    takes d passes. From three dimensions on a learned linear map stands before each layer,
    which is not in the paper. In one dimension there is nothing to condition on and the flow
    is a Gaussian.

    Examples:
        >>> import torch
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> expert = MAF(layers=2, max_steps=25).fit(x, folds=2)
        >>> expert.log_prob(x).shape, expert.sample(1000).shape
        (torch.Size([200]), torch.Size([1000, 2]))
    """

    kind: ClassVar[str] = "maf"
    activation: str = "leaky_relu"

    def build(self, dim: int, given: int = 0) -> Flow:
        """The architecture in ``dim`` dimensions, given a condition of ``given``."""
        return self._build_flow(dim, given, SoftplusAffine(), autoregressive=True)
