"""The folder of results, and what the command lines of benchmarks have in common."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from amfvi.files import new_file
from experiments.lab.tables import Row, write_csv

__all__ = ["RESULTS", "benchmark_parser", "write_page"]

RESULTS = Path(__file__).parents[1] / "results"
"""The folder of pages, tables and figures."""


def benchmark_parser(description: str | None, folder: str) -> argparse.ArgumentParser:
    """Make a parser with the options that every benchmark has.

    Args:
        description: the docstring of the benchmark; its first line is shown.
        folder: of finished cells, under ``runs``.
    """
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5, help="per problem")
    parser.add_argument("--folder", type=Path, default=Path("runs") / folder,
                        help="of finished cells")  # fmt: skip
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the page")
    return parser


def write_page(results: Path, name: str, text: str, rows: Sequence[Row] = ()) -> None:
    """Write a page, and its rows if there are any as CSV; print the page."""
    with new_file(results / f"{name}.md", overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
    if rows:
        write_csv(results / f"{name}.csv", rows)
    print(text)
