"""A question, the cells that answer it, and the page made of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from matplotlib.figure import Figure

from amfvi.errors import InputError
from experiments.lab.archive import pack_cells, unpack_cells
from experiments.lab.cells import CellStore, RunCell
from experiments.lab.index import record_answer, write_index
from experiments.lab.pages import write_page
from experiments.lab.provenance import PACKAGES, Provenance, describe_all
from experiments.lab.tables import Row, distinct

__all__ = ["Report", "Size", "Study", "choose_cells", "run_study"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is run.

    Attributes:
        name: "full" for the page, "quick" for about a minute, "tiny" for a test.
        seeds: number of seeds.
    """

    name: str
    seeds: int

    def choose(self, full: T, quick: T, tiny: T) -> T:
        """Choose one of three values by the name."""
        return {"full": full, "quick": quick, "tiny": tiny}[self.name]

    @property
    def n_test(self) -> int:
        """Fresh draws that a fit is scored on, unless a study says otherwise."""
        return self.choose(50_000, 10_000, 2_000)

    def grid(self, *, n_test: int | None = None, **axes: Any) -> list[Row]:
        """Make cells of every combination, the first axis slowest, for all seeds.

        A list, tuple or range is an axis; any other value is the same in all cells.
        """
        axes |= {"n_test": n_test or self.n_test, "seed": range(self.seeds)}
        lists = [v if isinstance(v, list | tuple | range) else [v] for v in axes.values()]
        return [dict(zip(axes, chosen, strict=True)) for chosen in itertools.product(*lists)]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a page says.

    Attributes:
        brief: the answer in one sentence.
        answer: two or three more, made from the figures.
        body: lines of Markdown, mostly tables.
        figure: the one picture.
    """

    brief: str
    answer: str
    body: list[str]
    figure: Figure


@dataclass(frozen=True, kw_only=True)
class Study:
    """One question.

    Attributes:
        name: of the module and of the page.
        question: as a reader would ask it.
        method: how it is answered, in a few sentences.
        cells: the cells to run at a size.
        run: the rows of one cell; also given a folder for fits that studies share.
        report: the page's content from all rows, each with the parameters of its cell.
        packages: whose versions the page names, besides the usual ones.
    """

    name: str
    question: str
    method: str
    cells: Callable[[Size], list[Row]]
    run: RunCell
    report: Callable[[list[Row]], Report] = field(repr=False)
    packages: tuple[str, ...] = ()


def run_study(
    study: Study,
    size: Size,
    folder: Path,
    results: Path,
    *,
    any_version: bool = False,
    only_finished: bool = False,
    only: Mapping[str, str] | None = None,
    archive: Path | None = None,
) -> None:
    """Run the cells of a study that are not on disk; write and print its page.

    Args:
        folder: of finished cells.
        results: of the page, its table and its figure.
        any_version: also take cells that were finished by other versions of the code.
        only_finished: run no cell, and say on the page how many are lacking.
        only: run the cells with these values of axes, each one or several between commas; the
            page is of all cells that are finished.
        archive: a file of finished cells, which are read before and written after.

    Raises:
        InputError: no cell is finished or chosen, or the archive is none.
    """
    store = CellStore(folder=folder, experiment=study.name, any_version=any_version)
    if archive is not None and archive.is_file():
        unpack_cells(archive, store)
    wanted = study.cells(size)
    provenance = Provenance.current(packages=(*PACKAGES, *study.packages))
    if only and not only_finished:
        store.run_all(choose_cells(wanted, only), study.run, provenance)
    if only_finished or only:
        cells = store.read_all(wanted, provenance)
        if not cells:
            raise InputError(
                f"{folder}: no cell of {study.name} is finished, expected one at least"
            )
    else:
        cells = store.run_all(wanted, study.run, provenance)
    if archive is not None:
        pack_cells(cells, archive)
    rows = [row for cell in cells for row in cell.full_rows]
    report = study.report(rows)
    made_with = describe_all(cells)
    if len(cells) < len(wanted):
        made_with = f"{len(cells)} of {len(wanted)} cells are finished. {made_with}"
    page = _page(study, report, size.seeds, made_with)
    write_page(results, study.name, page, rows)
    report.figure.savefig(results / f"{study.name}.png", dpi=90)
    record_answer(results, study.name, study.question, report.brief)
    write_index(results)


def choose_cells(cells: list[Row], only: Mapping[str, str]) -> list[Row]:
    """Choose the cells that have given values of axes, several between commas.

    Raises:
        InputError: there are none.

    Examples:
        >>> choose_cells([{"n": 50, "seed": 0}, {"n": 100, "seed": 0}], {"n": "100,200"})
        [{'n': 100, 'seed': 0}]
    """
    allowed = {axis: chosen.split(",") for axis, chosen in only.items()}
    found = [c for c in cells if all(str(c.get(axis)) in v for axis, v in allowed.items())]
    if not found:
        axes = {axis: ", ".join(map(str, distinct(cells, axis))) for axis in cells[0]}
        known = "; ".join(f"{axis}: {chosen}" for axis, chosen in axes.items())
        raise InputError(f"no cell has {dict(only)}, expected values of the axes ({known})")
    return found


def _page(study: Study, report: Report, seeds: int, made_with: str) -> str:
    return "\n".join([
        f"# {study.question}", "",
        f"**{report.brief}** {report.answer}", "",
        f"![{study.name}]({study.name}.png)", "",
        *report.body, "",
        "## How", "",
        study.method, "",
        f"`python -m experiments {study.name} --seeds {seeds}`; every cell is in "
        f"[{study.name}.csv]({study.name}.csv). Means ± standard errors over seeds, unless said "
        "otherwise.",
        made_with, "",
    ])  # fmt: skip
