"""RealNVP coupling flow (Dinh, Sohl-Dickstein & Bengio 2017, arXiv:1605.08803)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from amfvi.experts.neural import NeuralFlowConfig
from nflows.nn.nets import ResidualNet
from nflows.transforms import AffineCouplingTransform, CompositeTransform
from nflows.utils import create_alternating_binary_mask
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["RealNVP"]


class BoundedAffineCoupling(AffineCouplingTransform):
    """nflows' affine coupling with a scale that can expand as far as it contracts.

    nflows scales by sigmoid(u + 2) + 0.001, which never exceeds 1.001, so a flow
    of such layers cannot pull two modes apart. Here the scale is
    exp(b·tanh(u/b)) with b = 3: between 1/20 and 20, and 1 at u = 0.
    """

    log_scale_bound = 3.0

    def _scale_and_shift(self, transform_params: Tensor) -> tuple[Tensor, Tensor]:
        shift, unbounded = transform_params.split(self.num_transform_features, dim=1)
        log_scale = self.log_scale_bound * torch.tanh(unbounded / self.log_scale_bound)
        return torch.exp(log_scale), shift


@dataclass(frozen=True, kw_only=True)
class RealNVP(NeuralFlowConfig):
    """Settings of a RealNVP.

    Each layer shifts and scales every other coordinate by functions of the rest;
    the two halves take turns. Densities and draws both take one pass. In one
    dimension there is no other half and the flow is a Gaussian.
    """

    kind: ClassVar[str] = "realnvp"
    layers: int = 6
    blocks: int = 1

    def build(self, dim: int, context_features: int | None = None) -> nn.Module:
        if dim == 1:
            return CompositeTransform([])
        transforms = []
        for layer in range(self.layers):
            coupling = BoundedAffineCoupling(
                mask=create_alternating_binary_mask(dim, even=layer % 2 == 0),
                transform_net_create_fn=lambda inputs, outputs: ResidualNet(
                    inputs,
                    outputs,
                    hidden_features=self.hidden_features,
                    context_features=context_features,
                    num_blocks=self.blocks,
                    activation=F.silu,
                ),
            )
            nn.init.zeros_(coupling.transform_net.final_layer.weight)
            nn.init.zeros_(coupling.transform_net.final_layer.bias)
            transforms.append(coupling)
        return CompositeTransform(transforms)
