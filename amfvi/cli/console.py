"""The output of the command line: tables on stdout, progress and log on stderr."""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from amfvi.cache import cache_folder
from amfvi.cli.flags import flags_for_arguments
from amfvi.cli.tables import density_lines, score_table, weights_line
from amfvi.cli.terminal import hanging_indent, wrapped
from amfvi.json_files import without_nonfinite
from amfvi.reporting import Reporter

__all__ = [
    "ConsoleReporter",
    "floor_cache",
    "print_json",
    "prints_on_stderr",
    "reporting",
    "show",
    "show_listing",
    "show_run",
    "show_scores",
]

COLUMNS = (
    "NLL, KL: nats; W2, MMD²: distances to the reference draws, to be read beside those of two "
    "samples of them in the last row; p: of MMD², small where the draws differ"
)
"""What the columns of the scores are."""

LOG_INDENT = 12
"""Width of the time at the beginning of a line of the log."""


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

    def simulation_progress(self, done: int, total: int) -> None:
        self._advance("simulator", done / total, f"{done} of {total} simulations")

    def _print(self, line: str, style: str | None) -> None:
        if self._console is not None:
            # Lines of the log begin with their time.
            shown = wrapped(flags_for_arguments(line), sys.stderr, indent=LOG_INDENT)
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


@contextmanager
def prints_on_stderr() -> Iterator[None]:
    """Send to stderr what a user's function prints, itself, from C or by a process it starts.

    What it prints when Python ends goes there too.

    Examples:
        >>> with prints_on_stderr():
        ...     print("iteration 1")
    """
    sys.stdout.flush()
    try:
        stdout = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # one of them is closed
        stdout = None
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if stdout is not None:
            with suppress(OSError, AttributeError, TypeError):  # where C has no such function
                ctypes.CDLL(None).fflush(None)  # else C prints its buffer to stdout at the end
            os.dup2(stdout, 1)
            os.close(stdout)
            # Handlers run in reverse order: those of the function's module run after this one.
            atexit.register(_close_stdout)


def _close_stdout() -> None:
    """Send everything to stderr from now on."""
    with suppress(OSError, ValueError):  # one of them is closed
        sys.stdout.flush()
        os.dup2(2, 1)
        sys.stdout = sys.stderr


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

    Examples:
        >>> floor_cache().name
        'floors.json'
    """
    return cache_folder() / "floors.json"


def show_run(metrics: Mapping[str, Any]) -> None:
    """Print the scores, the weights and the diagnostics of a run.

    Examples:
        >>> metrics = {"n_test": 0, "experts": {"gmm": {"weight": 1.0}}, "weights": {"n_eff": 1.0}}
        >>> show_run({**metrics, "density": None})
        weights: gmm 1.000  (effective experts 1.00)
    """
    if metrics["n_test"]:
        show_scores(metrics)
    show(weights_line(metrics), *density_lines(metrics["density"]))


def show_scores(scores: Mapping[str, Any]) -> None:
    """Print the scores of a mixture and its experts.

    Examples:
        >>> scores = dict.fromkeys(["nll", "nll_se", "w2", "w2_sd", "mmd2", "mmd_p"], 1.5)
        >>> unscored = {"mixture": scores, "experts": {}, "floor": None, "entropy": None}
        >>> show_scores(unscored)  # doctest: +NORMALIZE_WHITESPACE
        NLL ... p
        ... mixture 1.500 ± 1.500 ... 1.50
    """
    show(score_table(scores["mixture"], scores["experts"], scores["floor"], scores["entropy"]))
    if scores["floor"] is not None:
        show(COLUMNS, "")


def show_listing(rows: Mapping[str, Mapping[str, Any]], as_json: bool) -> None:
    """Print named things, a paragraph for each, or one JSON object.

    Examples:
        >>> show_listing({"banana": {"dim": 2}}, as_json=True)
        {
         "banana": {
          "dim": 2
         }
        }
    """
    if as_json:
        print_json(rows)
        return
    show(*(line for name, row in rows.items() for line in ("", *_entry(name, row))))


def show(*tables: Table | str) -> None:
    """Print tables and lines to stdout; lines are broken at words, tables never cut.

    Examples:
        >>> show("one line")
        one line
    """
    console = Console()
    for table in tables:
        if isinstance(table, str):
            for line in table.split("\n"):
                shown = wrapped(line, sys.stdout, indent=hanging_indent(line))
                console.print(shown, markup=False, highlight=False, soft_wrap=True)
        else:
            unlimited = Console(width=10_000)
            needed = Measurement.get(unlimited, unlimited.options, table).maximum
            Console(width=max(needed, console.width)).print(table)


def _entry(name: str, row: Mapping[str, Any]) -> list[str]:
    """A name with its facts, and a line for each text below."""
    facts = [f"{key} {_cell(value)}" for key, value in row.items() if not isinstance(value, str)]
    texts = [f"    {value}" for value in row.values() if isinstance(value, str)]
    return [f"{name}: {', '.join(facts)}" if facts else name, *texts]


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "–"
    return f"{value:.5f}" if isinstance(value, float) else str(value)
