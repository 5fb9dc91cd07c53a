"""Flows of equal layers, for all members of an ensemble at once.

A layer is a network that reads some coordinates and gives, for each coordinate, the
parameters of an increasing function. Masks decide which inputs an output depends on:
degrees make the layer autoregressive (Germain et al. 2015, arXiv:1502.03509), halves
make it a coupling. Permutations between layers are in the masks as well, so that no
coordinate is ever moved in memory. Masked weights are zero from the start and stay
zero, which spares a product with the mask in every evaluation.

From three coordinates on a learned linear map of all of them stands before each layer
(Kingma & Dhariwal 2018, arXiv:1807.03039, have one between layers of images): what is bent or
split along no axis is out of reach of few layers that see fixed halves or orders.

Points are feature-major, (members, features, n): the rows that elementwise functions
work on are contiguous, and a layer is one batched matrix product.
``amfvi.interop.nflows`` writes the same flow as nflows modules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor
from torch.nn import functional as F

from amfvi.experts.flows.bijection import normal_nll
from amfvi.experts.flows.elementwise import Elementwise

__all__ = ["ACTIVATIONS", "HIDDEN", "MIXING", "Flow", "Parameters"]

Parameters = dict[str, Tensor]
"""Learned tensors by name, each with the members as its first dimension."""

HIDDEN = "hidden.weight"
"""Name of the parameter that holds the square weights between hidden layers."""

MIXING = "mixing.weight"
"""Name of the parameter that holds the linear maps before the layers."""

MANY_COUPLED = 16
"""Coordinates from which slices of masked parameters cost less in training than what they save."""

ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "leaky_relu": partial(F.leaky_relu, negative_slope=0.1),
    "silu": F.silu,
}
"""Functions of the hidden units by name; each takes the argument ``inplace``."""


@dataclass(frozen=True, kw_only=True)
class Flow:
    """The architecture of a flow; learned parameters are an argument of each call.

    Where leading rows of the points are a condition, every network reads them, and they pass
    through unchanged: normal scores and log-determinants are of the other coordinates.

    Attributes:
        dim: number of coordinates d.
        layers: number of layers L.
        width: hidden units H of each network.
        depth: hidden layers D of each network.
        autoregressive: each coordinate sees those before it, in an order that is
            reversed from layer to layer; otherwise the two halves alternate.
        elementwise: the family of increasing functions.
        activation: of the hidden units, a name in ``ACTIVATIONS``.
        given: number of leading rows of the points that are a condition.
        mixes: whether a learned linear map of all coordinates stands before each layer, so
            that what a layer sees is not bound to the axes.

    Examples:
        >>> from amfvi.experts import MAF
        >>> flow = MAF(layers=2).build(dim=3)
        >>> parameters = flow.initial(members=5, generator=torch.Generator())
        >>> z = torch.zeros(5, 3, 4)
        >>> u, log_det = flow.forward(parameters, z)
        >>> torch.allclose(u, z), log_det.shape  # the identity at the start
        (True, torch.Size([5, 4]))
    """

    dim: int
    layers: int
    width: int
    depth: int
    autoregressive: bool
    elementwise: Elementwise
    activation: str
    given: int = 0
    mixes: bool = False

    def shapes(self, members: int) -> dict[str, torch.Size]:
        """Shapes of the parameters by name; the outputs are ordered (parameter, coordinate)."""
        outputs = self.elementwise.parameters * self.dim
        lead = (members, self.layers)
        mixing = {MIXING: torch.Size((*lead, self.dim, self.dim))} if self.mixes else {}
        return {
            "input.weight": torch.Size((*lead, self.width, self.given + self.dim)),
            "input.bias": torch.Size((*lead, self.width, 1)),
            HIDDEN: torch.Size((*lead, self.depth - 1, self.width, self.width)),
            "hidden.bias": torch.Size((*lead, self.depth - 1, self.width, 1)),
            "output.weight": torch.Size((*lead, outputs, self.width)),
            "output.bias": torch.Size((*lead, outputs, 1)),
            **mixing,
        }

    @cached_property
    def masks(self) -> Parameters:
        """For each parameter 1 where it may differ from zero, shaped as for one member."""
        parts = [self._layer_masks(layer) for layer in range(self.layers)]
        return {name: torch.stack([part[name] for part in parts]) for name in self.shapes(1)}

    def initial(self, members: int, generator: torch.Generator) -> Parameters:
        """Random hidden layers and outputs that make every layer the identity, float32."""
        identity = self.elementwise.identity().float().repeat_interleave(self.dim)[:, None]
        parameters = {}
        for name, shape in self.shapes(members).items():
            if name == "output.weight":
                parameters[name] = torch.zeros(shape, dtype=torch.float32)
            elif name == MIXING:
                parameters[name] = torch.eye(self.dim).expand(shape).clone()
            elif name == "output.bias":
                parameters[name] = identity.expand(shape).clone()
            else:
                fan_in = self.given + self.dim if name.startswith("input") else self.width
                uniform = 2 * torch.rand(shape, generator=generator, dtype=torch.float32) - 1
                parameters[name] = uniform / math.sqrt(fan_in) * self.masks[name]
        return parameters

    @property
    def moves_halves(self) -> bool:
        """Whether a layer computes only what is not masked; it pays in many dimensions."""
        return not self.autoregressive and not self.given and self.dim >= MANY_COUPLED

    def nll(self, parameters: Parameters, z: Tensor) -> Tensor:
        """−log density of the flow to the standard normal at z (members, given + d, n), nats."""
        return normal_nll(*self.forward(parameters, z))

    def forward(self, parameters: Parameters, z: Tensor) -> tuple[Tensor, Tensor]:
        """Points (members, given + d, n) to normal scores and log-determinants (members, n)."""
        log_det = z.new_zeros(z.shape[0], z.shape[2])
        condition, z = z[:, : self.given], z[:, self.given :]
        if self.mixes:
            log_det = log_det + torch.linalg.slogdet(parameters[MIXING])[1].sum(dim=1)[:, None]
        for number, layer in enumerate(self.unstacked(parameters)):
            if self.mixes:
                z = parameters[MIXING][:, number] @ z
            if self.moves_halves:
                z, log_slope = self._move_half(number, layer, z)
            else:
                joint = torch.cat([condition, z], dim=1) if self.given else z
                z, log_slope = self.elementwise.forward(z, self.network(layer, joint))
            log_det = log_det + log_slope.sum(dim=1)
        return z, log_det

    def unstacked(self, parameters: Parameters) -> Iterator[tuple[Tensor, ...]]:
        """The parameters of one network after another, each (members, …)."""
        names = [name for name in self.shapes(1) if name != MIXING]
        return zip(*(parameters[name].unbind(1) for name in names), strict=True)

    def network(self, layer: tuple[Tensor, ...], z: Tensor) -> Tensor:
        """Raw parameters (members, parameters, d, n) of one layer at (members, given + d, n)."""
        w_in, b_in, w_hidden, b_hidden, w_out, b_out = layer
        activation = ACTIVATIONS[self.activation]
        h = activation(torch.baddbmm(b_in, w_in, z))
        for w, b in zip(w_hidden.unbind(1), b_hidden.unbind(1), strict=True):
            h = activation(torch.baddbmm(b, w, h))
        raw = torch.baddbmm(b_out, w_out, h)
        return raw.view(len(z), self.elementwise.parameters, -1, z.shape[2])

    def _move_half(
        self, number: int, layer: tuple[Tensor, ...], z: Tensor
    ) -> tuple[Tensor, Tensor]:
        """A coupling's image of z (members, d, n), and the log derivatives of the moved half."""
        w_in, b_in, w_hidden, b_hidden, w_out, b_out = layer
        first = number % 2  # of the moved coordinates; the network sees the others
        seen, moved = slice(1 - first, None, 2), slice(first, None, 2)
        w_out, b_out = (
            part.unflatten(1, (self.elementwise.parameters, self.dim))[:, :, moved].flatten(1, 2)
            for part in (w_out, b_out)
        )
        half = (w_in[:, :, seen], b_in, w_hidden, b_hidden, w_out, b_out)
        kept = z[:, seen]
        image, log_slope = self.elementwise.forward(z[:, moved], self.network(half, kept))
        even, odd = (kept, image) if first else (image, kept)
        odd = F.pad(odd, (0, 0, 0, self.dim % 2))
        return torch.stack((even, odd), dim=2).flatten(1, 2)[:, : self.dim], log_slope

    def _degrees(self) -> Tensor:
        """How many coordinates each hidden unit of an autoregressive layer may see, (width,)."""
        unit = torch.arange(self.width)
        if self.given:  # units of degree 0 see the condition alone
            return unit % self.dim
        most = self.dim - 1
        if most > self.width:  # as many degrees as units, so that all coordinates are seen
            return 1 + unit * (most - 1) // max(1, self.width - 1)
        return unit % max(1, most) + min(1, most)

    def _layer_masks(self, layer: int) -> Parameters:
        """The masks of one layer of one member."""
        order = torch.arange(1, self.dim + 1)
        if self.autoregressive:
            order = order.flip(0) if layer % 2 else order
            degree = self._degrees()
            sees_input = degree[:, None] >= order[None]
            sees_hidden = degree[:, None] >= degree[None]
            sees_output = order[:, None] > degree[None]
            has_bias = torch.ones(self.dim, 1, dtype=torch.bool)
        else:
            conditions = order % 2 == layer % 2
            sees_input = conditions[None].expand(self.width, self.dim)
            sees_hidden = torch.ones(self.width, self.width, dtype=torch.bool)
            sees_output = (~conditions)[:, None].expand(self.dim, self.width)
            has_bias = ~conditions[:, None]
        copies = self.elementwise.parameters
        sees_condition = torch.ones(self.width, self.given, dtype=torch.bool)
        masks = {
            "input.weight": torch.cat([sees_condition, sees_input], dim=1),
            "input.bias": torch.ones(self.width, 1),
            HIDDEN: sees_hidden.expand(self.depth - 1, -1, -1),
            "hidden.bias": torch.ones(self.depth - 1, self.width, 1),
            "output.weight": sees_output.repeat(copies, 1),
            "output.bias": has_bias.repeat(copies, 1),
            MIXING: torch.ones(self.dim, self.dim),
        }
        return {name: mask.float() for name, mask in masks.items()}
