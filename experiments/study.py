"""A question, the cells that answer it, and the page made of them.

Every script that answers one question is a :class:`Study`. Its cells are independent
and each is saved as soon as it is finished, so a script that was interrupted goes on
where it stopped and ends with the same page.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from index import write_index
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = [
    "PALETTE",
    "Report",
    "Size",
    "Study",
    "apart",
    "command",
    "entry",
    "mean_se",
    "pivot",
    "values",
]

RESULTS = Path(__file__).parent / "results"
PALETTE = ("#1b6ca8", "#d1495b", "#edae49", "#00798c", "#7b5ea7", "#5b8c5a", "#8d6b4f", "0.4")

Row = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Size:
    """How much is run: all of it, a minute's worth, or as little as shows that it runs."""

    name: str
    seeds: int

    def of(self, full: T, quick: T, tiny: T) -> T:
        return {"full": full, "quick": quick, "tiny": tiny}[self.name]

    @property
    def tested(self) -> int:
        """Fresh draws that a fit is scored on."""
        return self.of(50_000, 10_000, 2_000)

    def grid(self, *, tested: int | None = None, **axes: Any) -> list[Row]:
        """Cells of every combination, the first axis slowest, for all seeds.

        A list or a tuple is an axis, anything else is the same in all cells.
        """
        axes |= {"tested": tested or self.tested, "seed": range(self.seeds)}
        lists = [v if isinstance(v, (list, tuple, range)) else [v] for v in axes.values()]
        return [dict(zip(axes, chosen, strict=True)) for chosen in itertools.product(*lists)]


@dataclass(frozen=True)
class Report:
    """What a page says.

    Attributes:
        brief: the answer in one sentence.
        answer: two or three more, made from the figures.
        body: lines of Markdown, tables above all.
        figure: the one picture.
    """

    brief: str
    answer: str
    body: list[str]
    figure: Figure


@dataclass(frozen=True)
class Study:
    """One question.

    Attributes:
        name: of the script and its page.
        question: as a reader would ask it.
        method: how it is answered, in a few sentences.
        cells: what is run at a size, each a mapping of JSON values.
        run: the rows of figures of one cell; also given a folder for fits that studies share.
        report: of all rows, each with the values of its cell.
    """

    name: str
    question: str
    method: str
    cells: Callable[[Size], list[Row]]
    run: Callable[[Row, Path], list[Row]]
    report: Callable[[list[Row]], Report] = field(repr=False)


def command(study: Study, arguments: Sequence[str] | None = None) -> None:
    """Run a study from the command line and write its page."""
    parser = argparse.ArgumentParser(description=study.question)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="about a minute; not for the page")
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="of finished cells; by default under runs")
    parser.add_argument("--results", type=Path, help="of the page; experiments/results if full")
    options = parser.parse_args(arguments)
    kind = "tiny" if options.tiny else "quick" if options.quick else "full"
    size = Size(kind, min(options.seeds, 2) if options.quick else options.seeds)
    runs = options.folder or Path("runs") / ("studies" if kind == "full" else f"studies-{kind}")
    results = options.results or (RESULTS if kind == "full" else runs / "results")
    rows, made_with = _all_rows(study, size, runs)
    results.mkdir(parents=True, exist_ok=True)
    _write_csv(results / f"{study.name}.csv", rows)
    report = study.report(rows)
    report.figure.savefig(results / f"{study.name}.png", dpi=90)
    page = _page(study, report, options.seeds, made_with)
    (results / f"{study.name}.md").write_text(page)
    write_index(results)
    print(page)


def _all_rows(study: Study, size: Size, runs: Path) -> tuple[list[Row], str]:
    folder, store = runs / study.name, runs / "fits"
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    made_with = set()
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=console,
    ) as bar:  # fmt: skip
        cells = study.cells(size)
        task = bar.add_task(study.name, total=len(cells))
        for cell in cells:
            words = " ".join(f"{key}={value}" for key, value in cell.items())
            bar.update(task, description=f"{study.name}: {words}")
            path = folder / f"{'-'.join(str(value) for value in cell.values())}.json"
            if not path.is_file():
                started = time.monotonic()
                found = study.run(cell, store)
                saved = {"cell": cell, "rows": found, "made_with": _made_with(),
                         "seconds": round(time.monotonic() - started, 2)}  # fmt: skip
                unfinished = path.with_suffix(".unfinished")
                unfinished.write_text(json.dumps(saved))
                unfinished.replace(path)
                if not console.is_terminal:
                    console.print(f"{study.name}: {words}: {saved['seconds']:.1f} s")
            saved = json.loads(path.read_text())
            rows += [cell | row for row in saved["rows"]]
            made_with.add(saved["made_with"])
            bar.advance(task)
    return rows, "; ".join(sorted(made_with))


def _made_with() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("amfvi", "torch", "scikit-learn"))
    return (
        f"{packages}, Python {platform.python_version()}, {platform.machine()}, "
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    )


def _write_csv(path: Path, rows: list[Row]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _page(study: Study, report: Report, seeds: int, made_with: str) -> str:
    return "\n".join([
        f"# {study.question}", "",
        f"**{report.brief}** {report.answer}", "",
        f"![{study.name}]({study.name}.png)", "",
        *report.body, "",
        "## How", "",
        study.method, "",
        f"`python experiments/{study.name}.py --seeds {seeds}`; every cell is in "
        f"[{study.name}.csv]({study.name}.csv). Means ± standard errors over seeds, unless said "
        "otherwise.",
        f"Made with {made_with}.", "",
    ])  # fmt: skip


def values(rows: Iterable[Row], key: str, **where: Any) -> np.ndarray:
    """``row[key]`` of the rows that have all the values of ``where``, as floats."""
    chosen = [row[key] for row in rows if all(row[k] == v for k, v in where.items())]
    return np.array(chosen, dtype=np.float64)


def mean_se(x: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error; NaN for the error of a single value."""
    se = float(x.std(ddof=1) / math.sqrt(len(x))) if len(x) > 1 else math.nan
    return float(x.mean()), se


def apart(gains: Mapping[str, np.ndarray]) -> tuple[list[str], list[str]]:
    """Names whose mean gain is above, and below, zero by more than two standard errors."""
    found = {name: mean_se(gain) for name, gain in gains.items()}
    won = [name for name, (mean, se) in found.items() if mean > 2 * se]
    lost = [name for name, (mean, se) in found.items() if mean < -2 * se]
    return won, lost


def entry(x: np.ndarray, shown: str = ".4f") -> str:
    """Values over seeds as a table shows them."""
    if not len(x):
        return ""
    if not np.isfinite(x).all():
        return f"∞ in {int((~np.isfinite(x)).sum())} of {len(x)}"
    mean, se = mean_se(x)
    return format(mean, shown) if math.isnan(se) else f"{mean:{shown}} ± {se:{shown}}"


def pivot(
    rows: list[Row], down: str | tuple[str, ...], across: str, key: str, shown: str = ".4f"
) -> list[str]:
    """A table of ``key`` over seeds: a line for each ``down``, a column for each ``across``."""
    down = (down,) if isinstance(down, str) else down
    columns = list(dict.fromkeys(row[across] for row in rows))
    lines = [f"| {' | '.join(down)} | {' | '.join(map(str, columns))} |"]
    lines.append("|---" * (len(down) + len(columns)) + "|")
    for line in dict.fromkeys(tuple(row[d] for d in down) for row in rows):
        where = dict(zip(down, line, strict=True))
        entries = [entry(values(rows, key, **where, **{across: c}), shown) for c in columns]
        lines.append(f"| {' | '.join(map(str, line))} | {' | '.join(entries)} |")
    return lines
