"""Read what users' functions return as arrays of real numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["alike", "contained", "to_array"]

Array = NDArray[np.float64]

TOLERANCE = 1e-6
"""Relative difference of two results that are called the same."""


def to_array(out: Any) -> Array:
    """Turn what a function returned into a float64 array of its own.

    Raises:
        TypeError: it is None, or not an array of real numbers.
        ValueError: it is ragged.

    Examples:
        >>> to_array(torch.ones(2)), to_array([1, 2])
        (array([1., 1.]), array([1., 2.]))
    """
    if out is None:
        raise TypeError("it returned None")
    if isinstance(out, Tensor):
        real = out.double() if out.is_floating_point() else out  # numpy has no bfloat16
        out = real.detach().resolve_conj().cpu().numpy()
    values = np.asarray(out)
    if values.dtype.kind not in "fiub":
        raise TypeError(f"it returned {type(out).__name__} of {values.dtype}, not real numbers")
    return np.array(values, dtype=np.float64)


def contained(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Call a user's function with ``sys.exit`` as an ordinary error, and autograd as it was.

    Raises:
        RuntimeError: it called ``sys.exit``.

    Examples:
        >>> contained(max, 1, 2)
        2
    """
    try:
        with torch.set_grad_enabled(torch.is_grad_enabled()):
            return function(*arguments, **named)
    except SystemExit as error:
        raise RuntimeError(f"it called sys.exit({error.code!r})") from None


def alike(first: Array, second: Array) -> bool:
    """Whether two results are the same but for rounding.

    Examples:
        >>> alike(np.array([np.nan, 1.0]), np.array([np.nan, 1.0 + 1e-12]))
        True
    """
    return first.shape == second.shape and bool(
        np.allclose(first, second, rtol=TOLERANCE, atol=0.0, equal_nan=True)
    )
