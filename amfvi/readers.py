"""Draws and points from files: CSV with a header, NPY, NPZ. Nothing is unpickled."""

from __future__ import annotations

import csv
import math
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amfvi.draws import Draws
from amfvi.errors import InputError, MissingFileError

__all__ = ["Table", "columns_for", "read_draws", "read_table"]

INDEX_COLUMNS = {"chain": "chain", ".chain": "chain", "draw": "draw", ".draw": "draw"}
# Whether each holds logarithms.
WEIGHT_COLUMNS = {"weight": False, "weights": False, "log_weight": True, "log_weights": True}
IGNORED_COLUMNS = {".iteration"}
MAX_UNPACKED = 4 * 2**30  # bytes; a compressed file may claim far more than it holds

UNREADABLE = (
    OSError, MemoryError, EOFError, UnicodeDecodeError, NotImplementedError, RuntimeError,
    csv.Error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip

Array = NDArray[Any]


@dataclass(frozen=True)
class Table:
    """Named columns (n × d) with, where the file had them, chain and draw numbers.

    Importance weights too, (n,); only their ratios mean anything.
    """

    values: Array
    names: tuple[str, ...] | None
    chain: Array | None = None
    draw: Array | None = None
    weight: Array | None = None


def read_draws(path: str | Path, *, nonfinite: str = "error", **checks: Any) -> Draws:
    """Draws from a CSV, NPY or NPZ file; ``checks`` as for :meth:`Draws.of`.

    Raises:
        InputError: the file is missing, unreadable or holds no valid draws; the
            message starts with its path.
    """
    path = Path(path)
    table = read_table(path)
    values, chain, weight = table.values, table.chain, table.weight
    for index in (chain, table.draw, weight):
        if index is not None and np.shape(index) != (len(values),):
            raise InputError(f"{path}: chain, draw and weight must have one entry a row of draws")
    if chain is not None:
        draw = table.draw if table.draw is not None else np.arange(len(values))
        order = np.lexsort((draw, chain))
        values, chain = values[order], chain[order]
        weight = None if weight is None else weight[order]
    try:
        return Draws.of(
            values,
            names=table.names,
            weights=weight,
            chain=chain,
            nonfinite=nonfinite,
            source=str(path),
            **checks,
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def read_table(path: str | Path) -> Table:
    """The columns of a CSV, NPY or NPZ file, unvalidated beyond being numbers.

    Raises:
        InputError: the file is missing, unreadable, or not numbers in columns.
    """
    path = Path(path)
    readers = {".csv": _read_csv, ".npy": _read_npy, ".npz": _read_npz}
    if path.is_dir():
        raise InputError(f"{path}: is a directory, expected a CSV, NPY or NPZ file")
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file")
    if path.suffix.lower() not in readers:
        raise InputError(
            f"{path}: unknown kind of file {path.suffix!r}, expected .csv, .npy or .npz"
        )
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty")
    try:
        return readers[path.suffix.lower()](path)
    except UNREADABLE as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__}: {error})") from None


def _read_csv(path: Path) -> Table:
    with path.open(newline="", encoding="utf-8-sig") as file:
        header_line, header = _header(path, file)
    delimiter = next((d for d in ",;\t" if d in header), ",")
    cells = next(csv.reader([header], delimiter=delimiter, skipinitialspace=True))
    names = [cell.strip() for cell in cells]
    if all(_is_number(name) for name in names):
        raise InputError(
            f"{path}: line {header_line} holds numbers where a header was expected; "
            "add a line of parameter names"
        )
    if "" in names:
        raise InputError(f"{path}: column {names.index('') + 1} of the header has no name")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # no rows: said below
            values = np.loadtxt(
                path, delimiter=delimiter, skiprows=header_line, comments="#", quotechar='"',
                ndmin=2, encoding="utf-8-sig",
            )  # fmt: skip
    except ValueError as error:
        _explain_csv(path, delimiter, names, header_line)
        raise InputError(f"{path}: {error}") from None
    if values.size == 0:
        raise InputError(f"{path}: a header and no rows")
    if values.shape[1] != len(names):
        _explain_csv(path, delimiter, names, header_line)
    return _with_indices(path, values, names)


def _header(path: Path, file: Any) -> tuple[int, str]:
    """The first line that is neither blank nor a comment, with its number from 1."""
    for number, line in enumerate(file, start=1):
        if line.strip() and not line.startswith("#"):
            return number, line.strip()
    raise InputError(f"{path}: the file is empty")


def _explain_csv(path: Path, delimiter: str, names: list[str], header_line: int) -> None:
    """Find the first cell or row that is wrong and say where it is.

    Raises:
        InputError: always, unless the file is sound after all.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if number <= header_line or not line.strip() or line.startswith("#"):
                continue
            cells = next(csv.reader([line.strip("\r\n")], delimiter=delimiter))
            if len(cells) != len(names):
                raise InputError(
                    f"{path}: line {number} has {len(cells)} cells, the header has {len(names)}"
                )
            for name, cell in zip(names, cells, strict=True):
                if not _is_number(cell):
                    found = repr(cell.strip()) if cell.strip() else "an empty cell"
                    raise InputError(
                        f"{path}: line {number}, column {name!r}: found {found}, expected a number"
                    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _with_indices(path: Path, values: Array, names: list[str]) -> Table:
    """Set chain and draw columns apart from the parameters."""
    weight = _weight(path, {n: values[:, c] for c, n in enumerate(names) if n in WEIGHT_COLUMNS})
    indices: dict[str, Array] = {}
    for column, name in enumerate(names):
        if name in INDEX_COLUMNS:
            if INDEX_COLUMNS[name] in indices:
                raise InputError(f"{path}: more than one {INDEX_COLUMNS[name]} column")
            indices[INDEX_COLUMNS[name]] = values[:, column]
    left_out = INDEX_COLUMNS.keys() | IGNORED_COLUMNS | WEIGHT_COLUMNS.keys()
    kept = [column for column, name in enumerate(names) if name not in left_out]
    if not kept:
        raise InputError(f"{path}: no parameter columns, only {', '.join(names)}")
    parameters = tuple(names[column] for column in kept)
    return Table(values[:, kept], parameters, indices.get("chain"), indices.get("draw"), weight)


def _weight(path: Path, given: Mapping[str, Array]) -> Array | None:
    """Importance weights from the column that holds them or their logarithms."""
    if len(given) > 1:
        raise InputError(f"{path}: found both {' and '.join(given)}; keep one of them")
    for name, column in given.items():
        if not WEIGHT_COLUMNS[name]:
            return column
        if np.isnan(column).any() or not np.isfinite(column.max(initial=-np.inf)):
            raise InputError(f"{path}: {name!r} holds NaN or +inf, or nothing but -inf")
        return np.exp(column - column.max())
    return None


def _read_npy(path: Path) -> Table:
    try:
        return Table(np.load(path, allow_pickle=False), None)
    except ValueError as error:
        raise InputError(f"{path}: {_numpy_reason(error)}") from None


def _read_npz(path: Path) -> Table:
    _refuse_bomb(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            if not hasattr(file, "files"):
                raise InputError(f"{path}: not an NPZ archive")
            arrays = {name: file[name] for name in file.files}
    except ValueError as error:
        raise InputError(f"{path}: {_numpy_reason(error)}") from None
    weight = _weight(path, {n: arrays.pop(n) for n in WEIGHT_COLUMNS if n in arrays})
    given = arrays.pop("names", None)
    names = None if given is None else tuple(str(name) for name in np.atleast_1d(given))
    chain, draw = arrays.pop("chain", None), arrays.pop("draw", None)
    if "draws" in arrays:
        return Table(arrays["draws"], names, chain, draw, weight)
    if len(arrays) == 1:
        return Table(next(iter(arrays.values())), names, chain, draw, weight)
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) == 1 and len(next(iter(shapes))) == 1:
        return Table(np.column_stack(list(arrays.values())), tuple(arrays), chain, draw, weight)
    raise InputError(
        f"{path}: expected an array called 'draws', a single array, or one 1-D array a "
        f"parameter, found {', '.join(f'{k} {v.shape}' for k, v in arrays.items()) or 'nothing'}"
    )


def _refuse_bomb(path: Path) -> None:
    """Reject an archive that would unpack to far more than memory can take."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            claimed = member.file_size
            if member.filename.endswith(".npy"):
                with archive.open(member) as file:
                    claimed = max(claimed, _claimed_bytes(path, file))
            if claimed > MAX_UNPACKED:
                raise InputError(
                    f"{path}: {member.filename} unpacks to {claimed / 2**30:.1f} GiB, the limit "
                    f"is {MAX_UNPACKED / 2**30:.0f}; save it as .npy"
                )


def _claimed_bytes(path: Path, file: Any) -> int:
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            read = np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    except ValueError as error:
        raise InputError(f"{path}: {_numpy_reason(error)}") from None
    return math.prod(shape) * dtype.itemsize


def _numpy_reason(error: ValueError) -> str:
    if "pickle" in str(error):
        return (
            "holds Python objects (pickled), which are never loaded because they can run "
            "code; save plain numbers"
        )
    return f"cannot be read ({error})"


def columns_for(table: Table, expected: tuple[str, ...], path: str | Path) -> Array:
    """The columns of ``table`` that a model expects, in its order, (n, d) float64.

    A table without names must have as many columns as expected.

    Raises:
        InputError: a column is missing or not expected, or the values are not numbers.
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
        missing = [name for name in expected if name not in table.names]
        extra = [name for name in table.names if name not in expected]
        if missing or extra:
            raise InputError(
                f"{path}: columns are {', '.join(table.names)}, expected {', '.join(expected)}"
            )
        values = values[:, [table.names.index(name) for name in expected]]
    return np.ascontiguousarray(values, dtype=np.float64)
