"""Read a constraint of torch on an array as constraints on its entries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions import constraints as torch_constraints

from amfvi.constraints.constraints import ConstrainedVector
from amfvi.constraints.scalars import bounds_of
from amfvi.constraints.vectors import KINDS, kind_of
from amfvi.errors import UsageError

__all__ = ["constraints_of_distribution", "constraints_of_entries"]

UNCONSTRAINED = (torch_constraints.real, torch_constraints.real_vector)
"""Constraints that hold nothing."""


def constraints_of_entries(constraint: Any, shape: torch.Size) -> dict[tuple[int, ...], Any]:
    """Find which constraint holds which entries of an array.

    Args:
        constraint: of torch, or of one of our mixtures, on arrays of this shape.

    Returns:
        A mapping from positions in the flattened array to bounds (lower, upper), or to a
        constraint on the vector of these entries. Entries that are free may be left out.

    Raises:
        UsageError: an unsupported constraint.

    Examples:
        >>> both = torch_constraints.stack([torch_constraints.positive, torch_constraints.real])
        >>> constraints_of_entries(both, torch.Size([2]))
        {(0,): (0.0, inf)}
    """
    return _assign(constraint, torch.arange(shape.numel()).reshape(shape))


def constraints_of_distribution(
    prior: Distribution, names: Sequence[str]
) -> dict[tuple[str, ...], Any]:
    """Find the constraints that a prior has on its entries, by their names.

    Args:
        prior: over an array of batch and event dimensions.
        names: of its entries, the last dimension fastest.

    Raises:
        UsageError: one that is not supported.

    Examples:
        >>> from torch.distributions import Exponential
        >>> constraints_of_distribution(Exponential(torch.ones(2)), ["a", "b"])
        {('a',): (0.0, inf), ('b',): (0.0, inf)}
    """
    try:
        support: Any = prior.support
    except NotImplementedError:  # which torch allows; nothing is known then
        return {}
    try:
        held = constraints_of_entries(support, prior.batch_shape + prior.event_shape)
    except UsageError as error:
        raise UsageError(f"prior: {error}; or give constraints=") from None
    return {tuple(names[i] for i in entries): each for entries, each in held.items()}


def _assign(constraint: Any, entries: Tensor) -> dict[tuple[int, ...], Any]:
    """As :func:`constraints_of_entries`, for the entries at these positions."""
    constraint = _unwrap(constraint)
    if any(constraint is free for free in UNCONSTRAINED):
        return {}
    if isinstance(constraint, ConstrainedVector):
        return _assign_vector(constraint, entries)
    if isinstance(constraint, torch_constraints.stack):
        return _assign_each(constraint.cseq, entries.unbind(dim=constraint.dim))
    if isinstance(constraint, torch_constraints.cat):
        return _assign_each(constraint.cseq, entries.split(constraint.lengths, constraint.dim))
    if kind_of(constraint) is not None:
        batch = entries.shape[: entries.ndim - constraint.event_dim]
        return {tuple(row): constraint for row in entries.reshape(batch.numel(), -1).tolist()}
    return _assign_bounds(constraint, entries)


def _unwrap(constraint: Any) -> Any:
    """The constraint inside those that only count dimensions; one that holds nothing, if so."""
    while isinstance(constraint, torch_constraints.independent):
        constraint = constraint.base_constraint
    if type(constraint).__name__ == "MixtureSameFamilyConstraint":  # not in every torch
        component = _unwrap(constraint.base_constraint)
        if any(component is free for free in UNCONSTRAINED):
            return component
    return constraint


def _assign_each(each: Sequence[Any], parts: Sequence[Tensor]) -> dict[tuple[int, ...], Any]:
    """One constraint for each part of the entries."""
    held: dict[tuple[int, ...], Any] = {}
    for constraint, part in zip(each, parts, strict=True):
        held |= _assign(constraint, part)
    return held


def _assign_vector(constraint: ConstrainedVector, entries: Tensor) -> dict[tuple[int, ...], Any]:
    """Those of one of our mixtures, whose points are the last dimension."""
    held: dict[tuple[int, ...], Any] = {}
    lower, upper = constraint.constraints.lower, constraint.constraints.upper
    for row in entries.reshape(-1, constraint.constraints.dim).tolist():
        for entry, low, high in zip(row, lower, upper, strict=True):
            held[(entry,)] = (low, high)
        for vector in constraint.constraints.vectors:
            members = tuple(row[vector.columns])
            for entry in members:
                del held[(entry,)]
            held[members] = KINDS[vector.kind]
    return held


def _assign_bounds(constraint: Any, entries: Tensor) -> dict[tuple[int, ...], Any]:
    """Bounds of each entry, which may differ from one entry to the next."""
    ends = [getattr(constraint, end, None) for end in ("lower_bound", "upper_bound")]
    if not any(isinstance(end, Tensor) and end.ndim for end in ends):
        bounds = bounds_of(constraint)
        return {(entry,): bounds for entry in entries.flatten().tolist()}
    low, high = (
        torch.as_tensor(unbounded if end is None else end).expand(entries.shape).flatten().tolist()
        for end, unbounded in zip(ends, (-math.inf, math.inf), strict=True)
    )
    return {
        (entry,): tuple(bounds)
        for entry, *bounds in zip(entries.flatten().tolist(), low, high, strict=True)
    }
