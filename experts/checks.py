"""Checks of points and of the tensors of saved experts."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from amfvi.errors import InputError

__all__ = ["check_points", "check_tensors", "count_members"]


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
