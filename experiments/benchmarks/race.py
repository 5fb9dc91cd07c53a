"""amfvi against other density estimators: the same draws, the same machine, the same run.

    python -m experiments.benchmarks.race [--n-draws 10000] [--seeds 5] [--methods NAMES]

Every cell is one method on one data set in a process of its own: it is given only the
draws, and its seconds run from there to a fitted density, compilation included and
imports not. A finished cell is not run again; a peer that is not installed is skipped
by name. Peers' cells do not depend on the code of amfvi and outlive its changes. Needs
the extra ``bench``. Writes ``experiments/results/race-<n>.csv`` and ``.md``.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

import amfvi
from amfvi.randomness import generator_for
from amfvi.targets import CANONICAL
from experiments.lab.cells import Cell, CellStore, run_in_own_process
from experiments.lab.pages import benchmark_parser, write_page
from experiments.lab.peers import PEERS, Array, missing_module
from experiments.lab.provenance import AMFVI, Provenance, describe_all
from experiments.lab.tables import Row, distinct, markdown_table
from experiments.lab.targets import exact_target

__all__ = ["main", "page", "run"]

OURS = ("paper", "robust")
"""Sets of experts that amfvi takes part with."""

N_TEST = 20_000
"""Fresh draws that KL is estimated on."""

N_SPEED = 100_000
"""Points of a pass that is timed."""

SIGNIFICANT = 2.0
"""Standard errors by which a run has to lose to count as lost."""


def run(cell: Row, folder: Path) -> list[Row]:
    """Fit, score and time one method in a process of its own."""
    log_ratio, seconds, rate = run_in_own_process(_fit_and_score, cell, N_TEST, N_SPEED)
    folder.mkdir(parents=True, exist_ok=True)
    method = cell["method"].replace(" ", "")
    file = f"race-{cell['target']}-{cell['n']}-{cell['seed']}-{method}.npy"
    np.save(folder / file, log_ratio)
    return [{
        "kl": float(log_ratio.mean()),
        "kl_se": float(log_ratio.std() / math.sqrt(len(log_ratio))),
        "seconds": seconds, "points_per_second": rate, "log_ratio": file,
    }]  # fmt: skip


def _fit_and_score(cell: Row, n_test: int, n_speed: int) -> tuple[Array, float, float]:
    """Fit one method; log p/q at the test draws, seconds, and points per second."""
    method, n, seed = cell["method"], cell["n"], cell["seed"]
    target = exact_target(cell["target"])
    x = target.sample(n_test, generator_for(seed, "test"))
    log_p, test = target.log_prob(x).numpy(), x.numpy()
    speed = np.resize(test, (n_speed, target.dim))
    log_prob: Callable[[Array], Any]
    if method in OURS:
        started = time.perf_counter()
        # The same draws: amfvi makes them from the seed in the same way.
        log_prob = amfvi.fit(target, n_draws=n, seed=seed, experts=method).log_prob
        seconds = time.perf_counter() - started
        speed = speed.astype(np.float32)
    else:
        peer = PEERS[method]
        for module in peer.modules:
            import_module(module)
        draws = target.sample(n, generator_for(seed, "draws")).numpy()
        started = time.perf_counter()
        log_prob = peer.fit(draws, seed)
        log_prob(test[:100])
        seconds = time.perf_counter() - started
    return log_p - np.asarray(log_prob(test)), seconds, _points_per_second(log_prob, speed)


def _points_per_second(log_prob: Callable[[Array], Any], points: Array) -> float:
    """Best of three, after a first call that may compile."""
    log_prob(points)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        log_prob(points)
        seconds.append(time.perf_counter() - started)
    return len(points) / min(seconds)


def page(cells: list[Cell], n: int, command: str) -> str:
    """Write the page: medians, then the comparison with the best peer."""
    rows = [row for cell in cells for row in cell.full_rows]
    n_seeds = ", ".join(
        f"{method}: {len({row['seed'] for row in rows if row['method'] == method})}"
        for method in distinct(rows, "method")
    )
    return "\n".join([
        f"# The race, {n} draws", "",
        f"`{command}`", "",
        f"Medians over seeds ({n_seeds}).",
        describe_all(cells), "",
        f"## Exact KL(p‖q), nats, on {N_TEST:,} fresh draws", "",
        *_medians(rows, "kl", ".4f"), "",
        "## Seconds to fit, compilation included", "", *_medians(rows, "seconds", ".1f"), "",
        "## Log density, points per second", "",
        *_medians(rows, "points_per_second", ",.0f"), "",
        "## Against the best peer", "",
        "Medians and their ratio; then runs that lose to that run's best peer by more than two",
        "standard errors of the paired difference.", "",
        *_against_peers(cells), "",
    ])  # fmt: skip


def _medians(rows: list[Row], key: str, number_format: str) -> list[str]:
    """Tabulate medians over seeds, a line per method and a column per target."""
    targets, lines = distinct(rows, "target"), []
    for method in distinct(rows, "method"):
        entries = []
        for target in targets:
            of_cell = [r[key] for r in rows if (r["method"], r["target"]) == (method, target)]
            finite = [value for value in of_cell if not math.isnan(value)]
            entries.append(format(statistics.median(finite), number_format) if finite else "–")
        lines.append([method, *entries])
    return markdown_table(["method", *targets], lines)


def _against_peers(cells: list[Cell]) -> list[str]:
    """Compare each of ours with the best peer: medians, then run by run."""
    lines = []
    rows = [row for cell in cells for row in cell.full_rows]
    for ours in (m for m in distinct(rows, "method") if m in OURS):
        for target in distinct(rows, "target"):
            kl: dict[str, list[float]] = {}
            for row in rows:
                if row["target"] == target:
                    kl.setdefault(row["method"], []).append(row["kl"])
            medians = {method: statistics.median(x) for method, x in kl.items()}
            peers = [method for method in medians if method not in OURS]
            if ours not in medians or not peers:
                continue
            best = min(peers, key=medians.__getitem__)
            lost = _lost_runs(cells, ours, target)
            lines.append([
                ours, target, f"{medians[ours]:.4f}", f"{medians[best]:.4f} ({best})",
                f"{medians[ours] / medians[best]:.2f}",
                "; ".join(lost) or "no run above the best peer + 2 SE",
            ])  # fmt: skip
    header = ["ours", "target", "median KL", "best peer's", "ratio", "run by run"]
    return markdown_table(header, lines)


def _lost_runs(cells: list[Cell], ours: str, target: str) -> list[str]:
    """Describe the runs that lose to the best peer of the same seed."""
    ratios: dict[int, dict[str, Array]] = {}
    for cell in cells:
        if cell.parameters["target"] == target:
            ratio = np.load(cell.files / cell.rows[0]["log_ratio"])
            ratios.setdefault(cell.parameters["seed"], {})[cell.parameters["method"]] = ratio
    lost = []
    for seed, by_method in ratios.items():
        peers = {m: ratio for m, ratio in by_method.items() if m not in OURS}
        if ours not in by_method or not peers:
            continue
        rival = min(peers, key=lambda method: float(peers[method].mean()))
        gap = by_method[ours] - peers[rival]
        if gap.mean() > SIGNIFICANT * gap.std() / math.sqrt(len(gap)):
            lost.append(f"seed {seed}: {gap.mean():+.4f} nats to {rival}")
    return lost


def provenance_of(cell: Row) -> Provenance:
    """What a cell depends on: amfvi, or a peer's package and how it is called."""
    if cell["method"] in OURS:
        return Provenance.current(AMFVI)
    modules = ("amfvi.targets", "experiments.lab.peers")
    return Provenance.current(modules, (PEERS[cell["method"]].package,))


def installed_methods(names: str | None) -> list[str]:
    """List the methods named, or all, without the peers that are not installed."""
    methods = []
    for name in names.split(",") if names else (*OURS, *PEERS):
        if name in PEERS and (module := missing_module(name)) is not None:
            print(f"{name} is skipped: {module} is not installed", file=sys.stderr)
        else:
            methods.append(name)
    return methods


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = benchmark_parser(__doc__, folder="race")
    parser.add_argument("--n-draws", type=int, default=10_000)
    parser.add_argument("--methods", help="comma-separated; all that are installed")
    parser.add_argument("--targets", default=",".join(CANONICAL))
    options = parser.parse_args(arguments)
    methods = installed_methods(options.methods)
    cells = [
        {"target": target, "n": options.n_draws, "seed": seed, "method": method}
        for seed in range(options.seeds)
        for target in options.targets.split(",")
        for method in methods
    ]
    store = CellStore(folder=options.folder, experiment="race")
    finished = store.run_all(cells, run, provenance_of, skip_failures=True)
    command = (
        f"python -m experiments.benchmarks.race --n-draws {options.n_draws} --seeds {options.seeds}"
    )
    command += f' --methods "{options.methods}"' if options.methods else ""
    text = page(finished, options.n_draws, command)
    rows = [row for cell in finished for row in cell.full_rows]
    for row in rows:
        del row["log_ratio"]
    write_page(options.results, f"race-{options.n_draws}", text, rows)


if __name__ == "__main__":
    main()
