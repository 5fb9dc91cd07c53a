"""Vectorize a function that gives a log density, whatever way it is to be called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from amfvi.density.adapters import Batches, Mapped, OneByOne, PointByPoint, Values
from amfvi.density.calling import DOUBLE, Convention, Function, find_convention, to_tensor
from amfvi.density.jax_functions import compile_jax, is_jax, warn_of_precision
from amfvi.density.joint import with_gradient
from amfvi.errors import InputError

__all__ = [
    "VectorizedDensity",
    "map_over_points",
    "require_independent",
    "require_reproducible",
    "vectorize",
]

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
        values: from float64 points (n, d) to a float64 tensor (n,).
        joint: from points to values and gradients side by side, (n, 1 + d); None where
            autograd passes through ``values``, or where there is no gradient.
        calling_convention: how the user's function is called, in words.
        differentiable: whether autograd passes through :attr:`call`.
        resolution: relative rounding error of the user's values.
        why_singly: why the function is called point by point; empty if it is not.
        is_jax: whether it was compiled by JAX.
        takes_tensors: whether the user's function is handed many points at once as tensors, of
            whatever device.
        singly: as ``values``, where there is a better way to call it for every point alone
            than one after the other.

    Examples:
        >>> vectorize(lambda x: x[0], torch.zeros(3, 2).double()).calling_convention
        'torch, point by point, by vmap'
    """

    values: Values
    joint: Values | None = None
    calling_convention: str
    differentiable: bool = False
    resolution: float = DOUBLE
    why_singly: str = ""
    is_jax: bool = False
    takes_tensors: bool = False
    singly: Values | None = None

    @cached_property
    def call(self) -> Values:
        """From float64 points (n, d) to a float64 tensor (n,), through which autograd passes."""
        return self.values if self.joint is None else with_gradient(self.values, self.joint)

    @cached_property
    def call_singly(self) -> Values:
        """As ``values``, with a call of the user's function for every point."""
        if self.singly is not None:
            return self.singly
        return self.values if self.why_singly else OneByOne(self.values)


def vectorize(function: Function, points: Tensor) -> VectorizedDensity:
    """Find how ``function`` is to be called, by calling it.

    A function of single points is vectorized by ``torch.func.vmap`` where that is possible,
    and one of JAX is compiled, with its gradient.

    Args:
        points: (n, d) where the function can be expected to work; n is neither d nor 1.

    Raises:
        InputError: the function raises, or does not return one number per point.

    Examples:
        >>> density = vectorize(lambda x: -(x**2).sum(dim=1), torch.ones(3, 2).double())
        >>> density.calling_convention, density.differentiable
        ('torch, in batches', True)
    """
    convention = find_convention(function, points)
    if is_jax(convention.out) and (compiled := compile_jax(convention, points)) is not None:
        warn_of_precision(compiled.resolution)
        return VectorizedDensity(
            values=compiled.values,
            joint=compiled.joint,
            calling_convention=compiled.description,
            differentiable=True,
            resolution=compiled.resolution,
            is_jax=True,
        )
    if convention.many:
        return _adapt_batches(convention, points)
    return _adapt_single_points(convention, points)


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


def _adapt_batches(convention: Convention, points: Tensor) -> VectorizedDensity:
    """A function of a batch as one of tensors."""
    call = Batches(convention)
    require_independent(call, points, convention)
    is_torch = isinstance(convention.out, Tensor) and not convention.numpy
    return VectorizedDensity(
        values=call,
        calling_convention=str(convention),
        differentiable=is_torch and _has_gradient(call, points),
        resolution=convention.resolution,
        takes_tensors=is_torch,
    )


def _adapt_single_points(convention: Convention, points: Tensor) -> VectorizedDensity:
    """A function of one point as one of a batch of tensors."""
    call, description, why_singly = map_over_points(convention, points)
    is_torch = isinstance(convention.out, Tensor) and not convention.numpy
    return VectorizedDensity(
        values=call,
        calling_convention=description,
        differentiable=is_torch and _has_gradient(call, points),
        resolution=convention.resolution,
        why_singly=why_singly,
        takes_tensors=is_torch and not why_singly,
    )


def map_over_points(convention: Convention, points: Tensor) -> tuple[Values, str, str]:
    """Map a function of one point over a batch, by ``vmap`` where that is possible.

    Returns:
        The function of points (n, d); how it is called, in words; and why it is called point
        by point, empty if it is not.

    Examples:
        >>> points = torch.ones(3, 2).double()
        >>> call, *words = map_over_points(find_convention(lambda x: x @ x, points), points)
        >>> call(points), words
        (tensor([2., 2., 2.], dtype=torch.float64), ['torch, point by point, by vmap', ''])
    """
    if not isinstance(convention.out, Tensor) or convention.numpy:
        return PointByPoint(convention), str(convention), "it returns numpy numbers"
    mapped = Mapped(convention)
    tolerance = max(VMAP_TOLERANCE, ROUNDING_STEPS * convention.resolution)
    reason = _why_not_vmap(convention.function, mapped, points, tolerance)
    if reason is None:
        return mapped, f"{convention}, by vmap", ""
    return PointByPoint(convention), str(convention), reason


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


def require_independent(
    call: Callable[[Tensor], Tensor], points: Tensor, convention: Convention
) -> None:
    """Reject a density of batches whose value at a point depends on the other points.

    Args:
        call: from points (n, d) to (n,), or to (n, k).
        convention: with what the function returned at all of ``points``.

    Raises:
        InputError: it does, or it is random.

    Examples:
        >>> points = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).double()
        >>> function = lambda x: x[:, 0] - x[:, 0].mean()
        >>> require_independent(function, points, find_convention(function, points))
        Traceback (most recent call last):
        amfvi.errors.InputError: the log density of a point depends on the other points ...
    """
    alone = call(points[1:3].clone()).detach().cpu()
    out = convention.out
    together = out.detach().cpu().double() if isinstance(out, Tensor) else to_tensor(out, alone)
    same = alone.shape == together[1:3].shape and torch.allclose(
        alone, together[1:3], rtol=BATCH_TOLERANCE, atol=BATCH_TOLERANCE, equal_nan=True
    )
    if not same:
        again = call(points.clone()).detach().cpu()
        require_reproducible(again, together, convention.resolution)
        raise InputError(
            "the log density of a point depends on the other points in its batch "
            f"({together[1:3].tolist()} among {len(points)}, {alone.tolist()} among 2)"
        )


def _has_gradient(call: Callable[[Tensor], Tensor], points: Tensor) -> bool:
    """Whether autograd reaches the points and is finite at one of them."""
    x = points.clone().requires_grad_()
    try:
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(call(x).sum(), x, allow_unused=True)
    except Exception:  # a function that cannot be differentiated is used without gradients
        return False
    return gradient is not None and bool(gradient.isfinite().any())
