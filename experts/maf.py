"""Masked autoregressive flow (Papamakarios, Pavlakou & Murray 2017, arXiv:1705.07057)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from amfvi.experts.neural import NeuralFlowConfig
from nflows.transforms import (
    CompositeTransform,
    MaskedAffineAutoregressiveTransform,
    ReversePermutation,
)
from torch import nn
from torch.nn import functional as F

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

    def build(self, dim: int, context_features: int | None = None) -> nn.Module:
        transforms: list[nn.Module] = []
        for layer in range(self.layers):
            if layer > 0:
                transforms.append(ReversePermutation(dim))
            transform = MaskedAffineAutoregressiveTransform(
                features=dim,
                hidden_features=self.hidden_features,
                context_features=context_features,
                num_blocks=self.blocks,
                use_residual_blocks=False,
                activation=F.silu,
            )
            _start_at_identity(transform)
            transforms.append(transform)
        return CompositeTransform(transforms)


@torch.no_grad()
def _start_at_identity(transform: MaskedAffineAutoregressiveTransform) -> None:
    """Zero the last layer, with the bias that makes softplus(bias) + ε = 1."""
    final = transform.autoregressive_net.final_layer
    final.weight.zero_()
    final.bias.zero_()
    final.bias.view(-1, 2)[:, 0] = math.log(math.expm1(1 - transform._epsilon))
