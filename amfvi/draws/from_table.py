"""Draws from a table of named columns: of a file, or a data frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amfvi.constraints.constraints import ConstraintsLike
from amfvi.draws.draws import Draws, WeightsLike
from amfvi.draws.table import Table, table_from_columns
from amfvi.errors import InputError, UsageError

__all__ = ["draws_from_frame", "draws_from_table", "is_frame"]


def is_frame(data: Any) -> bool:
    """Whether data are a data frame, of pandas, polars or the like.

    Examples:
        >>> is_frame(np.zeros((2, 2)))
        False
    """
    return hasattr(data, "columns") and hasattr(data, "to_numpy")


def draws_from_frame(frame: Any, **described: Any) -> Draws:
    """Take the draws of a data frame, as :func:`amfvi.draws.readers.read_draws` those of a file.

    Args:
        described: ``names``, ``constraints``, … as there.

    Raises:
        InputError: no parameters, or draws that are not valid.

    Examples:
        >>> class Frame:
        ...     columns = ["mu", "weight"]
        ...     def to_numpy(self):
        ...         return np.abs(np.random.default_rng(0).normal(size=(200, 2)))
        >>> draws = draws_from_frame(Frame())
        >>> draws.names, draws.sample_weight is not None
        (('mu',), True)
    """
    columns = [str(column) for column in frame.columns]
    values = np.asarray(frame.to_numpy())
    if values.dtype.kind not in "fiu":  # of columns of several kinds
        values = np.stack([_numbers(frame[name], name) for name in frame.columns], axis=1)
    return draws_from_table(table_from_columns(values, columns), "a data frame", **described)


def _numbers(column: Any, name: Any) -> NDArray[np.float64]:
    """One column (n,) of a data frame as numbers.

    Raises:
        InputError: it holds something else.
    """
    values = np.asarray(column)
    try:
        if values.dtype.kind not in "fiubO":  # dates would become nanoseconds
            raise TypeError(f"found dtype {values.dtype}")
        if text := next((value for value in values if isinstance(value, str)), None):
            raise TypeError(f"found {text!r}")
        return values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"a data frame: column {str(name)!r} holds no numbers ({error}); leave it out"
        ) from None


def draws_from_table(
    table: Table,
    source: str,
    *,
    names: Sequence[str] | None = None,
    constraints: ConstraintsLike = None,
    sample_weight: WeightsLike | None = None,
    chains: bool = False,
    nan_policy: str = "raise",
) -> Draws:
    """Validate the draws of a table, in the order of their chains.

    Args:
        source: of the table, named in messages.
        names: of the parameters; those of the table if not given.
        constraints, chains, nan_policy: see :meth:`Draws.from_array`.
        sample_weight: importance weights of the rows, if the table has none.

    Raises:
        InputError: no valid draws.
        UsageError: weights both here and in the table.

    Examples:
        >>> values = np.random.default_rng(0).normal(size=(200, 1))
        >>> draws_from_table(Table(values=values, names=("mu",)), "a table").names
        ('mu',)
    """
    if sample_weight is not None and table.sample_weight is not None:
        raise UsageError(f"{source}: has weights of its own; leave out sample_weight")
    weights = table.sample_weight if sample_weight is None else np.asarray(sample_weight)
    values, chain = table.values, table.chain
    for index in (chain, table.draw, weights):
        if index is not None and np.shape(index) != (len(values),):
            raise InputError(
                f"{source}: chain, draw and weight must have one entry per row of draws"
            )
    if chain is not None:
        draw = table.draw if table.draw is not None else np.arange(len(values))
        order = np.lexsort((draw, chain))
        values, chain = values[order], chain[order]
        weights = None if weights is None else weights[order]
    try:
        return Draws.from_array(
            values,
            names=table.names if names is None else names,
            constraints=constraints,
            sample_weight=weights,
            chain_ids=chain,
            chains=chains,
            nan_policy=nan_policy,
            source=source,
            variables=table.variables if names is None else None,
        )
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
