"""Read and write Parquet files of named columns of numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amfvi.draws.table import Table, require_memory, table_from_columns
from amfvi.errors import InputError, UsageError

__all__ = ["read_parquet", "require_parquet", "write_parquet"]

PANDAS_INDEX = re.compile(r"__index_level_\d+__")
"""Columns that hold the row numbers of a data frame."""


def require_parquet() -> Any:
    """The library that reads and writes Parquet files.

    Raises:
        UsageError: it is not installed.

    Examples:
        >>> require_parquet().__name__
        'pyarrow.parquet'
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(
            "Parquet files need pyarrow: pip install 'amfvi[parquet]'; or use .csv, .npy or .npz"
        ) from error
    return pyarrow.parquet


def read_parquet(path: Path) -> Table:
    """Read columns of numbers; those called chain, draw and weight are as in a CSV file.

    Raises:
        InputError: a column that is not of numbers, no rows, or a damaged file.
        UsageError: pyarrow is not installed.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_parquet(Path(folder, "a.parquet"), np.array([[0.5, 1.0]]), ("mu", "tau"))
        ...     read_parquet(Path(folder, "a.parquet")).names
        ('mu', 'tau')
    """
    parquet = require_parquet()
    import pyarrow.types

    try:
        file = parquet.ParquetFile(path)
        schema, n_rows = file.schema_arrow, file.metadata.num_rows
    except Exception as error:  # pyarrow raises many kinds of a damaged file
        raise _damaged(error) from None
    names = [name for name in schema.names if not PANDAS_INDEX.fullmatch(name)]
    for name, kind in zip(schema.names, schema.types, strict=True):
        if name in names and not (
            pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind)
        ):
            raise InputError(f"column {name!r} holds {kind}, expected numbers")
    if not names:
        raise InputError("a table without columns")
    if not n_rows:
        raise InputError("columns and no rows")
    require_memory(8 * n_rows * len(names), "the table")
    try:
        columns = dict(zip(schema.names, file.read().columns, strict=True))
        arrays = [columns[name].to_numpy() for name in names]
    except Exception as error:
        raise _damaged(error) from None
    return table_from_columns(np.column_stack(arrays).astype(np.float64), names)


def write_parquet(path: Path, values: NDArray[Any], names: tuple[str, ...]) -> None:
    """Write (n, d) values as d named columns.

    Raises:
        UsageError: pyarrow is not installed.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_parquet(Path(folder, "a.parquet"), np.array([[0.5]]), ("mu",))
        ...     read_parquet(Path(folder, "a.parquet")).values
        array([[0.5]])
    """
    parquet = require_parquet()
    import pyarrow

    table = pyarrow.table(list(np.ascontiguousarray(values.T)), names=list(names))
    parquet.write_table(table, path)


def _damaged(error: Exception) -> InputError:
    said = " ".join(str(error).split())
    return InputError(f"cannot be read ({type(error).__name__}: {said})")
