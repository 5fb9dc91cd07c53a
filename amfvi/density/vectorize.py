"""Vectorize a function that gives a log density, whatever way it is to be called."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amfvi.errors import AmfviWarning, InputError

__all__ = ["VectorizedDensity", "require_reproducible", "vectorize"]

Function = Callable[[Any], Any]

DOUBLE = float(np.finfo(np.float64).eps)
"""Relative rounding error in double precision."""

ABSOLUTE_TOLERANCE = 1e-5
"""Largest difference in nats of two values at one point of a density that is not random."""

RELATIVE_TOLERANCE = 1e-7
"""The same as a share of the value, for values in double precision."""

ROUNDING_STEPS = 100
"""The same as a number of rounding errors, for values in lower precision."""

BATCH_TOLERANCE = 1e-3
"""Largest relative difference between values of a point in batches of two sizes."""

VMAP_TOLERANCE = 1e-6
"""Largest relative difference between values by ``vmap`` and one point at a time."""


@dataclass(frozen=True, kw_only=True)
class VectorizedDensity:
    """A log density of many points.

    Attributes:
        call: from float64 points (n, d) to a float64 tensor (n,).
        calling_convention: how the user's function is called, in words.
        differentiable: whether autograd passes through ``call``.
        resolution: relative rounding error of the user's values.

    Examples:
        >>> vectorize(lambda x: x[0], torch.zeros(3, 2).double()).calling_convention
        'torch, point by point, by vmap'
    """

    call: Callable[[Tensor], Tensor]
    calling_convention: str
    differentiable: bool = False
    resolution: float = DOUBLE


def vectorize(function: Function, points: Tensor) -> VectorizedDensity:
    """Find how ``function`` is to be called, by calling it.

    Tried in turn: a batch (n, d) of tensors, a single point (d,), then both as numpy
    arrays. A function of single points is vectorized by ``torch.func.vmap`` where that
    is possible.

    Args:
        points: (n, d) where the function can be expected to work; n is neither d nor 1.

    Raises:
        InputError: the function raises, or does not return one number per point.

    Warns:
        AmfviWarning: it has to be called point by point.

    Examples:
        >>> density = vectorize(lambda x: -(x**2).sum(dim=1), torch.ones(3, 2).double())
        >>> density.calling_convention, density.differentiable
        ('torch, in batches', True)
    """
    function = _without_exit(function)
    n, d = points.shape
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
        if returned != ((n,) if many else ()):
            failures.append(f"for points of shape {shape} it returned shape {returned}")
            continue
        if not isinstance(out, Tensor):  # numpy functions accept tensors, but are slow on them
            again = points.clone() if many else points[0].clone()
            numpy = numpy or _accepts_numpy(function, again, values)
        adapt = _adapt_batches if many else _adapt_single_points
        resolution = float(np.finfo(values.dtype).eps) if values.dtype.kind == "f" else 0.0
        return adapt(function, points, out, numpy=numpy, resolution=max(resolution, DOUBLE))
    # The error for a batch of tensors is the one a torch user expects to read.
    raise InputError(
        f"the log density cannot be called: {' '.join(failures[0].split())} "
        f"(expected shape ({n},) for points of shape ({n}, {d}), or one number for ({d},))"
    ) from first_error


def _accepts_numpy(function: Function, argument: Tensor, values: Any) -> bool:
    """Whether a function gives the same values when it is handed numpy arrays."""
    try:
        out = np.asarray(function(argument.numpy()), dtype=np.float64)
    except Exception:  # then it is handed tensors, as in the call that worked
        return False
    return out.shape == values.shape and bool(np.allclose(out, values, equal_nan=True))


def _without_exit(function: Function) -> Function:
    """The function with ``sys.exit`` as an ordinary error, which it is in a density."""

    def guarded(x: Any) -> Any:
        try:
            return function(x)
        except SystemExit as error:
            raise RuntimeError(f"it called sys.exit({error.code!r})") from None

    return guarded


def require_reproducible(first: Tensor, second: Tensor, resolution: float = DOUBLE) -> None:
    """Reject a density whose values (n,) differ between two calls at the same points.

    Args:
        resolution: relative rounding error of the values.

    Raises:
        InputError: they differ by more than rounding can explain.

    Examples:
        >>> require_reproducible(torch.tensor([-1.5]), torch.tensor([-1.25]))
        Traceback (most recent call last):
        amfvi.errors.InputError: the log density is random: -1.5 and -1.25 in two calls ...
    """
    relative = max(RELATIVE_TOLERANCE, ROUNDING_STEPS * resolution)
    same = torch.isclose(first, second, rtol=relative, atol=ABSOLUTE_TOLERANCE, equal_nan=True)
    if not bool(same.all()):
        row = int((~same).nonzero()[0])
        raise InputError(
            f"the log density is random: {float(first[row]):.10g} and {float(second[row]):.10g} in "
            "two calls at one point; make it a function of its argument alone (no random "
            "numbers, no subsampling of the data)"
        )


def _adapt_batches(
    function: Function, points: Tensor, out: Any, *, numpy: bool, resolution: float
) -> VectorizedDensity:
    """A function of a batch, which returned ``out`` at ``points``, as one of tensors."""
    convention = "numpy, in batches" if numpy else "torch, in batches"

    def call(x: Tensor) -> Tensor:
        return _to_tensor(function(_to_numpy(x) if numpy else x), x)

    alone = call(points[1:3].clone()).detach().cpu()
    together = torch.as_tensor(out).detach().cpu().double()
    same = alone.shape == (2,) and torch.allclose(
        alone, together[1:3], rtol=BATCH_TOLERANCE, atol=BATCH_TOLERANCE, equal_nan=True
    )
    if not same:
        require_reproducible(call(points.clone()).detach().cpu(), together, resolution)
        raise InputError(
            "the log density of a point depends on the other points in its batch "
            f"({together[1:3].tolist()} among {len(points)}, {alone.tolist()} among 2)"
        )
    return VectorizedDensity(
        call=call,
        calling_convention=convention,
        differentiable=isinstance(out, Tensor) and not numpy and _has_gradient(call, points),
        resolution=resolution,
    )


def _adapt_single_points(
    function: Function, points: Tensor, out: Any, *, numpy: bool, resolution: float
) -> VectorizedDensity:
    """A function of one point, which returned ``out``, as one of a batch of tensors."""
    if isinstance(out, Tensor) and not numpy:
        mapped = torch.func.vmap(lambda x: function(x).double())
        reason = _why_not_vmap(
            function, mapped, points, max(VMAP_TOLERANCE, ROUNDING_STEPS * resolution)
        )
        if reason is None:
            return VectorizedDensity(
                call=mapped,
                calling_convention="torch, point by point, by vmap",
                differentiable=_has_gradient(mapped, points),
                resolution=resolution,
            )
        convention = "torch, point by point"

        def call(x: Tensor) -> Tensor:
            return torch.stack([function(point).double() for point in x])
    else:
        reason = "it returns numpy numbers"
        convention = "numpy, point by point" if numpy else "torch, point by point"

        def call(x: Tensor) -> Tensor:
            points = _to_numpy(x) if numpy else x.detach()
            return _to_tensor([float(function(point)) for point in points], x)

    warnings.warn(
        f"the log density takes one point at a time and cannot be vectorized ({reason}); "
        "a function of a batch (n, d) would be many times faster",
        AmfviWarning,
        stacklevel=2,
    )
    return VectorizedDensity(
        call=call,
        calling_convention=convention,
        differentiable=isinstance(out, Tensor) and not numpy and _has_gradient(call, points),
        resolution=resolution,
    )


def _why_not_vmap(
    function: Function, mapped: Callable[[Tensor], Tensor], points: Tensor, tolerance: float
) -> str | None:
    """Why a function of one point cannot be mapped over a batch; None if it can."""
    try:
        singly = [function(point.clone()).detach().cpu().double() for point in points[:2]]
        at_once = mapped(points[:2].clone()).detach().cpu()
        same = torch.allclose(
            at_once, torch.stack(singly), rtol=tolerance, atol=tolerance, equal_nan=True
        )
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
    return None if same else "vmap gives other numbers"


def _has_gradient(call: Callable[[Tensor], Tensor], points: Tensor) -> bool:
    """Whether autograd reaches the points and is finite at one of them."""
    x = points.clone().requires_grad_()
    try:
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(call(x).sum(), x, allow_unused=True)
    except Exception:  # a function that cannot be differentiated is used without gradients
        return False
    return gradient is not None and bool(gradient.isfinite().any())


def _to_numpy(x: Tensor) -> Any:
    return x.detach().cpu().numpy().copy()


def _to_tensor(out: Any, like: Tensor) -> Tensor:
    if isinstance(out, Tensor):
        return out.double()
    return torch.as_tensor(np.array(out, dtype=np.float64), device=like.device)
