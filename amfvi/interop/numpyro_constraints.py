"""Constraints of NumPyro as those of torch, and constraints of a mixture as one of NumPyro."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.distributions import constraints as torch_constraints

from amfvi.constraints.constraints import ConstrainedVector, Constraints
from amfvi.constraints.vectors import KINDS
from amfvi.errors import UsageError

__all__ = ["numpyro_constraint", "torch_constraint"]


def torch_constraint(constraint: Any) -> torch_constraints.Constraint:
    """Find the constraint of torch that says the same as one of NumPyro.

    Raises:
        UsageError: there is none that is supported.

    Examples:
        >>> from numpyro.distributions import constraints
        >>> torch_constraint(constraints.interval(0.0, 2.0))
        Interval(lower_bound=0.0, upper_bound=2.0)
    """
    from numpyro.distributions import constraints as theirs

    while isinstance(constraint, theirs.independent):
        constraint = constraint.base_constraint
    if isinstance(constraint, _support_class()):
        return ConstrainedVector(constraint.held)
    if hasattr(theirs, "cat") and isinstance(constraint, theirs.cat):  # from NumPyro 0.22 on
        parts = [torch_constraint(part) for part in constraint.cseq]
        return torch_constraints.cat(parts, constraint.dim, constraint.lengths)
    singles = {
        type(theirs.real): torch_constraints.real,
        type(theirs.simplex): KINDS["simplex"],
        type(theirs.corr_cholesky): KINDS["corr_cholesky"],
        type(theirs.ordered_vector): KINDS["ordered"],
    }
    if type(constraint) in singles:
        return singles[type(constraint)]
    if isinstance(constraint, theirs.interval):
        low, high = _bound(constraint.lower_bound), _bound(constraint.upper_bound)
        return torch_constraints.interval(low, high)
    if isinstance(constraint, theirs.greater_than | theirs.greater_than_eq):
        return torch_constraints.greater_than(_bound(constraint.lower_bound))
    if isinstance(constraint, theirs.less_than | theirs.less_than_eq):
        return torch_constraints.less_than(_bound(constraint.upper_bound))
    raise UsageError(
        f"unsupported constraint {constraint!r}: use real, positive, greater_than, less_than, "
        "interval, simplex, corr_cholesky or ordered_vector"
    )


def numpyro_constraint(held: Constraints) -> Any:
    """Make a constraint of NumPyro on vectors of d numbers, known to its ``biject_to``.

    Examples:
        >>> from numpyro.distributions import biject_to
        >>> support = numpyro_constraint(Constraints((0.0, -1.0), (math.inf, 1.0)))
        >>> biject_to(support)(np.zeros(2)).tolist(), support(np.full(2, 2.0)).tolist()
        ([1.0, 0.0], False)
    """
    from numpyro.distributions import constraints as theirs

    return _support_class()(held) if held.is_constrained else theirs.real_vector


def _bound(value: Any) -> Any:
    """A bound of NumPyro as a number, or as a tensor of one for each entry."""
    array = np.array(value, dtype=np.float64)
    return torch.from_numpy(array) if array.ndim else float(array)


class _Part(NamedTuple):
    """Columns that are mapped on their own."""

    columns: slice
    unconstrained: slice
    constraint: Any
    is_matrix: bool

    def shaped(self, x: Any) -> Any:
        """The columns as NumPyro's constraint has them, a matrix as one."""
        value = x[..., self.columns]
        k = math.isqrt(value.shape[-1])
        return value.reshape(*value.shape[:-1], k, k) if self.is_matrix else value


def _parts(held: Constraints) -> list[_Part]:
    """The parts of a vector of d numbers, in order."""
    from numpyro.distributions import constraints as theirs

    kinds = {
        "simplex": theirs.simplex,
        "ordered": theirs.ordered_vector,
        "corr_cholesky": theirs.corr_cholesky,
    }
    inside = {i: vector for vector in held.vectors for i in range(held.dim)[vector.columns]}
    parts, used = [], 0
    for i in range(held.dim):
        vector = inside.get(i)
        if vector is None:
            columns, size = slice(i, i + 1), 1
            constraint = _scalar_constraint(held.lower[i], held.upper[i])
        elif i == vector.start:
            columns, size = vector.columns, vector.unconstrained_size
            constraint = kinds[vector.kind]
        else:
            continue
        is_matrix = vector is not None and vector.kind == "corr_cholesky"
        parts.append(_Part(columns, slice(used, used + size), constraint, is_matrix))
        used += size
    return parts


def _scalar_constraint(low: float, high: float) -> Any:
    from numpyro.distributions import constraints as theirs

    if math.isfinite(low) and math.isfinite(high):
        return theirs.interval(low, high)
    if math.isfinite(low):
        return theirs.positive if low == 0 else theirs.greater_than(low)
    return theirs.less_than(high) if math.isfinite(high) else theirs.real


@cache
def _support_class() -> Any:
    """The class of constraints that hold what :class:`Constraints` holds."""
    import jax.numpy as jnp
    from numpyro.distributions import biject_to
    from numpyro.distributions import constraints as theirs

    class MixtureSupport(theirs.Constraint):
        event_dim = 1
        is_discrete = False

        def __init__(self, held: Constraints) -> None:
            self.held = held

        def __call__(self, x: Any) -> Any:
            inside = jnp.ones(jnp.shape(x)[:-1], dtype=bool)
            for part in _parts(self.held):
                checked = part.constraint(part.shaped(x))
                by_entry = part.constraint.event_dim == 0
                inside = inside & (checked.all(axis=-1) if by_entry else checked)
            return inside

        def feasible_like(self, prototype: Any) -> Any:
            bijection = biject_to(self)
            return bijection(jnp.zeros(bijection.inverse_shape(jnp.shape(prototype))))

        def tree_flatten(self) -> Any:
            return (), ((), {"held": self.held})

        def eq(self, other: Any, static: bool = False) -> Any:
            return isinstance(other, MixtureSupport) and self.held == other.held

    transform = _transform_class()
    biject_to.register(MixtureSupport, lambda constraint: transform(constraint.held, constraint))
    return MixtureSupport


@cache
def _transform_class() -> Any:
    """The class of bijections from vectors of real numbers to such constraints."""
    import jax.numpy as jnp
    from numpyro.distributions import biject_to
    from numpyro.distributions import constraints as theirs
    from numpyro.distributions.transforms import Transform

    class MixtureTransform(Transform):
        domain = theirs.real_vector
        codomain = None

        def __init__(self, held: Constraints, codomain: Any) -> None:
            self.held, self.codomain = held, codomain

        def __call__(self, x: Any) -> Any:
            columns = []
            for part in _parts(self.held):
                value = biject_to(part.constraint)(x[..., part.unconstrained])
                columns.append(value.reshape(*x.shape[:-1], -1) if part.is_matrix else value)
            return jnp.concatenate(columns, axis=-1)

        def _inverse(self, y: Any) -> Any:
            parts = _parts(self.held)
            return jnp.concatenate(
                [biject_to(part.constraint).inv(part.shaped(y)) for part in parts], axis=-1
            )

        def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> Any:
            total = jnp.zeros(jnp.shape(x)[:-1])
            for part in _parts(self.held):
                bijection = biject_to(part.constraint)
                log_det = bijection.log_abs_det_jacobian(x[..., part.unconstrained], part.shaped(y))
                by_entry = part.constraint.event_dim == 0
                total = total + (log_det.sum(axis=-1) if by_entry else log_det)
            return total

        def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
            return (*shape[:-1], self.held.dim)

        def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
            return (*shape[:-1], self.held.unconstrained_dim)

        def tree_flatten(self) -> Any:
            return (), ((), {"held": self.held, "codomain": self.codomain})

        def eq(self, other: Any, static: bool = False) -> Any:
            return isinstance(other, MixtureTransform) and self.held == other.held

    return MixtureTransform
