"""The output of the command line: tables on stdout, progress and log on stderr."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from amfvi.cli.options import flags_for_arguments
from amfvi.files import without_nonfinite
from amfvi.reporting import Reporter

__all__ = [
    "ConsoleReporter",
    "density_lines",
    "floor_cache",
    "posterior_table",
    "print_json",
    "reporting",
    "score_table",
    "show",
    "show_listing",
    "show_run",
    "show_scores",
    "weights_line",
]

Array = NDArray[np.float64]


class ConsoleReporter(Reporter):
    """Show a fit in progress: bars on a terminal, log lines on stderr.

    Args:
        console: for log lines; None for none.
        bars: for progress; None for none.

    Examples:
        >>> ConsoleReporter(None, None).log("not shown")
    """

    def __init__(self, console: Console | None, bars: Progress | None) -> None:
        self._console = console
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def log(self, line: str) -> None:
        self._print(line, None)

    def warn(self, line: str) -> None:
        self._print(line, "yellow")

    def expert_progress(self, expert: str, fraction: float, heldout_nll: float) -> None:
        self._advance(expert, fraction, f"held-out NLL {heldout_nll:.4f}")

    def sampler_progress(self, beta: float, log_z: float, n_evaluations: int) -> None:
        described = f"β {beta:.3f}, log Z {log_z:.2f}, {n_evaluations} evaluations"
        self._advance("sampler", beta, described)

    def _print(self, line: str, style: str | None) -> None:
        if self._console is not None:
            shown = flags_for_arguments(line)
            self._console.print(shown, style=style, markup=False, highlight=False, soft_wrap=True)

    def _advance(self, task: str, fraction: float, described: str) -> None:
        if self._bars is None:
            return
        if task not in self._tasks:
            self._tasks[task] = self._bars.add_task(task, total=1.0, described="")
        self._bars.update(self._tasks[task], completed=fraction, described=described)


@contextmanager
def reporting(quiet: bool) -> Iterator[ConsoleReporter]:
    """Yield a reporter that shows progress on stderr, or nothing if ``quiet``.

    Examples:
        >>> with reporting(quiet=True) as reporter:
        ...     reporter.log("not shown")
    """
    if quiet:
        yield ConsoleReporter(None, None)
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield ConsoleReporter(console, None)
        return
    bars = Progress(
        TextColumn("{task.description:<12}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[described]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    with bars:
        yield ConsoleReporter(console, bars)


def print_json(value: Any) -> None:
    """Print one JSON object to stdout, with null for what it cannot hold.

    Examples:
        >>> print_json({"kl": float("nan")})
        {
         "kl": null
        }
    """
    print(json.dumps(without_nonfinite(value), indent=1, allow_nan=False))


def floor_cache() -> Path:
    """The file in which the command line keeps floors of targets.

    It is ``amfvi/floors.json`` under ``XDG_CACHE_HOME``, or ``~/.cache``.

    Examples:
        >>> floor_cache().name
        'floors.json'
    """
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "amfvi" / "floors.json"


def show_run(metrics: Mapping[str, Any]) -> None:
    """Print the scores, the weights and the diagnostics of a run."""
    if metrics["n_test"]:
        show_scores(metrics)
    show(weights_line(metrics), *density_lines(metrics["density"]))


def show_scores(scores: Mapping[str, Any]) -> None:
    """Print the scores of a mixture and its experts."""
    show(score_table(scores["mixture"], scores["experts"], scores["floor"], scores["entropy"]))


def show_listing(what: str, rows: Mapping[str, Mapping[str, Any]], as_json: bool) -> None:
    """Print a table of named things, or one JSON object."""
    if as_json:
        print_json(rows)
        return
    columns = list(next(iter(rows.values())))
    cells = [[name, *map(_cell, row.values())] for name, row in rows.items()]
    show(_listing([what, *columns], cells))


def show(*tables: Table | str) -> None:
    """Print tables and lines to stdout; words are folded, tables of numbers never cut.

    Examples:
        >>> show("one line")
        one line
    """
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
    """The weight of each expert, and their effective number."""
    shown = ", ".join(f"{name} {e['weight']:.3f}" for name, e in metrics["experts"].items())
    return f"weights: {shown}  (effective experts {metrics['weights']['n_eff']:.2f})"


def density_lines(density: Mapping[str, Any] | None) -> list[str]:
    """Diagnostics against a log density, and the verdict with its reasons."""
    if density is None:
        return []
    share = density["ess"] / density["n_draws"]
    lines = [
        f"log Z:   {_pm(density['log_z'], density['log_z_se'], 4)} by the mixture, "
        f"{_pm(density['log_z_sampler'], density['log_z_sampler_se'], 4)} by the sampler, "
        f"{density['n_evaluations']} evaluations",
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
    """A row per parameter: mean, sd, quantiles and interval."""
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


def _listing(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A plain table of strings, first column on the left."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "–"
    return f"{value:.5f}" if isinstance(value, float) else str(value)
