"""Linear dependence among columns of draws, which leaves them no density."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from amfvi.constraints.constraints import Constraints
from amfvi.constraints.transform import UnconstrainingTransform

__all__ = ["Relation", "describe_collinear_pairs", "describe_relations", "find_relations"]

COLLINEAR = 0.9999
"""Absolute correlation of two columns above which a warning is given."""

TOLERANCE = 1e-5
"""Spread of a column about what others say of it, in units of its own, below which it depends."""

NOTABLE = 1e-4
"""Share of the largest coefficient that makes a column part of a relation."""

ROWS_PER_COLUMN = 20
"""Rows per column that are searched; what is found there is checked on all."""

MIN_ROWS = 2000
"""Fewest rows that are searched, where there are as many."""

SUM_ERROR = 1e-6
"""Largest error of a sum of one that counts as one."""

DEGENERATE = "their density is degenerate and its logarithm has no bound"
"""What a relation means."""

RELATIONS_SHOWN = 3
"""Relations written out in messages before the rest are counted."""

NAMES_SHOWN = 8
"""Names written out in a message before the rest are counted."""

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Relation:
    """A column that is a linear function of others.

    Attributes:
        columns: those that take part, in order.
        dependent: the last of them, which the others determine.
        error: its spread about the linear function, in units of its own spread.

    Examples:
        >>> Relation(columns=(0, 1, 2), dependent=2, error=1e-15).dependent
        2
    """

    columns: tuple[int, ...]
    dependent: int
    error: float


def describe_relations(
    values: Tensor, names: Sequence[str], constraints: Constraints
) -> tuple[list[str], set[str]]:
    """Describe the columns of (n, d) that others determine.

    They are looked for among the columns, with the logarithms of positive columns in their
    place, and in unconstrained coordinates.

    Returns:
        The messages, and the names of the columns that others determine.

    Examples:
        >>> import torch
        >>> x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)).double()
        >>> x[:, 2] = x[:, 0] - 2 * x[:, 1]
        >>> describe_relations(x, ["a", "b", "c"], Constraints.unbounded(3))[0]
        ["columns 'a', 'b' and 'c' are linearly dependent: ...; leave one of them out"]
    """
    messages: list[str] = []
    dependent: set[str] = set()
    for table, labels, coordinate_names in _systems(values, names, constraints):
        for relation in find_relations(table):
            name = coordinate_names[relation.dependent]
            if name not in dependent:
                dependent.add(name)
                messages.append(_message(table, labels, relation))
    if len(messages) > RELATIONS_SHOWN:
        rest = len(messages) - RELATIONS_SHOWN
        messages = [*messages[:RELATIONS_SHOWN], f"{rest} more columns are functions of others"]
    return messages, dependent


def describe_collinear_pairs(y: Array, names: Sequence[str], known: set[str]) -> str | None:
    """Describe the most correlated pair of columns (n, d), but for those already known.

    Examples:
        >>> x = np.random.default_rng(0).normal(size=(200, 2))
        >>> x[:, 1] = x[:, 0] + 0.01 * x[:, 1]
        >>> describe_collinear_pairs(x, ["a", "b"], set())
        "columns 'a' and 'b' are correlated at 0.999947; is one a function of the other?"
    """
    chosen = [i for i, name in enumerate(names) if name not in known]
    standard = _standardize(y[:, chosen])
    correlation = standard.T @ standard / len(y)
    pairs = np.argwhere(np.triu(np.abs(correlation) > COLLINEAR, k=1))
    if not len(pairs):
        return None
    i, j = pairs[0]
    others = f" (and {len(pairs) - 1} more pairs)" if len(pairs) > 1 else ""
    return (
        f"columns {names[chosen[i]]!r} and {names[chosen[j]]!r} are correlated at "
        f"{correlation[i, j]:.6f}{others}; is one a function of the other?"
    )


def _systems(
    values: Tensor, names: Sequence[str], constraints: Constraints
) -> Iterator[tuple[Array, list[str], list[str]]]:
    """Tables in which relations are looked for, with labels and names of their columns."""
    x = values.numpy()
    last = {v.start + v.size - 1 for v in constraints.vectors if v.kind == "simplex"}
    free = [i for i in range(x.shape[1]) if i not in last]  # a simplex has one that is not
    free_names = [names[i] for i in free]
    yield x[:, free], [repr(name) for name in free_names], free_names
    positive = np.asarray((x[:, free] > 0).all(axis=0))
    if positive.any():
        logs = x[:, free].copy()
        logs[:, positive] = np.log(logs[:, positive])
        labels = [
            f"log {name!r}" if is_positive else repr(name)
            for name, is_positive in zip(free_names, positive, strict=True)
        ]
        yield logs, labels, free_names
    if constraints.is_constrained:
        transform = UnconstrainingTransform.fit(constraints, values)
        y = transform.to_unconstrained(values)[0].numpy()
        coordinates = constraints.unconstrained_names(names)
        yield y, [f"unconstrained {name!r}" for name in coordinates], coordinates


def _message(table: Array, labels: Sequence[str], relation: Relation) -> str:
    columns = list(relation.columns)
    shown = [labels[i] for i in columns[:NAMES_SHOWN]]
    rest = len(columns) - len(shown)
    end = f"{rest} more" if rest else shown.pop()
    subject = f"columns {', '.join(shown)} and {end}"
    if (table[:, columns] >= 0).all() and np.abs(
        table[:, columns].sum(axis=1) - 1
    ).max() < SUM_ERROR:
        return (
            f"{subject} sum to 1, so that {DEGENERATE}; declare them a simplex, or leave one of "
            "them out"
        )
    if len(columns) == 2:
        pair = _standardize(table[:, columns])
        correlation = float((pair[:, 0] * pair[:, 1]).mean())
        return (
            f"{subject} are correlated at {correlation:.6f}: one is a function of the other, so "
            f"that {DEGENERATE}; leave one of them out"
        )
    return (
        f"{subject} are linearly dependent: each is a function of the others, so that "
        f"{DEGENERATE}; leave one of them out"
    )


def find_relations(values: Array, tolerance: float = TOLERANCE) -> list[Relation]:
    """Find the columns of (n, d) that are linear functions of those before them.

    Units do not matter, nor does a constant that is added. A column that is constant, or not
    finite, takes part in none.

    Examples:
        >>> x = np.random.default_rng(0).normal(size=(100, 3))
        >>> x[:, 2] = 1e8 * x[:, 0] - x[:, 1]
        >>> [relation.columns for relation in find_relations(x)]
        [(0, 2)]
        >>> x[:, 2] = 3 - x[:, 0] - x[:, 1]
        >>> [relation.columns for relation in find_relations(x)]
        [(0, 1, 2)]
    """
    n, d = values.shape
    wanted = max(MIN_ROWS, ROWS_PER_COLUMN * d)
    rows = np.unique(np.linspace(0, n - 1, min(n, wanted)).astype(int))
    standard = _standardize(values[rows])
    kept: list[int] = []
    basis = np.empty((len(rows), 0))
    relations = []
    for column in range(d):
        z = standard[:, column]
        if not z.any():
            continue
        rest = z - basis @ (basis.T @ z)
        rest -= basis @ (basis.T @ rest)  # once more, for the digits lost
        size = np.linalg.norm(rest) / np.linalg.norm(z)
        if size >= tolerance or len(kept) + 1 >= len(rows):
            kept.append(column)
            basis = np.column_stack([basis, rest / np.linalg.norm(rest)])
            continue
        relation = _describe(values, standard, kept, column, tolerance)
        if relation is not None:
            relations.append(relation)
    return relations


def _describe(
    values: Array, standard: Array, kept: Sequence[int], column: int, tolerance: float
) -> Relation | None:
    """The relation of a column to those kept; None if it holds for some rows alone."""
    solution = np.linalg.lstsq(standard[:, kept], standard[:, column], rcond=None)[0]
    notable = np.abs(solution) > NOTABLE * np.abs(solution).max(initial=0.0)
    others = [k for k, is_notable in zip(kept, notable, strict=True) if is_notable]
    whole = _standardize(values[:, [*others, column]])
    target = whole[:, -1]
    coefficients = np.linalg.lstsq(whole[:, :-1], target, rcond=None)[0]
    rest = target - whole[:, :-1] @ coefficients
    # By quantiles, since far outliers make columns alike that differ everywhere else.
    error = _spread(rest) / _spread(target)
    if not error < tolerance:
        return None
    return Relation(columns=(*others, column), dependent=column, error=error)


def _standardize(values: Array) -> Array:
    """Columns of mean zero and root mean square one; a constant column is zero."""
    values = np.where(np.isfinite(values).all(axis=0), values, 0)
    largest = np.abs(values).max(axis=0)
    scaled = values / np.where(largest > 0, largest, 1)
    centered = scaled - scaled.mean(axis=0)
    size = np.sqrt((centered**2).mean(axis=0))
    return np.where(np.ptp(values, axis=0) > 0, centered / np.where(size > 0, size, 1), 0)


def _spread(column: Array) -> float:
    low, high = np.quantile(column, [0.25, 0.75])
    return float(high - low) or float(np.ptp(column)) or float(np.finfo(float).tiny)
