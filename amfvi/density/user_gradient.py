"""Log densities whose user supplies the gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amfvi.density.adapters import Batches, Values
from amfvi.density.calling import DOUBLE, Convention, Function, find_convention
from amfvi.density.jax_functions import (
    compile_jax,
    is_jax,
    jax_numpy,
    warn_of_precision,
)
from amfvi.density.joint import require_gradient
from amfvi.density.vectorize import (
    VectorizedDensity,
    map_over_points,
    require_independent,
    require_reproducible,
    vectorize,
)
from amfvi.errors import InputError

__all__ = ["FirstColumn", "vectorize_with_gradient"]


def vectorize_with_gradient(
    value_and_grad: Function, points: Tensor, names: Sequence[str], function: Function | None = None
) -> VectorizedDensity:
    """Find how a function that returns a value and its gradient is to be called.

    As for :func:`~amfvi.density.vectorize.vectorize`: one point or a batch; torch, numpy or
    JAX. The gradient is compared with finite differences once.

    Args:
        value_and_grad: from points (n, d) to values (n,) and gradients (n, d), or from one
            point (d,) to one number and (d,).
        points: (n, d) where it can be expected to work; n is neither d nor 1.
        names: of the parameters.
        function: of the values alone, where that is quicker.

    Raises:
        InputError: a function cannot be called, the two disagree, or the gradient is wrong.

    Examples:
        >>> points = torch.tensor([[0.0, 1.0], [1.0, 2.0], [2.0, 0.5]]).double()
        >>> density = vectorize_with_gradient(lambda x: (-(x @ x), -2 * x), points, ("a", "b"))
        >>> density.calling_convention, density.differentiable
        ('torch, point by point, by vmap, with a gradient of its own', True)
    """
    d = points.shape[1]
    pair = _SideBySide(value_and_grad)
    convention = find_convention(pair, points, columns=1 + d, returns=f"{1 + d} numbers")
    pairs = _vectorize_pairs(convention, points)
    joint, description, why_singly = pairs.values, pairs.calling_convention, pairs.why_singly
    resolution = max(convention.resolution, pair.resolution)
    call: Values = FirstColumn(joint)
    if function is not None:
        alone = vectorize(function, points)
        call, resolution = alone.values, max(resolution, alone.resolution)
        description = f"{alone.calling_convention}, and for gradients {description}"
        why_singly = alone.why_singly
    at_points = joint(points).detach().cpu()
    values = call(points.clone()).detach().cpu()
    _require_equal(values, at_points[:, 0], resolution)
    require_gradient(call, at_points[:, 1:], points, resolution, names)
    return VectorizedDensity(
        values=call,
        joint=joint,
        calling_convention=f"{description}, with a gradient of its own",
        differentiable=True,
        resolution=resolution,
        why_singly=why_singly,
        is_jax=pairs.is_jax,
    )


@dataclass(frozen=True)
class FirstColumn:
    """The values of a function of values and gradients side by side.

    Examples:
        >>> FirstColumn(lambda x: 2 * x)(torch.ones(2, 3))
        tensor([2., 2.])
    """

    joint: Values

    def __call__(self, x: Tensor) -> Tensor:
        return self.joint(x)[:, 0]


def _require_equal(values: Tensor, joint: Tensor, resolution: float) -> None:
    """Reject two functions (n,) and (n,) of which each may be right, but not both."""
    try:
        require_reproducible(values, joint, resolution)
    except InputError:
        row = int((values - joint).abs().nan_to_num(nan=torch.inf).argmax())
        raise InputError(
            f"value_and_grad gives {float(joint[row]):.10g} where the log density is "
            f"{float(values[row]):.10g}"
        ) from None


class _SideBySide:
    """A function of a pair as one of an array, the value in front of its gradient.

    Attributes:
        resolution: relative rounding error of the values it has returned.
    """

    def __init__(self, value_and_grad: Function) -> None:
        self._function = value_and_grad
        self.resolution = DOUBLE

    def __call__(self, x: Any) -> Any:
        out = self._function(x)
        if not isinstance(out, tuple | list) or len(out) != 2:
            raise TypeError(
                f"value_and_grad returned {type(out).__name__}, expected a value and its gradient"
            )
        value, gradient = out
        if isinstance(gradient, Tensor):
            value = torch.as_tensor(value, device=gradient.device)
            precision: Any = torch.finfo(value.dtype)
            joined: Any = torch.cat([value[..., None], gradient], dim=-1)
        else:
            library = jax_numpy() if is_jax(gradient) else np
            value = library.asarray(value)
            precision = np.finfo(value.dtype)
            joined = library.concatenate([value[..., None], library.asarray(gradient)], -1)
        self.resolution = max(self.resolution, float(precision.eps))
        return joined


def _vectorize_pairs(convention: Convention, points: Tensor) -> VectorizedDensity:
    """From points (n, d) to (n, 1 + d), as the values of what is returned."""
    if is_jax(convention.out):
        compiled = compile_jax(convention, points, returns_gradient=True)
        if compiled is not None:
            warn_of_precision(compiled.resolution)
            return VectorizedDensity(
                values=compiled.joint, calling_convention=compiled.description, is_jax=True
            )
    if not convention.many:
        call, description, why_singly = map_over_points(convention, points)
        return VectorizedDensity(values=call, calling_convention=description, why_singly=why_singly)
    batches = Batches(convention)
    require_independent(batches, points, convention)
    return VectorizedDensity(values=batches, calling_convention=str(convention))
