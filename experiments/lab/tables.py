"""Rows of figures: selections, means over seeds, and tables in Markdown and CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "Row",
    "distinct",
    "format_mean",
    "markdown_table",
    "mean_se",
    "pivot",
    "significant",
    "values",
    "write_csv",
]

Row = dict[str, Any]
"""A row of figures, or the parameters of a cell: JSON values by name."""


def values(rows: Iterable[Row], key: str, **where: Any) -> np.ndarray:
    """Select ``row[key]`` of the rows that have all the values of ``where``, as floats.

    Examples:
        >>> values([{"seed": 0, "kl": 0.5}, {"seed": 1, "kl": 0.25}], "kl", seed=1)
        array([0.25])
    """
    chosen = [row[key] for row in rows if all(row[k] == v for k, v in where.items())]
    return np.array(chosen, dtype=np.float64)


def distinct(rows: Iterable[Row], key: str) -> list[Any]:
    """List the different values of ``row[key]``, in the order of their first rows.

    Examples:
        >>> distinct([{"n": 200}, {"n": 100}, {"n": 200}], "n")
        [200, 100]
    """
    return list(dict.fromkeys(row[key] for row in rows))


def mean_se(x: np.ndarray) -> tuple[float, float]:
    """Compute a mean and its standard error; NaN for the error of a single value.

    Examples:
        >>> mean_se(np.array([1.0, 3.0]))
        (2.0, 1.0)
    """
    se = float(x.std(ddof=1) / math.sqrt(len(x))) if len(x) > 1 else math.nan
    return float(x.mean()), se


def significant(gains: Mapping[str, np.ndarray]) -> tuple[list[str], list[str]]:
    """Name the mean gains above, and below, zero by more than two standard errors.

    Examples:
        >>> significant({"banana": np.array([1.0, 1.1]), "rings": np.array([1.0, -1.0])})
        (['banana'], [])
    """
    statistics = {name: mean_se(gain) for name, gain in gains.items()}
    won = [name for name, (mean, se) in statistics.items() if mean > 2 * se]
    lost = [name for name, (mean, se) in statistics.items() if mean < -2 * se]
    return won, lost


def format_mean(x: np.ndarray, number_format: str = ".4f") -> str:
    """Format values over seeds as their mean ± its standard error.

    Examples:
        >>> format_mean(np.array([1.0, 3.0]), ".1f")
        '2.0 ± 1.0'
    """
    if not len(x):
        return ""
    if not np.isfinite(x).all():
        return f"∞ in {int((~np.isfinite(x)).sum())} of {len(x)}"
    mean, se = mean_se(x)
    if math.isnan(se):
        return format(mean, number_format)
    return f"{mean:{number_format}} ± {se:{number_format}}"


def markdown_table(header: Sequence[object], lines: Iterable[Sequence[object]]) -> list[str]:
    """Format lines of entries as a table in Markdown.

    Examples:
        >>> markdown_table(["target", "kl"], [["banana", 0.1]])
        ['| target | kl |', '|---|---|', '| banana | 0.1 |']
    """
    return [
        _markdown_line(header),
        "|---" * len(header) + "|",
        *(_markdown_line(line) for line in lines),
    ]


def _markdown_line(entries: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, entries))} |"


def pivot(
    rows: list[Row], down: str | tuple[str, ...], across: str, key: str, number_format: str = ".4f"
) -> list[str]:
    """Tabulate ``key`` over seeds: a line for each ``down``, a column for each ``across``.

    Examples:
        >>> rows = [{"target": "banana", "n": n, "kl": 1 / n} for n in (100, 200)]
        >>> pivot(rows, "target", "n", "kl")
        ['| target | 100 | 200 |', '|---|---|---|', '| banana | 0.0100 | 0.0050 |']
    """
    down = (down,) if isinstance(down, str) else down
    columns = distinct(rows, across)
    lines = []
    for line in dict.fromkeys(tuple(row[d] for d in down) for row in rows):
        where = dict(zip(down, line, strict=True))
        cells = [values(rows, key, **where, **{across: column}) for column in columns]
        lines.append([*line, *(format_mean(cell, number_format) for cell in cells)])
    return markdown_table([*down, *columns], lines)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as CSV; columns are the keys of all rows, in order of appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
