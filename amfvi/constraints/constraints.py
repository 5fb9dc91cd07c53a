"""Constraints on parameters: bounds of each one, and constraints on vectors of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor
from torch.distributions import constraints as torch_constraints

from amfvi.constraints.scalars import bounds_of, scalar_constraint
from amfvi.constraints.vectors import VectorConstraint, kind_of
from amfvi.errors import UsageError

__all__ = ["ConstrainedVector", "Constraints", "ConstraintsLike", "default_names"]


@dataclass(frozen=True)
class Constraints:
    """What values the d parameters of a posterior may take.

    Attributes:
        lower, upper: bounds of each parameter, exclusive; ±inf where there is none.
        vectors: constraints on several parameters together, which then have no bounds
            of their own.

    Raises:
        UsageError: a lower bound that is not below its upper bound.

    Examples:
        >>> from torch.distributions import constraints
        >>> Constraints.parse(["mu", "tau"], {"tau": constraints.positive})
        Constraints(lower=(-inf, 0.0), upper=(inf, inf), vectors=())
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    vectors: tuple[VectorConstraint, ...] = ()

    def __post_init__(self) -> None:
        for low, high in zip(self.lower, self.upper, strict=True):
            if not low < high:
                raise UsageError(f"a lower bound must be below its upper bound, found {low}:{high}")

    @classmethod
    def unbounded(cls, dim: int) -> Constraints:
        """No constraint on any of ``dim`` parameters."""
        return cls((-math.inf,) * dim, (math.inf,) * dim)

    @classmethod
    def parse(cls, names: Sequence[str], constraints: ConstraintsLike) -> Constraints:
        """Read the constraints that a user wrote.

        Args:
            names: the parameters, in order.
            constraints: a mapping from name to constraint (others are unbounded), or one
                per parameter. A constraint is one of torch's ``real``, ``positive``,
                ``unit_interval``, ``interval``, ``greater_than``, ``less_than``, the name of
                one of the first three, or a pair (lower, upper). In a mapping, a key may
                also be a tuple of names, or ``p`` for all of ``p[1], p[2], …``, and the
                constraint torch's ``simplex`` or ``corr_cholesky``, or ``amfvi.ordered``,
                on them together.

        Raises:
            UsageError: an unknown name or an unsupported constraint.
        """
        if constraints is None:
            return cls.unbounded(len(names))
        if isinstance(constraints, Constraints):
            if constraints.dim != len(names):
                raise UsageError(
                    f"the constraints have {constraints.dim} parameters, the draws {len(names)}"
                )
            return constraints
        if isinstance(constraints, Mapping):
            scalars, vectors = _parse_mapping(names, constraints)
        elif isinstance(constraints, str) or not isinstance(constraints, Iterable):
            raise UsageError(
                "constraints= must be a mapping from names, or one constraint for each parameter, "
                f"found {constraints!r}"
            )
        else:
            scalars, vectors = list(constraints), []
            if len(scalars) != len(names):
                raise UsageError(
                    f"constraints= has {len(scalars)} entries for {len(names)} parameters"
                )
        bounds = [bounds_of(constraint) for constraint in scalars]
        lower, upper = tuple(b[0] for b in bounds), tuple(b[1] for b in bounds)
        return cls(lower, upper, tuple(vectors))

    @property
    def dim(self) -> int:
        """Number of parameters d."""
        return len(self.lower)

    @property
    def unconstrained_dim(self) -> int:
        """Number of unconstrained coordinates; fewer than ``dim`` for a simplex."""
        return self.dim + sum(vector.unconstrained_size - vector.size for vector in self.vectors)

    @property
    def is_constrained(self) -> bool:
        """Whether any parameter has a constraint."""
        return bool(self.vectors) or any(map(math.isfinite, self.lower + self.upper))

    @property
    def torch_constraint(self) -> torch_constraints.Constraint:
        """The same as one constraint of torch on vectors of d numbers."""
        if not self.is_constrained:
            return torch_constraints.real_vector
        if self.vectors:
            return ConstrainedVector(self)
        each = [scalar_constraint(*pair) for pair in zip(self.lower, self.upper, strict=True)]
        return torch_constraints.stack(each, dim=-1)

    def contains(self, x: Tensor) -> Tensor:
        """Whether each point (n, d) satisfies the constraints, strictly for bounds; (n,)."""
        lower, upper = x.new_tensor(self.lower), x.new_tensor(self.upper)
        inside = ((x > lower) & (x < upper)).all(dim=1)
        for vector in self.vectors:
            inside = inside & vector.check(x[:, vector.columns])
        return inside

    def unconstrained_names(self, names: Sequence[str]) -> list[str]:
        """A name for each unconstrained coordinate, given those of the parameters."""
        by_start = {vector.start: vector for vector in self.vectors}
        inside = {i for vector in self.vectors for i in range(self.dim)[vector.columns]}
        labels: list[str] = []
        for i, name in enumerate(names):
            vector = by_start.get(i)
            if vector is None:
                labels += [] if i in inside else [name]
                continue
            members = list(names[vector.columns])
            if vector.unconstrained_size == vector.size:
                labels += members
            else:
                labels += [
                    f"unconstrained coordinate {k + 1} of {members[0]} … {members[-1]}"
                    for k in range(vector.unconstrained_size)
                ]
        return labels

    def to_json(self) -> dict[str, Any]:
        """Describe the constraints in JSON values, null for an infinite bound."""
        return {
            "lower": [low if math.isfinite(low) else None for low in self.lower],
            "upper": [high if math.isfinite(high) else None for high in self.upper],
            "vectors": [asdict(vector) for vector in self.vectors],
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Constraints:
        """Restore what :meth:`to_json` described."""
        lower = tuple(-math.inf if low is None else float(low) for low in fields["lower"])
        upper = tuple(math.inf if high is None else float(high) for high in fields["upper"])
        return cls(lower, upper, tuple(VectorConstraint(**v) for v in fields["vectors"]))


ConstraintsLike = Mapping[Any, Any] | Sequence[Any] | Constraints | None
"""What a user may give as ``constraints=``; see :meth:`Constraints.parse`."""


def default_names(d: int) -> tuple[str, ...]:
    """Name d parameters that have no names of their own.

    Examples:
        >>> default_names(2)
        ('x1', 'x2')
    """
    return tuple(f"x{i}" for i in range(1, d + 1))


def _parse_mapping(
    names: Sequence[str], constraints: Mapping[Any, Any]
) -> tuple[list[Any], list[VectorConstraint]]:
    """One scalar constraint per parameter, and the constraints on vectors."""
    scalars: list[Any] = [torch_constraints.real] * len(names)
    vectors = []
    for key, constraint in constraints.items():
        columns = _columns_of(key, names)
        while isinstance(constraint, torch_constraints.independent):
            constraint = constraint.base_constraint
        if kind := kind_of(constraint):
            if columns != list(range(columns[0], columns[-1] + 1)):
                raise UsageError(f"the parameters of {key!r} must be neighbors, in order")
            vectors.append(VectorConstraint(kind, columns[0], len(columns)))
        for i in columns:
            scalars[i] = torch_constraints.real if kind else constraint
    return scalars, vectors


def _columns_of(key: Any, names: Sequence[str]) -> list[int]:
    """The parameters that a key of ``constraints=`` refers to.

    Raises:
        UsageError: no parameter matches.
    """
    wanted = [key] if isinstance(key, str) else list(key)
    if isinstance(key, str) and key not in names:
        wanted = [name for name in names if name.partition("[")[0] == key]
    missing = [name for name in wanted if name not in names]
    if missing or not wanted:
        name = missing[0] if missing else key
        raise UsageError(f"no parameter {name!r} to constrain (known: {', '.join(names)})")
    return [list(names).index(name) for name in wanted]


class ConstrainedVector(torch_constraints.Constraint):
    """Constraints on all parameters as one constraint of torch, on vectors of them.

    Attributes:
        constraints: on the entries.

    Examples:
        >>> import torch
        >>> simplex = Constraints.parse(["a", "b"], {("a", "b"): torch_constraints.simplex})
        >>> ConstrainedVector(simplex).check(torch.tensor([[0.5, 0.5], [0.5, 0.6]]))
        tensor([ True, False])
    """

    event_dim = 1

    def __init__(self, constraints: Constraints) -> None:
        self.constraints = constraints
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """Whether each vector (..., d) satisfies the constraints; shape (...)."""
        rows = value.reshape(-1, self.constraints.dim)
        return self.constraints.contains(rows).reshape(value.shape[:-1])
