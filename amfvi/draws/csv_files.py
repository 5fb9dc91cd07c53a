"""Read CSV files with a header, and explain what is wrong with one."""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from amfvi.draws.table import Table, table_from_columns
from amfvi.errors import InputError

__all__ = ["read_csv"]

DELIMITERS = ",;\t"
"""Delimiters of cells, in the order in which they are looked for in the header."""

ENCODING = "utf-8-sig"
"""UTF-8, with or without a byte-order mark."""


def read_csv(path: Path) -> Table:
    """Read a CSV file of numbers with a line of names.

    Raises:
        InputError: no header, or a cell that is not a number; says where.
        OSError, UnicodeDecodeError, csv.Error: the file cannot be read as text.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "draws.csv")
        ...     size = path.write_text("mu,tau\\n0.5,1\\n")
        ...     read_csv(path).names
        ('mu', 'tau')
    """
    with path.open(newline="", encoding=ENCODING) as file:
        header_line, header = _find_header(file)
    delimiter = _find_delimiter(header)
    names = _split_header(header, delimiter)
    if all(_is_number(name) for name in names):
        raise InputError(
            f"line {header_line} holds numbers where a header was expected; "
            "add a line of parameter names"
        )
    if "" in names:
        raise InputError(f"column {names.index('') + 1} of the header has no name")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of no rows, which is an error below
            values = np.loadtxt(
                path,
                delimiter=delimiter,
                skiprows=header_line,
                comments="#",
                quotechar='"',
                ndmin=2,
                encoding=ENCODING,
            )
    except ValueError as error:
        _explain(path, delimiter, names, header_line)
        raise InputError(str(error)) from None
    if values.size == 0:
        raise InputError("a header and no rows")
    if values.shape[1] != len(names):
        _explain(path, delimiter, names, header_line)
    return table_from_columns(values, names)


def _find_header(lines: Iterable[str]) -> tuple[int, str]:
    """The first line that is neither blank nor a comment, with its number from 1."""
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.startswith("#"):
            return number, line.strip()
    raise InputError("the file is empty")


def _find_delimiter(header: str) -> str:
    """The delimiter between names, which may hold commas in quotes or brackets."""
    bare = re.sub(r'"[^"]*"|\[[^\]]*\]|\([^)]*\)|\{[^}]*\}', "", header)
    return next((d for d in DELIMITERS if d in bare), ",")


def _split_header(header: str, delimiter: str) -> list[str]:
    """The names in a header; a delimiter in brackets, as in ``L[1,2]``, is part of a name."""
    cells = next(csv.reader([header], delimiter=delimiter, skipinitialspace=True))
    names: list[str] = []
    is_open = False
    for cell in cells:
        if is_open:
            names[-1] += delimiter + cell
        else:
            names.append(cell)
        is_open = _depth(names[-1]) > 0
    return [name.strip() for name in (cells if is_open else names)]


def _depth(text: str) -> int:
    """How many brackets of any kind are still open at the end."""
    return sum(text.count(bracket) for bracket in "[({") - sum(text.count(b) for b in "])}")


def _explain(path: Path, delimiter: str, names: list[str], header_line: int) -> None:
    """Find the first cell or row that is wrong and say where it is.

    Raises:
        InputError: always, unless the file is sound.
    """
    with path.open(newline="", encoding=ENCODING) as file:
        for number, line in enumerate(file, start=1):
            if number <= header_line or not line.strip() or line.startswith("#"):
                continue
            cells = next(csv.reader([line.strip("\r\n")], delimiter=delimiter))
            if len(cells) != len(names):
                raise InputError(
                    f"line {number} has {len(cells)} cells, the header has {len(names)}"
                )
            for name, cell in zip(names, cells, strict=True):
                if not _is_number(cell):
                    shown = repr(cell.strip()) if cell.strip() else "an empty cell"
                    raise InputError(
                        f"line {number}, column {name!r}: found {shown}, expected a number"
                    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
