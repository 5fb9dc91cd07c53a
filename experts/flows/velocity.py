"""The velocity field of a continuous-time flow, and its integration by an ODE solver."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from amfvi.errors import UsageError
from amfvi.experts.flows.flow import HIDDEN, Parameters

__all__ = ["Velocity", "integrate"]

FREQUENCIES = 3
"""Sines, and as many cosines, of the time that the network sees."""

REACH = 10.0
"""Whitened distance at which the network's inputs level off: far from all draws the flow is
that of a normal, so that the density has tails and the integration does not overflow."""

Derivative = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From points (members, d, n) and a time to the velocity there, and its divergence (members, n)."""


@dataclass(frozen=True, kw_only=True)
class Velocity:
    """v(y, t, c): the velocity of points that are a standard normal at t = 0 and data at t = 1.

    The velocity that carries a standard normal to itself along straight paths,
    (2t − 1)/(t² + (1 − t)²) · y, and what a network adds to it, at the start nothing.

    Attributes:
        dim: number of coordinates d.
        given: number of coordinates of the condition.
        width: hidden units of each layer.
        depth: hidden layers.

    Examples:
        >>> field = Velocity(dim=1, given=1, width=8, depth=2)
        >>> parameters = field.initial(members=5, generator=torch.Generator())
        >>> condition, y = torch.zeros(5, 1, 4), torch.ones(5, 1, 4)
        >>> field.at(parameters, condition, y, torch.tensor(1.0))[0, 0, 0]
        tensor(1.)
        >>> v, divergence = field.with_divergence(parameters, condition, y, torch.tensor(0.0))
        >>> divergence[0, 0]
        tensor(-1.)
    """

    dim: int
    given: int
    width: int
    depth: int

    def shapes(self, members: int) -> dict[str, torch.Size]:
        """Shapes of the parameters by name."""
        width, inputs = self.width, self.given + self.dim + 2 * FREQUENCIES
        return {
            "input.weight": torch.Size((members, width, inputs)),
            "input.bias": torch.Size((members, width, 1)),
            HIDDEN: torch.Size((members, self.depth - 1, width, width)),
            "hidden.bias": torch.Size((members, self.depth - 1, width, 1)),
            "output.weight": torch.Size((members, self.dim, width)),
            "output.bias": torch.Size((members, self.dim, 1)),
        }

    def initial(self, members: int, generator: torch.Generator) -> Parameters:
        """Random hidden layers and an output of zero, float32."""
        parameters = {}
        for name, shape in self.shapes(members).items():
            parameters[name] = torch.zeros(shape, dtype=torch.float32)
            if not name.startswith("output"):
                fan_in = shape[-1] if name.endswith("weight") else self.width
                uniform = 2 * torch.rand(shape, generator=generator, dtype=torch.float32) - 1
                parameters[name] = uniform / math.sqrt(fan_in)
        return parameters

    def at(self, parameters: Parameters, condition: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """Velocities (members, d, n).

        Args:
            condition: (members, given, n), whitened.
            y: (members, d, n).
            t: times, one number or (members, 1, n).
        """
        h = torch.baddbmm(
            parameters["input.bias"], parameters["input.weight"], _inputs(condition, y, t)
        )
        for weight, bias in self._deeper(parameters):
            h = torch.baddbmm(bias, weight, torch.nn.functional.silu(h))
        h = torch.nn.functional.silu(h)
        added = torch.baddbmm(parameters["output.bias"], parameters["output.weight"], h)
        return _of_normal(t) * y + added

    def with_divergence(
        self, parameters: Parameters, condition: Tensor, y: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Velocities, and the exact trace of their Jacobian in y, (members, n).

        The network is differentiated along all d coordinates at once, forwards.
        """
        members, d, n = y.shape
        inputs = _inputs(condition, y, t)
        # d/dy of REACH · tanh(y / REACH); (members, width, d, n) from here on.
        slope = 1 - (inputs[:, self.given : self.given + d] / REACH).square()
        of_y = parameters["input.weight"][:, :, self.given : self.given + d]
        tangent = of_y[..., None] * slope[:, None]
        h = torch.baddbmm(parameters["input.bias"], parameters["input.weight"], inputs)
        h, tangent = _silu_with_tangent(h, tangent)
        for weight, bias in self._deeper(parameters):
            h = torch.baddbmm(bias, weight, h)
            tangent = (weight @ tangent.reshape(members, self.width, d * n)).view_as(tangent)
            h, tangent = _silu_with_tangent(h, tangent)
        rows = parameters["output.weight"]
        added = torch.baddbmm(parameters["output.bias"], rows, h)
        trace = torch.einsum("mdw,mwdn->mn", rows, tangent)
        linear = _of_normal(t)
        return linear * y + added, trace + d * linear

    def _deeper(self, parameters: Parameters) -> zip[tuple[Tensor, Tensor]]:
        """Weights and biases of the hidden layers after the first."""
        return zip(parameters[HIDDEN].unbind(1), parameters["hidden.bias"].unbind(1), strict=True)


def integrate(
    derivative: Derivative, y: Tensor, *, steps: int, backwards: bool
) -> tuple[Tensor, Tensor]:
    """Move points (members, d, n) along a velocity by Runge–Kutta steps of order four.

    Also log |det| of the map, (members, n), nats: the integral of the divergence (Chen et al.
    2018, arXiv:1806.07366, theorem 1).

    Args:
        steps: fixed steps between t = 0 and t = 1.
        backwards: from t = 1 to t = 0, from data to normal scores.

    Raises:
        UsageError: torchdiffeq is not installed.

    Examples:
        >>> def growth(y, t):
        ...     return y, torch.ones(1, 1)
        >>> y, log_det = integrate(growth, torch.ones(1, 1, 1), steps=10, backwards=False)
        >>> y.item(), log_det.item()
        (2.718..., 1.0...)
    """
    odeint = _solver()
    times = torch.linspace(0, 1, steps + 1, dtype=y.dtype, device=y.device)
    times = times.flip(0) if backwards else times

    def of_state(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return derivative(state[0], t)

    ends = torch.stack([times[0], times[-1]])
    start = (y, y.new_zeros(y.shape[0], y.shape[2]))
    # The sign of the step is that of the ends: torchdiffeq takes its size.
    points, log_det = odeint(
        of_state, start, ends, method="rk4", options={"step_size": 1.0 / steps}
    )
    return points[-1], log_det[-1]


def _solver() -> Callable[..., tuple[Tensor, Tensor]]:
    try:
        from torchdiffeq import odeint
    except ImportError as error:
        raise UsageError("flow matching needs torchdiffeq: pip install 'amfvi[fm]'") from error
    return odeint


def _of_normal(t: Tensor) -> Tensor:
    """The slope of the velocity that carries a standard normal to itself along straight paths."""
    return (2 * t - 1) / (t.square() + (1 - t).square())


def _inputs(condition: Tensor, y: Tensor, t: Tensor) -> Tensor:
    """Condition, point, and waves of the time: (members, given + d + 2 · FREQUENCIES, n)."""
    members, _, n = y.shape
    at = torch.cat([condition, y], dim=1)
    numbers = torch.arange(1, FREQUENCIES + 1, dtype=y.dtype, device=y.device)[:, None]
    angle = (math.pi * numbers * t).expand(members, FREQUENCIES, n)
    return torch.cat([REACH * torch.tanh(at / REACH), angle.sin(), angle.cos()], dim=1)


def _silu_with_tangent(h: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:
    gate = h.sigmoid()
    slope = gate * (1 + h * (1 - gate))
    return h * gate, slope[:, :, None] * tangent
