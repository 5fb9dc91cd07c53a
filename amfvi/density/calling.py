"""How a user's function is to be called: one point or many, tensors or numpy arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amfvi.errors import InputError

__all__ = ["DOUBLE", "Convention", "Function", "find_convention", "to_numpy", "to_tensor"]

Function = Callable[[Any], Any]

DOUBLE = float(np.finfo(np.float64).eps)
"""Relative rounding error in double precision."""

NOT_FOR_JAX = "not a valid JAX"
"""What JAX says of tensors."""


@dataclass(frozen=True, kw_only=True)
class Convention:
    """A way to call a function that works.

    Attributes:
        function: the user's, with ``sys.exit`` as an ordinary error and autograd left as it was.
        many: whether it takes a batch (n, d); else one point (d,).
        numpy: whether it is handed numpy arrays; else tensors.
        out: what it returned at the points it was tried at, or at the first of them.
        resolution: relative rounding error of what it returns.

    Examples:
        >>> convention = find_convention(lambda x: -(x**2).sum(dim=1), torch.ones(3, 2).double())
        >>> convention.many, convention.numpy, str(convention)
        (True, False, 'torch, in batches')
    """

    function: Function
    many: bool
    numpy: bool
    out: Any
    resolution: float

    def __str__(self) -> str:
        return f"{'numpy' if self.numpy else 'torch'}, {self.batching}"

    @property
    def batching(self) -> str:
        """Whether many points are handed over at once, in words."""
        return "in batches" if self.many else "point by point"

    def call(self, x: Tensor) -> Any:
        """Call the function with a batch (n, d), or with one point (d,)."""
        return self.function(to_numpy(x) if self.numpy else x)


def find_convention(
    function: Function, points: Tensor, *, columns: int | None = None, returns: str = "one number"
) -> Convention:
    """Find how a function is to be called, by calling it.

    Tried in turn: a batch (n, d) of tensors, a single point (d,), then both as numpy
    arrays.

    Args:
        points: (n, d) where the function can be expected to work; n is neither d nor 1.
        columns: numbers that it returns per point; None: one, and no dimension for them.
        returns: what it returns per point, in words.

    Raises:
        InputError: the function raises, or returns other shapes.

    Examples:
        >>> convention = find_convention(lambda x: float(x[0]), torch.zeros(3, 2).double())
        >>> str(convention), convention.out
        ('numpy, point by point', 0.0)
    """
    function = _Contained(function)
    n, d = points.shape
    of_point = () if columns is None else (columns,)
    failures: list[str] = []
    first_error: Exception | None = None
    for many, numpy in ((True, False), (False, False), (True, True), (False, True)):
        argument = points.clone() if many else points[0].clone()
        shape = tuple(argument.shape)
        try:
            out = function(argument.numpy() if numpy else argument)
            if out is None:
                raise TypeError("it returned None")
            values = np.asarray(out.detach().cpu() if isinstance(out, Tensor) else out)
            returned = values.astype(np.float64).shape
        except Exception as error:
            failures.append(f"{type(error).__name__}: {error}")
            first_error = first_error or error
            continue
        if returned != ((n, *of_point) if many else of_point):
            failures.append(f"for points of shape {shape} it returned shape {returned}")
            continue
        if not isinstance(out, Tensor):  # numpy functions accept tensors, but are slow on them
            again = points.clone() if many else points[0].clone()
            numpy = numpy or _accepts_numpy(function, again, values)
        resolution = float(np.finfo(values.dtype).eps) if values.dtype.kind == "f" else 0.0
        return Convention(
            function=function, many=many, numpy=numpy, out=out, resolution=max(resolution, DOUBLE)
        )
    # The error for a batch of tensors is the one a torch user expects to read.
    failure = next((each for each in failures if NOT_FOR_JAX not in each), failures[0])
    raise InputError(
        f"the log density cannot be called: {' '.join(failure.split())} "
        f"(expected shape {(n, *of_point)} for points of shape ({n}, {d}), or {returns} for ({d},))"
    ) from first_error


def to_numpy(x: Tensor) -> Any:
    """A copy of a tensor as an array, which the user's function may modify.

    Examples:
        >>> to_numpy(torch.ones(2))
        array([1., 1.], dtype=float32)
    """
    return x.detach().cpu().numpy().copy()


def to_tensor(out: Any, like: Tensor) -> Tensor:
    """What a user's function returned as float64 on the device of ``like``.

    Examples:
        >>> to_tensor([1, 2], torch.ones(2))
        tensor([1., 2.], dtype=torch.float64)
    """
    if isinstance(out, Tensor):
        return out.double()
    return torch.as_tensor(np.array(out, dtype=np.float64), device=like.device)


def _accepts_numpy(function: Function, argument: Tensor, values: Any) -> bool:
    """Whether a function gives the same values when it is handed numpy arrays."""
    try:
        out = np.asarray(function(argument.numpy()), dtype=np.float64)
    except Exception:  # then it is handed tensors, as in the call that worked
        return False
    return out.shape == values.shape and bool(np.allclose(out, values, equal_nan=True))


@dataclass(frozen=True)
class _Contained:
    """A function with ``sys.exit`` as an ordinary error, and autograd left as it was."""

    function: Function

    def __call__(self, x: Any) -> Any:
        try:
            with torch.set_grad_enabled(torch.is_grad_enabled()):
                return self.function(x)
        except SystemExit as error:
            raise RuntimeError(f"it called sys.exit({error.code!r})") from None
