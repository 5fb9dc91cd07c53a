"""Columns of numbers to a file or to stdout."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from amfvi.errors import InputError
from amfvi.outputs import check_file, new_file

__all__ = ["check_writable", "write_columns"]

SUFFIXES = (".csv", ".npy", ".npz")
ROWS_AT_A_TIME = 100_000


def check_writable(path: Path | None, *, overwrite: bool) -> None:
    """Check a path to write to before the work that fills it; None is stdout.

    Raises:
        InputError: an unknown ending, or something is in the way.
    """
    if path is None:
        return
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"{path}: unknown ending {path.suffix!r}, use one of {', '.join(SUFFIXES)}"
        )
    check_file(path, overwrite=overwrite)


def write_columns(
    path: Path | None,
    values: NDArray[Any],
    names: tuple[str, ...],
    *,
    array_name: str,
    overwrite: bool,
) -> None:
    """Write (n, d) values: CSV to stdout if ``path`` is None, else by its ending.

    Raises:
        InputError: as for :func:`check_writable`.
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
        else:
            with temporary.open("w", newline="", encoding="utf-8") as file:
                _write_csv(file, values, names)


def _write_csv(file: IO[str], values: NDArray[Any], names: tuple[str, ...]) -> None:
    """Numbers with as many digits as it takes to read the same ones back."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    for start in range(0, len(values), ROWS_AT_A_TIME):
        writer.writerows(values[start : start + ROWS_AT_A_TIME].tolist())
