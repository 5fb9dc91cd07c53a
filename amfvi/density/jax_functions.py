"""Functions of JAX: compiled for batches of points, with their gradients."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amfvi.density.calling import DOUBLE, Convention
from amfvi.errors import AmfviWarning

__all__ = ["CompiledFunction", "compile_jax", "is_jax", "jax_numpy", "warn_of_precision"]

SMALLEST_BATCH = 16
"""Batches are padded to this size, and from there on to powers of two: JAX compiles anew for
every size."""

SAME = 1e-3
"""Largest relative difference of compiled values from those of the function as it is."""


def is_jax(out: Any) -> bool:
    """Whether a value is an array of JAX, which is not imported for this.

    Examples:
        >>> is_jax(1.0), is_jax(np.ones(2))
        (False, False)
    """
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(out, jax.Array)


def jax_numpy() -> Any:
    """The numpy of JAX.

    Examples:
        >>> jax_numpy().__name__
        'jax.numpy'
    """
    import jax.numpy

    return jax.numpy


@dataclass(frozen=True, kw_only=True)
class CompiledFunction:
    """A log density of JAX, compiled.

    Attributes:
        values: from points (n, d) to log densities (n,), float64.
        joint: from points to log densities and gradients side by side, (n, 1 + d).
        description: how the function is called, in words.
        resolution: relative rounding error of its values.

    Examples:
        >>> sorted(CompiledFunction.__dataclass_fields__)
        ['description', 'joint', 'resolution', 'values']
    """

    values: Callable[[Tensor], Tensor]
    joint: Callable[[Tensor], Tensor]
    description: str
    resolution: float


def compile_jax(
    convention: Convention, points: Tensor, *, returns_gradient: bool = False
) -> CompiledFunction | None:
    """Compile a function of JAX by ``jit``, ``vmap`` and ``vjp``.

    It computes in the precision that JAX is set to: to change that for a while would spoil
    what JAX has compiled for others.

    Args:
        convention: how the function is called; its output is an array of JAX.
        points: (n, d) where it was called.
        returns_gradient: whether it returns a value and its gradient, side by side, rather
            than a value.

    Returns:
        None if it cannot be compiled, such as a function that leaves JAX on its way, or
        compiled gives other values.

    Warns:
        AmfviWarning: it is None, so that there is no gradient.

    Examples:
        >>> import jax.numpy as jnp
        >>> from amfvi.density.calling import find_convention
        >>> points = torch.ones(3, 2).double()
        >>> convention = find_convention(lambda x: -0.5 * jnp.sum(jnp.asarray(x) ** 2), points)
        >>> compiled = compile_jax(convention, points)
        >>> compiled.description, compiled.joint(points[:1])
        ('JAX, point by point, compiled', tensor([[-1., -1., -1.]], dtype=torch.float64))
    """
    import jax

    joint = _Batches(jax.jit(_joint_function(jax, convention, returns_gradient)))
    if returns_gradient:

        def values(x: Tensor) -> Tensor:
            return joint(x)[:, 0]
    else:
        values = _Batches(
            jax.jit(convention.function if convention.many else jax.vmap(convention.function))
        )
    try:
        at_points, alone = joint(points), values(points)
    except Exception as error:  # what JAX cannot trace
        _warn_of_what_is_lost(f"{type(error).__name__}: {str(error).split(chr(10), 1)[0][:150]}")
        return None
    expected = torch.from_numpy(np.array(convention.out, dtype=np.float64, ndmin=1))
    if returns_gradient:
        expected = expected.reshape(-1, at_points.shape[1])[:, 0]
    if not torch.allclose(alone[: len(expected)], expected, rtol=SAME, atol=SAME, equal_nan=True):
        _warn_of_what_is_lost("compiled it gives other values")
        return None
    return CompiledFunction(
        values=values,
        joint=joint,
        description=f"JAX, {convention.batching}, compiled",
        resolution=convention.resolution,
    )


def warn_of_precision(resolution: float) -> None:
    """Warn if JAX computes in single precision, which is its default.

    Warns:
        AmfviWarning: it does.

    Examples:
        >>> warn_of_precision(1e-16)
    """
    if resolution > DOUBLE:
        warnings.warn(
            "the log density is computed by JAX in single precision; for double precision call "
            'jax.config.update("jax_enable_x64", True) before anything else of JAX',
            AmfviWarning,
            stacklevel=2,
        )


def _warn_of_what_is_lost(reason: str) -> None:
    warnings.warn(
        f"the log density of JAX cannot be compiled ({reason}): it is called as it is, many times "
        "slower and without the gradient of JAX (jax.numpy.where and jax.lax.cond take the place "
        "of if)",
        AmfviWarning,
        stacklevel=4,
    )


def _joint_function(jax: Any, convention: Convention, returns_gradient: bool) -> Callable[..., Any]:
    """From a batch (n, d) of JAX to values and gradients side by side, (n, 1 + d)."""
    function = convention.function
    if returns_gradient:
        return function if convention.many else jax.vmap(function)

    def of_batch(x: Any) -> Any:
        batched = function if convention.many else jax.vmap(function)
        values, pull_back = jax.vjp(batched, x)
        (gradients,) = pull_back(jax.numpy.ones_like(values))
        return jax.numpy.concatenate([values[:, None], gradients], axis=1)

    return of_batch


class _Batches:
    """A compiled function of tensors, called with batches of few different sizes."""

    def __init__(self, compiled: Callable[[Any], Any]) -> None:
        self._compiled = compiled

    def __call__(self, x: Tensor) -> Tensor:
        n = len(x)
        points = x.detach().cpu().numpy()
        if n == 0:
            return self(x.new_zeros(1, x.shape[1]))[:0]
        size = max(SMALLEST_BATCH, 1 << (n - 1).bit_length())
        padded = np.concatenate([points, np.repeat(points[-1:], size - n, axis=0)])
        out = np.array(self._compiled(padded), dtype=np.float64)
        return torch.from_numpy(out[:n]).to(x.device)
