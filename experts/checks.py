"""Checks of points, of sizes of samples, and of the tensors of saved experts."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amfvi.errors import InputError, UsageError

__all__ = ["as_points", "check_points", "check_tensors", "count_members", "draw_shape"]


def as_points(value: Any, dim: int) -> Tensor:
    """Finite points (..., dim) from a tensor, an array or nested lists.

    Floating tensors are returned as they are; everything else becomes float64.

    Raises:
        InputError: wrong last dimension, not real numbers, or not finite.

    Examples:
        >>> as_points([[0.0, 1.0]], 2)
        tensor([[0., 1.]], dtype=torch.float64)
    """
    if not isinstance(value, Tensor):
        array = np.asarray(value)
        if array.dtype.kind not in "fiu":
            raise InputError(f"points must be real numbers, found dtype {array.dtype}")
        value = torch.from_numpy(array.astype(np.float64))
    elif not value.is_floating_point() and not value.is_complex():
        value = value.double()
    x = check_points(value, dim)
    if not bool(torch.isfinite(x).all()):
        point = x[~torch.isfinite(x).all(dim=-1)][0].tolist()
        raise InputError(f"points must be finite, found {point}")
    return x


def check_points(x: Tensor, dim: int) -> Tensor:
    """Return ``x`` unchanged if it holds ``dim``-dimensional floating points (..., dim).

    Raises:
        InputError: wrong last dimension or not a floating tensor.

    Examples:
        >>> check_points(torch.zeros(5, 2), 2).shape
        torch.Size([5, 2])
        >>> check_points(torch.zeros(5, 2), 3)
        Traceback (most recent call last):
        amfvi.errors.InputError: points must have shape (..., 3), found (5, 2)
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        type_name = str(x.dtype) if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"points must be a floating-point tensor, found {type_name}")
    if x.ndim < 1 or x.shape[-1] != dim:
        raise InputError(f"points must have shape (..., {dim}), found {tuple(x.shape)}")
    return x


def count_members(tensors: Mapping[str, Tensor]) -> int:
    """Number of members of a saved expert, by its tensor ``mean``; 1 if that is missing.

    Examples:
        >>> count_members({"mean": torch.zeros(5, 2)}), count_members({})
        (5, 1)
    """
    mean = tensors.get("mean")
    return len(mean) if mean is not None and mean.ndim > 1 and len(mean) else 1


def check_tensors(
    kind: str, expected: Mapping[str, torch.Size], tensors: Mapping[str, Tensor]
) -> None:
    """Check a saved expert's tensors against the shapes its config implies.

    Raises:
        InputError: a missing, unexpected, wrongly shaped or non-finite tensor.

    Examples:
        >>> check_tensors("gmm", {"mean": torch.Size([1, 2])}, {"mean": torch.zeros(1, 3)})
        Traceback (most recent call last):
        amfvi.errors.InputError: gmm: tensor 'mean' has shape (1, 3), expected (1, 2)
    """
    for name in sorted(set(expected) - set(tensors)):
        raise InputError(f"{kind}: tensor {name!r} is missing from the saved model")
    for name in sorted(set(tensors) - set(expected)):
        raise InputError(f"{kind}: unexpected tensor {name!r} in the saved model")
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise InputError(
                f"{kind}: tensor {name!r} has shape {tuple(tensors[name].shape)}, "
                f"expected {tuple(shape)}"
            )
        if not bool(torch.isfinite(tensors[name]).all()):
            raise InputError(f"{kind}: tensor {name!r} holds NaN or infinity")


def draw_shape(sample_shape: int | Sequence[int]) -> torch.Size:
    """The shape of a sample, of a number of draws or of several.

    Raises:
        UsageError: anything but whole numbers of at least 0.

    Examples:
        >>> draw_shape(3), draw_shape((2, 3))
        (torch.Size([3]), torch.Size([2, 3]))
    """
    try:
        each = [operator.index(n) for n in np.atleast_1d(np.asarray(sample_shape, dtype=object))]
    except TypeError:
        each = [-1]
    if min(each, default=0) < 0:
        raise UsageError(
            f"a number of draws must be a whole number of at least 0, found {sample_shape!r}"
        )
    return torch.Size(each)
