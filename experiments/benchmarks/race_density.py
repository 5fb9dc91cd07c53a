"""From a log density to draws and an evidence: beside nautilus and pocoMC.

    python -m experiments.benchmarks.race_density [--seeds 5] [--targets NAMES] [--methods NAMES]

A finished cell is not run again; other samplers' cells do not depend on the code of amfvi
and outlive its changes. Needs the extra ``bench``. Writes
``experiments/results/race-density.csv`` and ``.md``.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch

import amfvi
from amfvi.targets import get
from experiments.lab.cells import CellStore, run_in_own_process
from experiments.lab.pages import benchmark_parser, write_page
from experiments.lab.provenance import AMFVI, Provenance, describe_all
from experiments.lab.samplers import SAMPLERS
from experiments.lab.tables import Row, markdown_table

__all__ = ["main", "page", "run"]

BOXES: dict[str, tuple[float, float]] = {
    "banana": (-12.0, 12.0), "rings": (-5.0, 5.0), "forty_modes": (-50.0, 50.0),
    "clusters": (-12.0, 12.0),
}  # fmt: skip
"""Where all samplers look for every parameter, by target."""

AMFVI_METHOD = "amfvi"
"""The method that is ours."""

METHODS = (AMFVI_METHOD, *SAMPLERS)
"""What is compared."""

CONDITIONS = (
    "All are given the same box, as a uniform prior or as where the sampler starts, and the same "
    "vectorized density, one after the other, each in a process of its own with torch's default "
    "number of threads. For amfvi the seconds are those of the whole fit, experts and verdict "
    "included, and of its sampler alone in brackets; it alone says which of its results are not "
    "to be trusted."
)
"""How the methods are compared, for the page."""


def run(cell: Row, folder: Path) -> list[Row]:
    """Run one method in a process of its own."""
    measure = _run_amfvi if cell["method"] == AMFVI_METHOD else _run_other
    return [run_in_own_process(measure, cell)]


def _run_amfvi(cell: Row) -> Row:
    target = get(cell["target"])
    density = amfvi.LogDensity(target.log_density, target.dim, box=BOXES[cell["target"]])
    started = time.monotonic()
    posterior = amfvi.fit(density, seed=cell["seed"])
    seconds = time.monotonic() - started
    diagnostics, summary = posterior.diagnostics, posterior.summary
    assert diagnostics is not None  # a fit to a log density has both
    assert summary is not None
    return {
        "seconds": seconds,
        "sampling": summary.seconds["sampling"],
        "n_evaluations": density.n_evaluations,
        "log_z": diagnostics.log_z,
        "verdict": str(diagnostics.verdict),
        "threads": torch.get_num_threads(),
    }


def _run_other(cell: Row) -> Row:
    import_module(cell["method"])
    started = time.monotonic()
    target = get(cell["target"])
    box = (BOXES[cell["target"]],) * target.dim
    result = SAMPLERS[cell["method"]](target, box, cell["seed"], None)
    return {
        "seconds": time.monotonic() - started,
        "sampling": None,
        "n_evaluations": result.n_evaluations,
        "log_z": result.log_z,
        "verdict": None,
        "threads": torch.get_num_threads(),
    }


def page(rows: list[Row], seeds: int, made_with: str) -> str:
    """Write the page: medians over seeds."""
    threads = ", ".join(
        f"{method} {', '.join(sorted({str(r['threads']) for r in rows if r['method'] == method}))}"
        for method in dict.fromkeys(row["method"] for row in rows)
    )
    return "\n".join([
        "# Beside other samplers", "",
        f"`python -m experiments.benchmarks.race_density --seeds {seeds}`", "",
        CONDITIONS, "",
        f"Medians over seeds. {made_with} Threads at the end of a run: {threads}.", "",
        *_medians(rows), "",
    ])  # fmt: skip


def _medians(rows: list[Row]) -> list[str]:
    lines = []
    for name, method in dict.fromkeys((row["target"], row["method"]) for row in rows):
        runs = [row for row in rows if (row["target"], row["method"]) == (name, method)]
        target = get(name)
        errors = [abs(row["log_z"] - (target.log_z or 0.0)) for row in runs]
        seconds = f"{statistics.median(row['seconds'] for row in runs):.1f}"
        untrusted = ""
        if method == AMFVI_METHOD:
            seconds += f" ({statistics.median(row['sampling'] for row in runs):.1f})"
            of_untrusted = [
                error for row, error in zip(runs, errors, strict=True)
                if row["verdict"] == str(amfvi.Verdict.DO_NOT_TRUST)
            ]  # fmt: skip
            untrusted = f"{len(of_untrusted)} of {len(runs)}"
            if of_untrusted:
                untrusted += f" (errors {', '.join(f'{error:.4f}' for error in of_untrusted)})"
        lines.append([
            name, target.dim, method, seconds,
            f"{statistics.median(row['n_evaluations'] for row in runs):.0f}",
            f"{statistics.median(errors):.4f}, {max(errors):.4f}", untrusted,
        ])  # fmt: skip
    return markdown_table(
        ["target", "d", "method", "seconds", "evaluations",
         "error of log Z: median, largest", "not trusted"],
        lines,
    )  # fmt: skip


def provenance_of(cell: Row) -> Provenance:
    """What a cell depends on: amfvi, or a sampler's package and how it is called."""
    if cell["method"] == AMFVI_METHOD:
        return Provenance.current(AMFVI)
    package = "nautilus-sampler" if cell["method"] == "nautilus" else cell["method"]
    modules = ("amfvi.targets", "experiments.lab.samplers")
    return Provenance.current(modules, (package, "torch"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = benchmark_parser(__doc__, folder="race-density")
    parser.add_argument("--targets", default=",".join(BOXES))
    parser.add_argument("--methods", default=",".join(METHODS))
    options = parser.parse_args(arguments)
    cells = [
        {"target": target, "method": method, "seed": seed}
        for target in options.targets.split(",")
        for method in options.methods.split(",")
        for seed in range(options.seeds)
    ]
    store = CellStore(folder=options.folder, experiment="race-density")
    finished = store.run_all(cells, run, provenance_of)
    rows = [row for cell in finished for row in cell.full_rows]
    text = page(rows, options.seeds, describe_all(finished))
    write_page(options.results, "race-density", text, rows)


if __name__ == "__main__":
    main()
