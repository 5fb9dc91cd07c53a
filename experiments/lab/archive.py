"""Finished cells in one file, which is kept with the pages and read on another machine."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from amfvi.errors import InputError
from amfvi.files import new_file
from experiments.lab.cells import Cell, CellStore

__all__ = ["pack_cells", "unpack_cells"]


def pack_cells(cells: Iterable[Cell], path: Path) -> None:
    """Write cells to a file, a line of JSON for each."""
    lines = []
    for cell in cells:
        fields = asdict(cell)
        del fields["files"]
        lines.append(json.dumps(fields) + "\n")
    with new_file(path, overwrite=True) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def unpack_cells(path: Path, store: CellStore) -> None:
    """Add the cells of a file to a store, as those of another version of the code.

    Raises:
        InputError: the file is not one of cells.
    """
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            fields: dict[str, Any] = json.loads(line)
            cell = Cell(**fields, files=store.folder)
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}, line {number}: not a finished cell ({error})") from None
        store.add(cell, f"archive-{cell.code[:12]}")
