"""Costly log densities shared among workers: evaluations a second, beside nautilus and pocoMC.

    python -m experiments.benchmarks.pool [--workers 1,8] [--methods NAMES] [--targets NAMES]

The densities sleep, so that workers need no cores. A finished cell is not run again. Needs the
extra ``bench``. Writes ``experiments/results/pool.csv`` and ``.md``.
"""

from __future__ import annotations

import os
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from multiprocessing import get_context, set_start_method
from pathlib import Path

import numpy as np

import amfvi
from experiments.lab.cells import CellStore, run_in_own_process
from experiments.lab.pages import benchmark_parser, write_page
from experiments.lab.peers import Array
from experiments.lab.provenance import AMFVI, Provenance, describe_all
from experiments.lab.tables import Row, markdown_table

__all__ = ["METHODS", "TARGETS", "main", "page", "run"]

DIM = 3
"""Parameters of every target."""

BOX = (-10.0, 10.0)
"""Where those that are given a box look for every parameter."""

CONDITIONS = (
    "Densities of three parameters that sleep at every point, so that workers need no cores, one "
    "run after the other in a process of its own. ``amfvi`` is a whole ``amfvi.fit`` with one "
    'expert and 1,000 draws (`experts=["gmm"], n_draws=1000`), verdict included, that starts with '
    "a search for modes; ``amfvi, box`` starts in the box that the others have as their prior. "
    "Outside the density: the share of the workers' time, workers times seconds, in which they did "
    "not evaluate it: what a method computes itself, such as networks that it trains, does need "
    "cores, and suffers from other work on the machine (its load is given)."
)
"""How the figures come about, for the page."""


def bent(x: Array) -> float:
    """A ridge along a parabola."""
    return float(-0.5 * ((x[0] - 1) ** 2 + (x[1] - x[0] ** 2) ** 2 + x[2] ** 2))


def two_modes(x: Array) -> float:
    """Two Gaussians, one of a third of the other's width."""
    narrow = -0.5 * float(np.square((x - 3.0) * 3.0).sum())
    return float(np.logaddexp(narrow, -0.5 * float(np.square(x + 3.0).sum())))


TARGETS: dict[str, Callable[[Array], float]] = {"bent": bent, "two modes": two_modes}
"""What is fitted."""

FIRST = "bent"
"""The target that all methods are run on; on the others it is amfvi alone."""


class Slow:
    """A log density of one point that takes its time, and counts calls and time in all processes.

    Args:
        target: its name.
        cost: seconds that a call sleeps.
    """

    def __init__(self, target: str, cost: float) -> None:
        context = get_context("fork")
        self._function = TARGETS[target]
        self._cost = cost
        self._calls = context.Value("q", 0)
        self._seconds = context.Value("d", 0.0)

    def __call__(self, x: Array) -> float:
        started = time.monotonic()
        time.sleep(self._cost)
        value = self._function(np.asarray(x))
        with self._calls.get_lock(), self._seconds.get_lock():
            self._calls.value += 1
            self._seconds.value += time.monotonic() - started
        return value

    @property
    def calls(self) -> int:
        """Calls in all processes."""
        return int(self._calls.value)

    @property
    def seconds(self) -> float:
        """Seconds that they took, summed."""
        return float(self._seconds.value)


def run(cell: Row, folder: Path) -> list[Row]:
    """Run one method in a process of its own."""
    return [run_in_own_process(_measure, cell)]


def _measure(cell: Row) -> Row:
    global _slow
    set_start_method("fork", force=True)  # so that pools of all libraries know the density
    _slow = Slow(cell["target"], cell["cost"])
    method, workers = METHODS[cell["method"]], cell["workers"]
    for name in PACKAGES[cell["method"]]:
        import_module(name)
    started = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log_z = method(workers if workers > 1 else None, cell["seed"])
    return {
        "seconds": time.monotonic() - started,
        "n_evaluations": _slow.calls,
        "inside": _slow.seconds,
        "log_z": log_z,
        "load": os.getloadavg()[0],
    }


_slow: Slow
"""The density of this process: a global, since other libraries pickle what they are given."""


def _density(x: Array) -> float:
    return _slow(x)


def _amfvi(workers: int | None, seed: int, box: tuple[float, float] | None = None) -> float:
    density = amfvi.LogDensity(_density, DIM, pool=workers, box=box)
    fit = amfvi.fit(density, experts=["gmm"], n_draws=1000, seed=seed)
    assert fit.diagnostics is not None  # a fit to a log density has them
    return fit.diagnostics.log_z


def _amfvi_box(workers: int | None, seed: int) -> float:
    return _amfvi(workers, seed, BOX)


def _from_unit_cube(u: Array) -> Array:
    return BOX[0] + (BOX[1] - BOX[0]) * u


LOG_VOLUME = DIM * float(np.log(BOX[1] - BOX[0]))
"""Of the box, which other samplers take for a prior of mass one."""


def _nautilus(workers: int | None, seed: int) -> float:
    import nautilus

    sampler = nautilus.Sampler(
        _from_unit_cube, _density, n_dim=DIM, pass_dict=False, seed=seed, pool=workers
    )
    sampler.run(verbose=False)
    return float(sampler.log_z) + LOG_VOLUME


def _pocomc(workers: int | None, seed: int) -> float:
    import pocomc
    from scipy.stats import uniform

    prior = pocomc.Prior([uniform(BOX[0], BOX[1] - BOX[0])] * DIM)
    sampler = pocomc.Sampler(prior, _density, random_state=seed, pool=workers)
    sampler.run(progress=False)
    return float(sampler.evidence()[0]) + LOG_VOLUME


METHODS: dict[str, Callable[[int | None, int], float]] = {
    "amfvi": _amfvi, "amfvi, box": _amfvi_box, "nautilus": _nautilus, "pocomc": _pocomc,
}  # fmt: skip
"""What is compared: from a number of workers and a seed to log Z."""


PACKAGES = {
    "amfvi": ("amfvi.fitting",), "amfvi, box": ("amfvi.fitting",),
    "nautilus": ("nautilus",), "pocomc": ("pocomc",),
}  # fmt: skip
"""Modules that are imported before the clock starts."""


def page(rows: list[Row], command: str, made_with: str) -> str:
    """Write the page: medians over seeds."""
    cost = ", ".join(f"{1e3 * cost:g}" for cost in dict.fromkeys(row["cost"] for row in rows))
    load = statistics.median(row["load"] for row in rows)
    return "\n".join([
        "# A pool of workers", "",
        f"`{command}`", "", CONDITIONS, "",
        f"A call sleeps {cost} ms. Median load of the machine at the end of a run {load:.1f}. "
        f"{made_with}", "",
        *_table(rows), "",
    ])  # fmt: skip


def _table(rows: list[Row]) -> list[str]:
    rows = sorted(
        rows,
        key=lambda row: (
            list(TARGETS).index(row["target"]),
            list(METHODS).index(row["method"]),
            row["workers"],
        ),
    )
    lines: list[list[object]] = []
    alone: dict[tuple[str, str], float] = {}
    for target, method, workers in dict.fromkeys(
        (row["target"], row["method"], row["workers"]) for row in rows
    ):
        runs = [
            row for row in rows
            if (row["target"], row["method"], row["workers"]) == (target, method, workers)
        ]  # fmt: skip
        pace = statistics.median(row["n_evaluations"] / row["seconds"] for row in runs)
        if workers == 1:
            alone[target, method] = pace
        outside = statistics.median(1 - row["inside"] / workers / row["seconds"] for row in runs)
        faster = f"{pace / alone[target, method]:.1f}" if (target, method) in alone else ""
        lines.append([
            target, method, workers,
            f"{statistics.median(row['n_evaluations'] for row in runs):.0f}",
            f"{statistics.median(row['seconds'] for row in runs):.1f}", f"{pace:.0f}", faster,
            f"{outside:.0%}", f"{statistics.median(row['log_z'] for row in runs):.3f}",
        ])  # fmt: skip
    return markdown_table(
        ["target", "method", "workers", "evaluations", "seconds", "evaluations a second",
         "times those of one worker", "outside the density", "log Z"],
        lines,
    )  # fmt: skip


def provenance_of(cell: Row) -> Provenance:
    """What a cell depends on: amfvi, or a sampler's package and this module."""
    if cell["method"].startswith("amfvi"):
        return Provenance.current(AMFVI)
    package = "nautilus-sampler" if cell["method"] == "nautilus" else cell["method"]
    return Provenance.current(("experiments.lab.cells",), (package, "torch"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = benchmark_parser(__doc__, folder="pool")
    parser.set_defaults(seeds=1)
    parser.add_argument("--workers", default="1,8")
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--methods", default=";".join(METHODS), help="separated by semicolons")
    parser.add_argument("--cost", type=float, default=0.01, help="seconds that a call sleeps")
    options = parser.parse_args(arguments)
    cells = [
        {"target": target, "method": method, "workers": int(workers), "seed": seed,
         "cost": options.cost}
        for target in options.targets.split(",")
        for method in options.methods.split(";")
        if target == FIRST or method == "amfvi"
        for workers in options.workers.split(",")
        for seed in range(options.seeds)
    ]  # fmt: skip
    finished = CellStore(folder=options.folder, experiment="pool").run_all(
        cells, run, provenance_of
    )
    rows = [row for cell in finished for row in cell.full_rows]
    command = f"python -m experiments.benchmarks.pool --seeds {options.seeds}"
    write_page(options.results, "pool", page(rows, command, describe_all(finished)), rows)


if __name__ == "__main__":
    main()
