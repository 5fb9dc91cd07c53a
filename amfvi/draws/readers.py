"""Read draws and points from CSV, NPY, NPZ, Parquet and netCDF files."""

from __future__ import annotations

import csv
import lzma
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from amfvi.constraints.constraints import ConstraintsLike
from amfvi.draws.csv_files import read_csv
from amfvi.draws.draws import Draws, WeightsLike
from amfvi.draws.from_table import draws_from_table
from amfvi.draws.netcdf_files import read_netcdf
from amfvi.draws.numpy_files import load_arrays, read_npy, read_npz
from amfvi.draws.parquet_files import read_parquet
from amfvi.draws.table import Table
from amfvi.errors import InputError
from amfvi.files import require_file

__all__ = ["columns_for", "read_arrays", "read_draws", "read_points", "read_table"]

Content = TypeVar("Content")

READERS: dict[str, Callable[[Path], Table]] = {
    ".csv": read_csv,
    ".npy": read_npy,
    ".npz": read_npz,
    ".parquet": read_parquet,
    ".nc": read_netcdf,
}
"""The reader of each kind of file, by its ending in lower case."""

UNREADABLE = (
    OSError,
    EOFError,
    UnicodeDecodeError,
    NotImplementedError,
    csv.Error,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
"""What damaged files make ``open``, ``csv``, ``numpy`` and ``zipfile`` raise."""


def read_draws(
    path: str | Path,
    *,
    names: Sequence[str] | None = None,
    constraints: ConstraintsLike = None,
    sample_weight: WeightsLike | None = None,
    chains: bool = False,
    nan_policy: str = "raise",
) -> Draws:
    """Read draws from a CSV, NPY, NPZ, Parquet or netCDF file.

    Columns called ``chain``, ``draw``, ``weight`` and ``log_weight``, in upper or lower case,
    are no parameters but order the rows and weigh them. Of a netCDF file the posterior group is
    read, with its dims and coords (extra ``arviz``); Parquet needs the extra ``parquet``.

    Args:
        names: of the parameters; those of the file if not given.
        constraints, chains, nan_policy: see :meth:`Draws.from_array`.
        sample_weight: importance weights of the rows, if the file has none.

    Raises:
        InputError: the file is missing, unreadable or holds no valid draws; the
            message starts with its path.
        UsageError: weights both here and in the file, or a library is missing.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(Path(folder, "x.npy"), np.random.default_rng(0).normal(size=(200, 2)))
        ...     read_draws(Path(folder, "x.npy"), names=["mu", "tau"]).names
        ('mu', 'tau')
    """
    return draws_from_table(
        read_table(path), str(path), names=names, constraints=constraints,
        sample_weight=sample_weight, chains=chains, nan_policy=nan_policy,
    )  # fmt: skip


def read_table(path: str | Path) -> Table:
    """Read the columns of a file of draws, unvalidated beyond being numbers.

    Raises:
        InputError: the file is missing, unreadable, or not numbers in columns.
        UsageError: the library that reads it is not installed.

    Examples:
        >>> read_table("nothing.csv")
        Traceback (most recent call last):
        amfvi.errors.MissingFileError: nothing.csv: no such file
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a directory, expected a file of draws")
    require_file(path)
    read = READERS.get(path.suffix.lower())
    if read is None:
        *others, last = READERS
        raise InputError(
            f"{path}: unknown kind of file {path.suffix!r}, expected {', '.join(others)} or {last}"
        )
    return _read(path, read)


def read_arrays(path: str | Path) -> dict[str, NDArray[Any]]:
    """Read every array of an NPZ file, by its name; damage is an error.

    Raises:
        InputError: the file is missing, unreadable, or holds other things than arrays.

    Examples:
        >>> read_arrays("nothing.npz")
        Traceback (most recent call last):
        amfvi.errors.MissingFileError: nothing.npz: no such file
    """
    path = Path(path)
    require_file(path)
    return _read(path, load_arrays)


def _read(path: Path, read: Callable[[Path], Content]) -> Content:
    """What ``read`` makes of a file.

    Raises:
        InputError: the file is empty or unreadable; the message starts with its path.
    """
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty")
    try:
        return read(path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except UNREADABLE as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__}: {error})") from None


def columns_for(table: Table, expected: tuple[str, ...], path: str | Path) -> NDArray[Any]:
    """Choose the columns of ``table`` that a model expects, in its order, (n, d) float64.

    A table without names must have as many columns as expected.

    Raises:
        InputError: a column is missing or not expected, or the values are not numbers.

    Examples:
        >>> table = Table(values=np.array([[1.0, 2.0]]), names=("a", "b"))
        >>> columns_for(table, ("b", "a"), "points.csv")
        array([[2., 1.]])
    """
    values = np.asarray(table.values)
    if values.dtype.kind not in "fiu":
        raise InputError(f"{path}: expected real numbers, found dtype {values.dtype}")
    if values.ndim == 1:
        values = values[:, None] if len(expected) == 1 else values[None]
    right_width = values.ndim == 2 and values.shape[1] == len(expected)
    if not right_width and (table.names is None or values.ndim != 2):
        raise InputError(f"{path}: expected n × {len(expected)}, found shape {values.shape}")
    if table.names is not None:
        if sorted(table.names) != sorted(expected):
            raise InputError(
                f"{path}: columns are {', '.join(table.names)}, expected {', '.join(expected)}"
            )
        values = values[:, [table.names.index(name) for name in expected]]
    return np.array(values, dtype=np.float64, order="C")


def read_points(path: str | Path, names: tuple[str, ...]) -> NDArray[Any]:
    """Read points at which a model is evaluated, (n, d) float64, in the order of ``names``.

    Raises:
        InputError: as :func:`read_table` and :func:`columns_for`, or NaN or infinity.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "p.csv").write_text("nu,mu\\n2,1\\n")
        ...     read_points(Path(folder, "p.csv"), ("mu", "nu"))
        array([[1., 2.]])
    """
    points = columns_for(read_table(path), names, path)
    nonfinite = ~np.isfinite(points).all(axis=1)
    if nonfinite.any():
        raise InputError(
            f"{path}: {int(nonfinite.sum())} points hold NaN or infinity, the first at row "
            f"{int(nonfinite.argmax())}, counting from 0"
        )
    return points
