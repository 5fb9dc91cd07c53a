"""Write columns of numbers to a file or to standard output."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from amfvi.draws.parquet_files import require_parquet, write_parquet
from amfvi.errors import InputError
from amfvi.files import check_file, new_file

__all__ = ["check_writable", "write_columns"]

SUFFIXES = (".csv", ".npy", ".npz", ".parquet")
"""Endings of the files that can be written."""

CHUNK_ROWS = 100_000
"""Rows that are turned into text at a time, so that memory in use stays small."""


def check_writable(path: Path | None, *, overwrite: bool) -> None:
    """Check a path before the work that fills it; None is standard output.

    Raises:
        InputError: an unknown ending, or something is in the way.
        UsageError: a Parquet file, and pyarrow is not installed.

    Examples:
        >>> check_writable(Path("draws.txt"), overwrite=False)
        Traceback (most recent call last):
        amfvi.errors.InputError: draws.txt: unknown ending '.txt', use one of .csv, ...
    """
    if path is None:
        return
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"{path}: unknown ending {path.suffix!r}, use one of {', '.join(SUFFIXES)}"
        )
    if path.suffix.lower() == ".parquet":
        require_parquet()
    check_file(path, overwrite=overwrite)


def write_columns(
    path: Path | None,
    values: NDArray[Any],
    names: tuple[str, ...],
    *,
    array_name: str,
    overwrite: bool,
) -> None:
    """Write (n, d) values as CSV, NPY, NPZ or Parquet, by the ending of the path.

    Args:
        path: None for CSV on standard output.
        names: of the d columns; an NPY file has no place for them.
        array_name: of the values in an NPZ archive.
        overwrite: whether to replace a file that exists.

    Raises:
        InputError: as for :func:`check_writable`, or the disk refuses.

    Examples:
        >>> values = np.array([[0.5, 1.0]])
        >>> write_columns(None, values, ("mu", "tau"), array_name="draws", overwrite=False)
        mu,tau
        0.5,1.0
    """
    if path is None:
        _write_csv(sys.stdout, values, names)
        return
    check_writable(path, overwrite=overwrite)
    with new_file(path, overwrite=overwrite) as temporary:
        if path.suffix.lower() == ".npy":
            with temporary.open("wb") as binary:
                np.save(binary, values)
        elif path.suffix.lower() == ".npz":
            arrays: dict[str, Any] = {array_name: values, "names": np.array(names)}
            with temporary.open("wb") as binary:
                np.savez_compressed(binary, **arrays)
        elif path.suffix.lower() == ".parquet":
            write_parquet(temporary, values, names)
        else:
            with temporary.open("w", newline="", encoding="utf-8") as file:
                _write_csv(file, values, names)


def _write_csv(file: IO[str], values: NDArray[Any], names: tuple[str, ...]) -> None:
    """Write numbers with as many digits as it takes to read the same ones back."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    for start in range(0, len(values), CHUNK_ROWS):
        writer.writerows(values[start : start + CHUNK_ROWS].tolist())
