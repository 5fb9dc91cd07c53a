"""Export of fitted neural flows as modules of nflows.

The only module that imports nflows, which brings heavy dependencies of its own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from amfvi.errors import UsageError
from amfvi.experts.base import Expert
from amfvi.experts.flows.elementwise import BoundedAffine, RationalQuadratic, SoftplusAffine
from amfvi.experts.flows.flow import ACTIVATIONS, MIXING, Flow
from amfvi.experts.neural import NeuralFlow, NeuralFlowConfig

try:
    from nflows.nn.nets import MLP
    from nflows.transforms import (
        AffineCouplingTransform,
        CompositeTransform,
        MaskedAffineAutoregressiveTransform,
        MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
        ReversePermutation,
        Transform,
    )
    from nflows.utils import create_alternating_binary_mask
except ImportError as error:
    raise UsageError(
        f"the export to nflows needs the package nflows, which cannot be imported ({error}); "
        "install it with: pip install nflows"
    ) from error

__all__ = ["BoundedAffineCoupling", "Conditioner", "LinearMap", "to_nflows"]

Layer = dict[str, Tensor]
"""Parameters of one layer of one member by name."""


class BoundedAffineCoupling(AffineCouplingTransform):
    """nflows' affine coupling with the scale of :class:`BoundedAffine`.

    Examples:
        >>> coupling = BoundedAffineCoupling(
        ...     mask=torch.tensor([0, 1]),
        ...     transform_net_create_fn=lambda n_in, n_out: Conditioner([n_in], [n_out], [8]))
        >>> coupling(torch.zeros(3, 2))[0].shape
        torch.Size([3, 2])
    """

    def _scale_and_shift(self, transform_params: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = transform_params.split(self.num_transform_features, dim=1)
        return BoundedAffine().scale(raw)[0], shift


class LinearMap(Transform):
    """The linear map of a matrix (d, d); those of nflows invert by functions that torch dropped.

    Examples:
        >>> points, log_det = LinearMap(2 * torch.eye(2))(torch.ones(1, 2))
        >>> points, log_det
        (tensor([[2., 2.]]), tensor([1.3863]))
    """

    matrix: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix.clone())

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return inputs @ self.matrix.T, self._log_det(inputs)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return torch.linalg.solve(self.matrix, inputs.T).T, -self._log_det(inputs)

    def _log_det(self, inputs: Tensor) -> Tensor:
        return torch.linalg.slogdet(self.matrix)[1].expand(len(inputs))


class Conditioner(MLP):
    """nflows' perceptron with the context argument that its couplings pass, unused.

    Examples:
        >>> Conditioner([2], [3], [8])(torch.zeros(4, 2), context=None).shape
        torch.Size([4, 3])
    """

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        return super().forward(inputs)


def to_nflows(expert: Expert, member: int = 0) -> CompositeTransform:
    """Export one member's map from whitened points to normal scores, in float64.

    Its log density at x is that of a standard normal at the transform of
    ``expert.whitening.forward(x)``, plus the log-determinants of both.

    Raises:
        UsageError: not a neural flow, no such member, or a layer that nflows lacks.

    Examples:
        >>> from amfvi.experts import MAF
        >>> x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0)).double()
        >>> expert = MAF(layers=2, max_steps=25).fit(x, folds=1)
        >>> transform = to_nflows(expert)
        >>> u, log_det = transform(expert.whitening.forward(x[None])[0].T)
        >>> log_q = torch.distributions.Normal(0.0, 1.0).log_prob(u).sum(dim=1) + log_det
        >>> torch.allclose(log_q + expert.whitening.log_det, expert.log_prob(x))
        True
    """
    if isinstance(expert.config, NeuralFlowConfig) and not isinstance(expert, NeuralFlow):
        raise UsageError(
            f"this {expert.config.kind} has a Gaussian mixture as its base, which the export to "
            "nflows lacks: fit it with base_components=1"
        )
    if not isinstance(expert, NeuralFlow):
        raise UsageError(
            f"only a maf, realnvp or nsf can be exported to nflows, found {expert.config.kind}"
        )
    if not 0 <= member < expert.n_members:
        raise UsageError(f"member must be in 0 … {expert.n_members - 1}, found {member}")
    flow = expert.flow
    learned = {name: value.double() for name, value in expert.parameters.items()}
    transforms: list[nn.Module] = []
    for number in range(flow.layers):
        layer = {name: value[member, number] for name, value in learned.items()}
        if flow.autoregressive and number:
            transforms.append(ReversePermutation(flow.dim))
        if flow.mixes:
            is_reversed = flow.autoregressive and number % 2 == 1
            mixing = layer[MIXING].flip(0, 1) if is_reversed else layer[MIXING]
            transforms.append(LinearMap(mixing))
        if flow.autoregressive:
            transforms.append(_autoregressive(flow, layer, reverse=number % 2 == 1))
        else:
            transforms.append(_coupling(flow, layer, number))
    return CompositeTransform(transforms).double().eval().requires_grad_(False)


def _autoregressive(flow: Flow, layer: Layer, *, reverse: bool) -> nn.Module:
    """One autoregressive layer; with the order of the coordinates reversed if ``reverse``."""
    shared = {
        "features": flow.dim,
        "hidden_features": flow.width,
        "num_blocks": flow.depth - 1,
        "use_residual_blocks": False,
        "activation": ACTIVATIONS[flow.activation],
    }
    weight = layer["input.weight"].flip(1) if reverse else layer["input.weight"]
    output = {
        name: layer[name].view(flow.elementwise.parameters, flow.dim, -1)
        for name in ("output.weight", "output.bias")
    }
    if reverse:
        output = {name: value.flip(1) for name, value in output.items()}
    if isinstance(flow.elementwise, SoftplusAffine):
        transform = MaskedAffineAutoregressiveTransform(**shared)
    elif isinstance(flow.elementwise, RationalQuadratic):
        spline = flow.elementwise
        transform = MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
            num_bins=spline.bins,
            tails="linear",
            tail_bound=spline.edge,
            min_bin_width=spline.min_share,
            min_bin_height=spline.min_share,
            min_derivative=spline.min_slope,
            **shared,
        )
        if hasattr(transform.autoregressive_net, "hidden_features"):  # it divides by √H then
            output = {name: value.clone() for name, value in output.items()}
            for value in output.values():
                value[: 2 * spline.bins] *= math.sqrt(flow.width)
    else:
        raise UsageError(f"nflows has no autoregressive {type(flow.elementwise).__name__}")
    net = transform.autoregressive_net
    _fill(net.initial_layer, weight, layer["input.bias"])
    for block, w, b in zip(net.blocks, layer["hidden.weight"], layer["hidden.bias"], strict=True):
        _fill(block.linear, w, b)
    # Ours are ordered (parameter, coordinate), theirs (coordinate, parameter).
    _fill(
        net.final_layer,
        output["output.weight"].transpose(0, 1).flatten(0, 1),
        output["output.bias"].transpose(0, 1).flatten(0, 1),
    )
    return transform


def _coupling(flow: Flow, layer: Layer, number: int) -> nn.Module:
    """The coupling layer of this number."""
    if not isinstance(flow.elementwise, BoundedAffine):
        raise UsageError(f"no export of couplings by {type(flow.elementwise).__name__}")
    mask = create_alternating_binary_mask(flow.dim, even=number % 2 == 0)
    moved = mask > 0
    order = torch.arange(1, flow.dim + 1)
    if bool((moved == (order % 2 == number % 2)).any()):
        raise UsageError("the halves of the coupling are not those of nflows")

    transform = BoundedAffineCoupling(
        mask=mask,
        transform_net_create_fn=lambda inputs, outputs: Conditioner(
            [inputs], [outputs], [flow.width] * flow.depth, activation=ACTIVATIONS[flow.activation]
        ),
    )
    net = transform.transform_net
    _fill(net._input_layer, layer["input.weight"][:, ~moved], layer["input.bias"])
    for linear, w, b in zip(
        net._hidden_layers, layer["hidden.weight"], layer["hidden.bias"], strict=True
    ):
        _fill(linear, w, b)
    # Ours are (scale, shift) of every coordinate, theirs (shift, scale) of the moved ones.
    weight, bias = (
        layer[name].view(2, flow.dim, -1)[:, moved].flip(0).flatten(0, 1)
        for name in ("output.weight", "output.bias")
    )
    _fill(net._output_layer, weight, bias)
    return transform


@torch.no_grad()
def _fill(linear: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    """Set a linear layer's parameters, in float64."""
    linear.double()
    mask = getattr(linear, "mask", None)
    if isinstance(mask, Tensor):
        mask.fill_(1)  # our weights are zero where our own masks are
    linear.weight.copy_(weight)
    linear.bias.copy_(bias.squeeze(-1))
