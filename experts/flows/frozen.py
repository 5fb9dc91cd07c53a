"""Flows that no longer learn, laid out for evaluation.

Only the inputs of each layer's network that some unit sees are kept, and the outputs
that depend on an input. An autoregressive layer's first coordinate and the half that a
coupling passes on depend on none; their parameters are numbers, computed once. Hidden
units are point-major, (members, n, H), which measured 1.6 times as fast
as feature-major for many points (and a fifth slower for a training step).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from amfvi.experts.flows.bijection import normal_nll
from amfvi.experts.flows.flow import ACTIVATIONS, MIXING, Flow, Parameters
from amfvi.experts.repeats import at_runs, find_runs

__all__ = ["FrozenFlow"]


class FrozenFlow:
    """A flow with its parameters: the same map as :class:`Flow`, and its inverse.

    Both are differentiable in the points.

    Examples:
        >>> from amfvi.experts import RealNVP
        >>> flow = RealNVP(layers=2).build(dim=2)
        >>> frozen = FrozenFlow(flow, flow.initial(1, torch.Generator()))
        >>> z = torch.tensor([[[1.0], [2.0]]])
        >>> u, log_det = frozen.forward(z)
        >>> torch.equal(frozen.inverse(u)[0], z), log_det.shape
        (True, torch.Size([1, 1]))
    """

    def __init__(self, flow: Flow, parameters: Parameters) -> None:
        self._given = flow.given
        self._elementwise = flow.elementwise
        self._activation = ACTIVATIONS[flow.activation]
        self._layers = [
            _Layer.from_weights(flow, number, weights)
            for number, weights in enumerate(flow.unstacked(parameters))
        ]
        self._mixing = _Mixing(parameters[MIXING]) if flow.mixes else None
        # Couplings are inverted at once, autoregressive layers coordinate by coordinate.
        self._one_pass = not flow.autoregressive

    def nll(self, z: Tensor) -> Tensor:
        """−log density of the flow to the standard normal at z (members, given + d, n), nats."""
        return normal_nll(*self.forward(z))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Points (members, given + d, n) to normal scores and log-determinants (members, n)."""
        log_det = z.new_zeros(z.shape[0], z.shape[2])
        condition, z = z[:, : self._given], z[:, self._given :]
        for number, layer in enumerate(self._layers):
            if self._mixing is not None:
                z = self._mixing.forward[:, number] @ z
                log_det += self._mixing.log_det[:, number, None]
            start = layer.condition_terms(condition)
            u = torch.empty_like(z)
            u[:, layer.fixed], log_slope = self._elementwise.forward(
                z[:, layer.fixed], layer.constant
            )
            log_det += log_slope.sum(dim=1)
            if layer.moves:
                u[:, layer.moved], log_slope = self._elementwise.forward(
                    z[:, layer.moved], self._parameters(layer, z, condition, start)
                )
                log_det += log_slope.sum(dim=1)
            z = u
        return z, log_det

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Normal scores to points (members, d, n) and log-determinants (members, n).

        A condition stands in front of the scores, (members, given + d, n).
        """
        log_det = u.new_zeros(u.shape[0], u.shape[2])
        condition, u = u[:, : self._given], u[:, self._given :]
        for number, layer in reversed(list(enumerate(self._layers))):
            start = layer.condition_terms(condition)
            z = u.clone()
            z[:, layer.fixed], log_slope = self._elementwise.inverse(
                u[:, layer.fixed], layer.constant
            )
            log_det += log_slope.sum(dim=1)
            if layer.moves > 1 and not self._one_pass:
                z, log_slope = self._invert_in_turn(layer, z, start, is_reversed=number % 2 == 1)
                log_det += log_slope
            elif layer.moves:
                z[:, layer.moved], log_slope = self._elementwise.inverse(
                    u[:, layer.moved], self._parameters(layer, z, condition, start)
                )
                log_det += log_slope.sum(dim=1)
            u = z
            if self._mixing is not None:
                u = self._mixing.inverse[:, number] @ u
                log_det -= self._mixing.log_det[:, number, None]
        return u, log_det

    def _invert_in_turn(
        self, layer: _Layer, z: Tensor, start: Tensor | None, *, is_reversed: bool
    ) -> tuple[Tensor, Tensor]:
        """Invert the moved coordinates of an autoregressive layer one after another.

        Each adds what it is to the first hidden layer, and the output is computed for the next
        one alone: d passes through the whole network cost some ten times as much.

        Args:
            z: values of the moved coordinates, and the fixed ones inverted, (members, d, n).

        Returns:
            All coordinates inverted, and the sum of the log derivatives (members, n).
        """
        d, (w_in, b_in) = z.shape[1], layer.hidden[0]
        column = {coordinate: k for k, coordinate in enumerate(range(d)[layer.seen])}
        output = {coordinate: k for k, coordinate in enumerate(range(d)[layer.moved])}
        w_out, b_out = (part.unflatten(1, (-1, layer.moves)) for part in layer.output)
        inverted = list(z.split(1, dim=1))
        total, is_shared = b_in if start is None else start, True
        log_det = z.new_zeros(z.shape[0], z.shape[2])
        for j in reversed(range(d)) if is_reversed else range(d):
            if j in output:
                h = self._activation(total)
                for w, b in layer.hidden[1:]:
                    h = torch.baddbmm(b, h, w)
                    h = self._activation(h, inplace=not h.requires_grad)
                k = output[j]
                raw = torch.baddbmm(b_out[:, :, k], w_out[:, :, k], h.mT)[:, :, None]
                inverted[j], log_slope = self._elementwise.inverse(inverted[j], raw)
                log_det = log_det + log_slope[:, 0]
            if j in column:
                k = column[j]
                add = torch.addcmul if total.requires_grad or is_shared else torch.Tensor.addcmul_
                total, is_shared = add(total, inverted[j].mT, w_in[:, k : k + 1]), False
        return torch.cat(inverted, dim=1), log_det

    def _parameters(
        self, layer: _Layer, z: Tensor, condition: Tensor, start: Tensor | None
    ) -> Tensor:
        """As :meth:`_network`, once for each run of equal conditions where nothing else counts."""
        runs = None if layer.sees or start is None else find_runs(condition)
        if runs is None:
            return self._network(layer, z, start)
        found, run = runs
        raw = self._network(layer, z[..., : found.shape[2]], layer.condition_terms(found))
        return at_runs(raw, run)

    def _network(self, layer: _Layer, z: Tensor, start: Tensor | None) -> Tensor:
        """Raw parameters (members, parameters, moved, n) of the moved coordinates.

        Args:
            start: what a condition adds in the first hidden layer, (members, n, H).
        """
        h = z[:, layer.seen].mT
        for number, (w, b) in enumerate(layer.hidden):
            b = b if start is None or number > 0 else start
            # A product with one column is a sum in disguise, and quicker as one.
            h = torch.addcmul(b, h, w) if w.shape[1] == 1 else torch.baddbmm(b, h, w)
            # In place only where autograd does not need the value.
            h = self._activation(h, inplace=not h.requires_grad)
        w, b = layer.output
        return torch.baddbmm(b, w, h.mT).unflatten(1, (-1, layer.moves))


class _Mixing:
    """The linear maps before all layers, their inverses, and log |det|, in the maps' precision."""

    def __init__(self, matrices: Tensor) -> None:
        self.forward = matrices
        self.log_det = torch.linalg.slogdet(matrices.double())[1].to(matrices)

    @cached_property
    def inverse(self) -> Tensor:
        """The inverse maps, which densities do without."""
        return torch.linalg.inv(self.forward.double()).to(self.forward)


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """One layer of all members.

    Attributes:
        seen: the coordinates that its network reads.
        moved: the coordinates whose parameters the network supplies.
        fixed: the other coordinates.
        moves: number of moved coordinates.
        constant: raw parameters of the fixed ones, (members, parameters, fixed, 1).
        hidden: weights (members, inputs, H) and biases (members, 1, H).
        output: weight (members, parameters · moved, H) and bias (…, 1).
        condition: weights (members, given, H) of a condition in the first hidden layer; None
            without one.
    """

    seen: slice
    moved: slice
    fixed: slice
    moves: int
    constant: Tensor
    hidden: list[tuple[Tensor, Tensor]]
    output: tuple[Tensor, Tensor]
    condition: Tensor | None

    @property
    def sees(self) -> bool:
        """Whether its network reads any coordinate."""
        return self.hidden[0][0].shape[1] > 0

    def condition_terms(self, condition: Tensor) -> Tensor | None:
        """Bias of the first hidden layer with what a condition (members, given, n) adds."""
        if self.condition is None:
            return None
        return torch.baddbmm(self.hidden[0][1], condition.mT, self.condition)

    @classmethod
    def from_weights(cls, flow: Flow, number: int, weights: tuple[Tensor, ...]) -> _Layer:
        """Lay out one layer's weights, in the order of :meth:`Flow.unstacked`."""
        w_in, b_in, w_hidden, b_hidden, w_out, b_out = weights
        copies, dim, members = flow.elementwise.parameters, flow.dim, len(w_in)
        sees = flow.masks["input.weight"][number][:, flow.given :].any(dim=0)
        moves = flow.masks["output.weight"][number].view(copies, dim, -1).any(dim=2).any(dim=0)
        moves = moves & (sees.any() | (flow.given > 0))
        seen, moved, fixed = _slice(sees), _slice(moves), _slice(~moves)
        at_zero = flow.network(weights, w_in.new_zeros(members, flow.given + dim, 1))
        w_out, b_out = (
            part.view(members, copies, dim, -1)[:, :, moved].flatten(1, 2).contiguous()
            for part in (w_out, b_out)
        )
        deeper = zip(w_hidden.unbind(1), b_hidden.unbind(1), strict=True)
        hidden = [(w_in[:, :, flow.given :][:, :, seen], b_in), *deeper]
        condition = w_in[:, :, : flow.given].mT.contiguous() if flow.given else None
        return cls(
            seen=seen,
            moved=moved,
            fixed=fixed,
            moves=int(moves.sum()),
            constant=at_zero[:, :, fixed].contiguous(),
            hidden=[(w.mT.contiguous(), b.mT.contiguous()) for w, b in hidden],
            output=(w_out, b_out),
            condition=condition,
        )


def _slice(is_selected: Tensor) -> slice:
    """The slice of the coordinates that are True, which are evenly spaced."""
    index = is_selected.nonzero().squeeze(1).tolist()
    if not index:
        return slice(0, 0)
    step = index[1] - index[0] if len(index) > 1 else 1
    coordinates = slice(index[0], index[-1] + 1, step)
    if index != list(range(len(is_selected)))[coordinates]:
        raise ValueError(f"coordinates {index} are not evenly spaced")
    return coordinates
