"""A table of named columns, with columns of chains, draws and weights set apart."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amfvi.errors import InputError
from amfvi.variables import Variables

__all__ = ["Table", "require_memory", "role_of", "table_from_columns", "weights_from_columns"]

MAX_UNPACKED = 4 * 2**30
"""Largest size in bytes of an unpacked array; a compressed file may claim any size."""

SPECIAL_COLUMNS = {
    "chain": "chain",
    ".chain": "chain",
    "draw": "draw",
    ".draw": "draw",
    ".iteration": "ignored",
    "weight": "weight",
    "weights": "weight",
    "log_weight": "log_weight",
    "log_weights": "log_weight",
    "logweight": "log_weight",
    "logweights": "log_weight",
}
"""The role of each column that is not a parameter, by its name as :func:`role_of` reads it."""

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns of a file of draws or points.

    Attributes:
        values: n × d numbers, without the columns below.
        names: of the d columns; None where the file has none.
        chain: number of the chain of each row, (n,), where the file has it.
        draw: number of each row in its chain, (n,), where the file has it.
        sample_weight: importance weights, (n,), where the file has them; only their
            ratios matter.
        variables: the arrays that the columns are entries of, where the file says.

    Examples:
        >>> Table(values=np.zeros((5, 2)), names=("mu", "tau")).values.shape
        (5, 2)
    """

    values: Array
    names: tuple[str, ...] | None = None
    chain: Array | None = None
    draw: Array | None = None
    sample_weight: Array | None = None
    variables: Variables | None = None


def require_memory(n_bytes: int, part: str) -> None:
    """Refuse to unpack more than memory can be expected to take.

    Args:
        n_bytes: that ``part`` of the file unpacks to.

    Raises:
        InputError: it is too much.

    Examples:
        >>> require_memory(2**40, "draws.npy")
        Traceback (most recent call last):
        amfvi.errors.InputError: draws.npy unpacks to 1024.0 GiB, the limit is 4; save it as .npy
    """
    if n_bytes > MAX_UNPACKED:
        raise InputError(
            f"{part} unpacks to {n_bytes / 2**30:.1f} GiB, the limit is "
            f"{MAX_UNPACKED / 2**30:.0f}; save it as .npy"
        )


def role_of(name: str) -> str:
    """The role of a column by its name, in upper or lower case, with ``_``, a blank or a hyphen.

    One of "chain", "draw", "weight", "log_weight", "ignored" and "parameter".

    Examples:
        >>> role_of("Chain"), role_of("tau")
        ('chain', 'parameter')
    """
    key = re.sub(r"[ -]", "_", name.strip().lower())
    return SPECIAL_COLUMNS.get(key, "parameter")


def table_from_columns(values: Array, names: Sequence[str]) -> Table:
    """Set columns of chains, draws and weights (n, d) apart from the parameters.

    Raises:
        InputError: no parameters, or two columns with one role.

    Examples:
        >>> table = table_from_columns(np.array([[1.0, 0.5]]), ["chain", "mu"])
        >>> table.names, table.chain
        (('mu',), array([1.]))
    """
    roles = [role_of(name) for name in names]
    weights = {name: values[:, i] for i, name in enumerate(names) if "weight" in roles[i]}
    sample_weight = weights_from_columns(weights)
    for role in ("chain", "draw"):
        if roles.count(role) > 1:
            raise InputError(f"more than one {role} column")
    kept = [i for i, role in enumerate(roles) if role == "parameter"]
    if not kept:
        raise InputError(f"no parameter columns, only {', '.join(names)}")
    return Table(
        values=values[:, kept],
        names=tuple(names[i] for i in kept),
        chain=values[:, roles.index("chain")] if "chain" in roles else None,
        draw=values[:, roles.index("draw")] if "draw" in roles else None,
        sample_weight=sample_weight,
    )


def weights_from_columns(columns: Mapping[str, Array]) -> Array | None:
    """Importance weights (n,) from the column that holds them or their logarithms.

    Raises:
        InputError: more than one column, or logarithms that are not.

    Examples:
        >>> weights_from_columns({"log_weight": np.array([5.0, 5.0])})
        array([1., 1.])
    """
    if len(columns) > 1:
        raise InputError(f"found both {' and '.join(columns)}; keep one of them")
    for name, column in columns.items():
        if role_of(name) == "weight":
            return column
        if np.isnan(column).any() or not np.isfinite(column.max(initial=-np.inf)):
            raise InputError(f"{name!r} holds NaN or +inf, or nothing but -inf")
        return np.exp(column - column.max())
    return None
