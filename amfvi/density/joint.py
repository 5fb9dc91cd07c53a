"""Values and gradients from functions of their own, handed to autograd, and checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from amfvi.errors import InputError

__all__ = ["require_gradient", "with_gradient"]

Call = Callable[[Tensor], Tensor]

GRADIENT_TOLERANCE = 1e-3
"""Largest relative difference of a derivative from a finite difference."""

MIN_DERIVATIVE = 1e-4
"""Derivatives below are compared as if they were so large, nats per unit."""

EXTRAPOLATION = 10.0
"""How many times as far as two finite differences are apart a derivative may be from them."""


def with_gradient(values: Call, joint: Call) -> Call:
    """Make a function of points (n, d) that autograd passes through.

    Args:
        values: log densities (n,) of points (n, d), without a gradient.
        joint: log densities and their gradients side by side, (n, 1 + d).

    Examples:
        >>> values = lambda x: -(x**2).sum(dim=1)
        >>> call = with_gradient(values, lambda x: torch.cat([values(x)[:, None], -2 * x], dim=1))
        >>> x = torch.ones(1, 2, requires_grad=True)
        >>> call(x).sum().backward()
        >>> x.grad
        tensor([[-2., -2.]])
    """

    class Joint(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            out = joint(x.detach())
            ctx.save_for_backward(out[:, 1:])
            return out[:, 0].clone()

        @staticmethod
        def backward(ctx: Any, *outer: Any) -> Any:
            (gradient,) = ctx.saved_tensors
            return outer[0][:, None] * gradient

    def call(x: Tensor) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled():
            out: Tensor = Joint.apply(x)  # type: ignore[no-untyped-call]
            return out
        return values(x.detach())

    return call


def require_gradient(
    values: Call, gradients: Tensor, points: Tensor, resolution: float, names: Sequence[str]
) -> None:
    """Compare gradients with finite differences of the values, one coordinate at a time.

    Two step sizes tell how far a finite difference can be relied on. Points where the
    density is zero or not finite nearby are passed over.

    Args:
        gradients: at the points, (n, d).
        resolution: relative rounding error of the values.
        names: of the parameters.

    Raises:
        InputError: a derivative is wrong; the message names the parameter and the point.

    Examples:
        >>> points = torch.ones(2, 2).double()
        >>> values = lambda x: -(x**2).sum(dim=1)
        >>> require_gradient(values, -2 * points, points, 1e-16, ("mu", "tau"))
        >>> require_gradient(values, 2 * points, points, 1e-16, ("mu", "tau"))
        Traceback (most recent call last):
        amfvi.errors.InputError: value_and_grad: the derivative of the log density by mu is 2 at ...
    """
    n, d = points.shape
    step = resolution ** (1 / 3) * points.abs().clamp(min=1.0)
    by_step = []
    for factor in (1.0, 0.5):
        shifts = torch.diag_embed(factor * step).reshape(-1, d)
        around = points.repeat_interleave(d, dim=0)
        ends = values(torch.cat([around + shifts, around - shifts])).detach().cpu().view(2, n, d)
        by_step.append((ends[0] - ends[1]) / (2 * factor * step))
        rounding = resolution * ends.abs().amax(dim=0) / (factor * step)
    coarse, fine = by_step
    allowed = GRADIENT_TOLERANCE * torch.maximum(fine.abs(), gradients.abs()).clamp(
        min=MIN_DERIVATIVE
    )
    allowed += EXTRAPOLATION * ((coarse - fine).abs() + rounding)
    error = (gradients - fine).abs() / allowed
    error = torch.where(gradients.isfinite() & fine.isfinite() & coarse.isfinite(), error, 0.0)
    if not float(error.max()) > 1:
        return
    row, column = divmod(int(error.argmax()), d)
    at = ", ".join(f"{n} = {v:.6g}" for n, v in zip(names, points[row].tolist(), strict=True))
    raise InputError(
        f"value_and_grad: the derivative of the log density by {names[column]} is "
        f"{float(gradients[row, column]):.6g} at {at}, but finite differences give "
        f"{float(fine[row, column]):.6g}"
    )
