"""Constraints on vectors of parameters: simplex, increasing order, Cholesky correlations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Transform, biject_to, constraints
from torch.distributions.transforms import ComposeTransform, ReshapeTransform

from amfvi.errors import UsageError

__all__ = ["VectorConstraint", "kind_of", "ordered"]


class _Ordered(constraints.Constraint):
    """Vectors whose entries increase strictly."""

    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return (value[..., 1:] > value[..., :-1]).all(dim=-1)


class OrderedTransform(Transform):
    """Map R^d to increasing vectors: the first entry, then the logarithms of the gaps."""

    domain = constraints.real_vector
    codomain = _Ordered()
    bijective = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OrderedTransform)

    def __hash__(self) -> int:
        return hash(type(self))

    def _call(self, x: Tensor) -> Tensor:
        return torch.cat([x[..., :1], x[..., 1:].exp()], dim=-1).cumsum(dim=-1)

    def _inverse(self, y: Tensor) -> Tensor:
        return torch.cat([y[..., :1], y.diff(dim=-1).log()], dim=-1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x[..., 1:].sum(dim=-1)


ordered = _Ordered()
"""Constraint: a vector of increasing numbers; torch has none of its own."""

biject_to.register(_Ordered)(lambda constraint: OrderedTransform())

KINDS: dict[str, constraints.Constraint] = {
    "simplex": constraints.simplex,
    "ordered": ordered,
    "corr_cholesky": constraints.corr_cholesky,
}
"""The supported constraints on vectors, by the names that files use."""


def kind_of(constraint: Any) -> str | None:
    """Name the kind of a constraint on a vector or matrix; None for any other.

    Examples:
        >>> kind_of(constraints.simplex), kind_of(constraints.positive)
        ('simplex', None)
    """
    for kind, known in KINDS.items():
        if type(constraint) is type(known):
            return kind
    # Pyro's own, so that its priors and models need no translation.
    return "ordered" if type(constraint).__name__ == "_OrderedVector" else None


@dataclass(frozen=True)
class VectorConstraint:
    """A constraint on neighboring parameters together.

    Densities over a simplex are with respect to all coordinates but the last, over
    Cholesky factors with respect to the entries below the diagonal, as in torch.

    Attributes:
        kind: "simplex", "ordered" or "corr_cholesky".
        start, size: the columns; a K × K Cholesky factor is K² of them, row by row.

    Raises:
        UsageError: a size that the constraint cannot have.

    Examples:
        >>> VectorConstraint("simplex", start=0, size=3).unconstrained_size
        2
    """

    kind: str
    start: int
    size: int

    def __post_init__(self) -> None:
        square = math.isqrt(self.size) ** 2 == self.size
        if self.size < 2 or (self.kind == "corr_cholesky" and (not square or self.size < 4)):
            raise UsageError(
                f"a {self.kind} constraint cannot hold {self.size} parameter"
                + "s" * (self.size != 1)
            )

    @property
    def columns(self) -> slice:
        """The columns of the parameters."""
        return slice(self.start, self.start + self.size)

    @property
    def unconstrained_size(self) -> int:
        """Number of unconstrained coordinates."""
        k = math.isqrt(self.size)
        return {
            "simplex": self.size - 1,
            "ordered": self.size,
            "corr_cholesky": k * (k - 1) // 2,
        }[self.kind]

    @cached_property
    def transform(self) -> Transform:
        """The bijection from unconstrained coordinates to the columns."""
        bijection = biject_to(KINDS[self.kind])
        if self.kind != "corr_cholesky":
            return bijection
        k = math.isqrt(self.size)
        return ComposeTransform(
            [bijection, ReshapeTransform(torch.Size([k, k]), torch.Size([self.size]))]
        )

    def check(self, x: Tensor) -> Tensor:
        """Whether each row (n, size) satisfies the constraint; shape (n,)."""
        k = math.isqrt(self.size)
        shaped = x.unflatten(-1, (k, k)) if self.kind == "corr_cholesky" else x
        return KINDS[self.kind].check(shaped)
