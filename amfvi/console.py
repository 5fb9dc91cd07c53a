"""What the command line shows: tables on stdout, progress and log on stderr."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

__all__ = [
    "Watch",
    "density_lines",
    "posterior_table",
    "score_table",
    "show",
    "watch",
    "weights_line",
]

Array = NDArray[np.float64]


class Watch:
    """Shows a fit in progress: bars on a terminal, a line per expert elsewhere."""

    def __init__(self, console: Console | None, bars: Progress | None) -> None:
        self._console = console
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def progress(self, expert: str, fraction: float, heldout_nll: float) -> None:
        if self._bars is None:
            return
        if expert not in self._tasks:
            self._tasks[expert] = self._bars.add_task(expert, total=1.0, nll="")
        self._bars.update(
            self._tasks[expert], completed=fraction, nll=f"held-out NLL {heldout_nll:.4f}"
        )

    def sampler_progress(self, beta: float, log_z: float, calls: int) -> None:
        """A bar over the temperature, of the run of the sampler that is under way."""
        if self._bars is None:
            return
        if "sampler" not in self._tasks:
            self._tasks["sampler"] = self._bars.add_task("sampler", total=1.0, nll="")
        shown = f"temperature {beta:.3f}, log Z {log_z:.2f}, {calls} calls"
        self._bars.update(self._tasks["sampler"], completed=beta, nll=shown)

    def say(self, line: str) -> None:
        if self._console is not None:
            style = "yellow" if line.startswith("warning:") else None
            self._console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def watch(quiet: bool) -> Iterator[Watch]:
    """A :class:`Watch` on stderr, silent if ``quiet``."""
    if quiet:
        yield Watch(None, None)
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Watch(console, None)
        return
    bars = Progress(
        TextColumn("{task.description:<12}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[nll]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    with bars:
        yield Watch(console, bars)


def show(*tables: Table | str) -> None:
    """Print tables and lines to stdout: words fold, a table of numbers is never cut."""
    console = Console()
    for table in tables:
        if isinstance(table, str):
            console.print(table, markup=False, highlight=False, soft_wrap=True)
        elif not all(column.no_wrap for column in table.columns):
            console.print(table)  # words fold
        else:
            unlimited = Console(width=10_000)
            needed = Measurement.get(unlimited, unlimited.options, table).maximum
            Console(width=max(needed, console.width)).print(table)


def weights_line(metrics: Mapping[str, Any]) -> str:
    """The weight of each expert, and how many that makes."""
    shown = ", ".join(f"{name} {e['weight']:.3f}" for name, e in metrics["experts"].items())
    return f"weights: {shown}  (effective experts {metrics['weights']['n_eff']:.2f})"


def density_lines(density: Mapping[str, Any] | None) -> list[str]:
    """Diagnostics against a log density, and the verdict with its reasons."""
    if density is None:
        return []
    share = density["ess"] / density["draws"]
    lines = [
        f"log Z:   {_pm(density['log_z'], density['log_z_se'], 4)} by the mixture, "
        f"{_pm(density['log_z_sampler'], density['log_z_sampler_se'], 4)} by the sampler, "
        f"{density['calls']} calls",
        f"bounds:  ELBO {_pm(density['elbo'], density['elbo_se'], 4)}, "
        f"EUBO {_pm(density['eubo'], density['eubo_se'], 4)}",
        f"weights of its draws: k̂ {_number(density['khat'], 2)}, {share:.0%} effective",
        f"verdict: {density['verdict']}",
    ]
    return lines + [f"  - {reason}" for reason in density["reasons"]]


def score_table(
    mixture: Mapping[str, Any],
    experts: Mapping[str, Mapping[str, Any]],
    floor: Mapping[str, Any] | None,
    entropy: float | None,
) -> Table:
    """Scores of the mixture and its experts above what the truth itself scores."""
    any_kl = mixture.get("kl") is not None
    weighted = any("weight" in scores for scores in experts.values())
    table = _table("", *["weight"] * weighted, "NLL", *["KL"] * any_kl, "W2", "MMD²", "p")
    rows = {**experts, "mixture": mixture}
    for name, scores in rows.items():
        cells = [_pm(scores["nll"], scores["nll_se"], 3)]
        if any_kl:
            cells.append(_pm(scores["kl"], scores["kl_se"], 4))
        cells += [
            _pm(scores["w2"], scores["w2_sd"], 3),
            _number(scores["mmd2"], 4),
            _number(scores["mmd_p"], 2),
        ]
        weight = [_number(scores.get("weight"), 3)] if weighted else []
        table.add_row(name, *weight, *cells, style="bold" if name == "mixture" else None)
    if floor is not None:
        cells = [_number(entropy, 3), *["0"] * any_kl, _pm(floor["w2"], floor["w2_sd"], 3)]
        cells += [_number(floor["mmd2"], 4), ""]
        table.add_section()
        table.add_row("truth", *[""] * weighted, *cells, style="dim")
    return table


def posterior_table(rows: Mapping[str, Mapping[str, float]]) -> Table:
    """One row a parameter: mean, sd, quantiles and interval."""
    columns = list(next(iter(rows.values())))
    table = _table("", *columns)
    for name, values in rows.items():
        table.add_row(name, *(f"{values[column]:.4g}" for column in columns))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=True)
    return table


def _pm(value: float | None, noise: float | None, digits: int) -> str:
    if value is None:
        return "–"
    return f"{value:.{digits}f}" + ("" if noise is None else f" ± {noise:.{digits}f}")


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def listing(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A plain table of strings, first column on the left."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
