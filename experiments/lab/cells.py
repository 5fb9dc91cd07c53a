"""Cells of an experiment: each is run once, saved when finished, and read from then on.

A cell is a mapping of JSON values, its parameters, for which a function makes rows of
figures. Finished cells lie in a folder per version of the source code that they depend
on, so that an interrupted experiment continues and a changed one starts afresh.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from amfvi.files import new_file
from experiments.lab.provenance import Provenance
from experiments.lab.tables import Row

__all__ = ["Cell", "CellStore", "run_in_own_process"]

T = TypeVar("T")

RunCell = Callable[[Row, Path], list[Row]]
"""Makes the rows of a cell; also given a folder for files that cells share."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A finished cell.

    Attributes:
        parameters: that the cell was run with.
        rows: of figures.
        seconds: wall clock.
        made_with: packages, hardware and threads in words.
        code: hash of all source code.
        commit: of the checkout.
        files: the folder that the cell was given for files that cells share.
    """

    parameters: Row
    rows: list[Row]
    seconds: float
    made_with: str
    code: str
    commit: str
    files: Path

    @property
    def full_rows(self) -> list[Row]:
        """The rows, each with the parameters of the cell."""
        return [self.parameters | row for row in self.rows]


@dataclass(frozen=True, kw_only=True)
class CellStore:
    """Finished cells on disk.

    Attributes:
        folder: of all versions of the source code.
        experiment: the name of the study or benchmark.
        any_version: also read cells that were finished by other versions of the code.
    """

    folder: Path
    experiment: str
    any_version: bool = False

    def run(self, parameters: Row, run: RunCell, provenance: Provenance) -> Cell:
        """Read a cell, or run and save it if it is not on disk."""
        cell = self.read(parameters, provenance)
        if cell is None:
            files = self._version(provenance) / "files"
            started = time.monotonic()
            rows = run(parameters, files)
            cell = Cell(
                parameters=parameters,
                rows=rows,
                seconds=round(time.monotonic() - started, 2),
                made_with=provenance.made_with,
                code=provenance.code,
                commit=provenance.commit,
                files=files,
            )
            self._write(cell, self._path(self._version(provenance), parameters))
        return cell

    def read(self, parameters: Row, provenance: Provenance) -> Cell | None:
        """Read a finished cell; None if there is none."""
        current = self._version(provenance)
        versions = [current]
        if self.any_version and self.folder.is_dir():
            others = [path for path in self.folder.iterdir() if path.is_dir() and path != current]
            versions += sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)
        for version in versions:
            path = self._path(version, parameters)
            if path.is_file():
                saved: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
                if saved["parameters"] == parameters:
                    return Cell(**saved, files=version / "files")
        return None

    def add(self, cell: Cell, version: str) -> None:
        """Save a cell that was finished elsewhere, under the name of a version of its own."""
        self._write(cell, self._path(self.folder / version, cell.parameters))

    def read_all(self, cells: Sequence[Row], provenance: Provenance) -> list[Cell]:
        """Read the cells that are on disk."""
        found = (self.read(parameters, provenance) for parameters in cells)
        return [cell for cell in found if cell is not None]

    def run_all(
        self,
        cells: Sequence[Row],
        run: RunCell,
        provenance: Provenance | Callable[[Row], Provenance],
        *,
        skip_failures: bool = False,
    ) -> list[Cell]:
        """Run every cell that is not on disk, with a progress bar.

        Args:
            provenance: of all cells, or a function from a cell's parameters.
            skip_failures: report a cell that raises and go on, in place of raising.
        """
        finished: list[Cell] = []
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), console=console) as bar:
            task = bar.add_task(self.experiment, total=len(cells))
            for parameters in cells:
                label = " ".join(f"{key}={value}" for key, value in parameters.items())
                bar.update(task, description=f"{self.experiment}: {label}")
                of_cell = provenance(parameters) if callable(provenance) else provenance
                try:
                    finished.append(self.run(parameters, run, of_cell))
                except Exception as error:
                    if not skip_failures:
                        raise
                    console.print(f"{label} failed: {error}", markup=False)
                else:
                    if not console.is_terminal:
                        seconds = f"{finished[-1].seconds:.1f} s"
                        console.print(f"{label}: {seconds}", markup=False)
                bar.advance(task)
        return finished

    def _version(self, provenance: Provenance) -> Path:
        return self.folder / provenance.sources[:12]

    def _path(self, version: Path, parameters: Row) -> Path:
        name = "-".join(str(value).replace(" ", "") for value in parameters.values())
        return version / self.experiment / f"{name}.json"

    def _write(self, cell: Cell, path: Path) -> None:
        fields = {key: value for key, value in asdict(cell).items() if key != "files"}
        with new_file(path, overwrite=True) as temporary:
            temporary.write_text(json.dumps(fields), encoding="utf-8")


def run_in_own_process(function: Callable[..., T], *arguments: object) -> T:
    """Call a function of a module in a fresh process; its result, or what it raised."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        return executor.submit(function, *arguments).result()
