"""Ours against the peers: the same draws, the same machine, the same run.

    python experiments/race.py [--n-draws 10000] [--seeds 5] [--methods NAMES] [--targets NAMES]

Every cell is one method on one data set in a process of its own: it is handed the
draws and nothing else, and its seconds run from there to a fitted density,
compilation included and imports not. A finished cell is not run again; a peer that is
not installed is skipped by name. Needs the extra ``bench``. Writes
``experiments/results/race-<n>.csv`` and ``.md``.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from peers import PEERS, missing

RESULTS = Path(__file__).parent / "results"
OURS = ("paper", "robust")
N_TEST = 20_000
N_SPEED = 100_000


def data(target: str, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws to fit to, test draws and their exact log densities."""
    from amfvi.targets import get

    from amfvi.randomness import stream

    law = get(target)
    test = law.sample(N_TEST, stream(seed, "test"))
    draws = law.sample(n, stream(seed, "draws"))
    return draws.numpy(), test.numpy(), law.log_prob(test).numpy()


def points_per_second(log_prob: Any, points: np.ndarray) -> float:
    """Best of three, after a first call that may compile."""
    log_prob(points)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        log_prob(points)
        seconds.append(time.perf_counter() - started)
    return len(points) / min(seconds)


def run_cell(method: str, target: str, n: int, seed: int, out: Path) -> None:
    """Fit, score and save one cell; in a process of its own."""
    draws, test, log_p = data(target, n, seed)
    speed = np.resize(test, (N_SPEED, test.shape[1]))
    if method in OURS:
        import amfvi

        started = time.perf_counter()
        # The same draws: a named target makes them from the seed in the same way.
        log_prob = amfvi.fit(target, n_draws=n, seed=seed, experts=method).log_prob
        seconds = time.perf_counter() - started
        rate = points_per_second(log_prob, speed.astype(np.float32))
    else:
        peer, _ = PEERS[method]
        started = time.perf_counter()
        log_prob = peer(draws, seed)
        log_prob(test[:100])
        seconds = time.perf_counter() - started
        rate = points_per_second(log_prob, speed)
    log_ratio = log_p - np.asarray(log_prob(test))
    np.savez(
        cell_path(out, method, target, n, seed),
        log_ratio=log_ratio,
        seconds=seconds,
        rate=rate,
        made_with=made_with(),
    )


def cell_path(folder: Path, method: str, target: str, n: int, seed: int) -> Path:
    return folder / f"{target}-{n}-{seed}-{method.replace(' ', '')}.npz"


def cell(folder: Path, method: str, target: str, n: int, seed: int) -> dict[str, Any] | None:
    """A finished cell, run now if it was not; None if it failed."""
    path = cell_path(folder, method, target, n, seed)
    if not path.exists():
        command = [sys.executable, __file__, "--cell", method, target, str(n), str(seed)]
        done = subprocess.run(
            [*command, "--folder", str(folder)], check=False, capture_output=True, text=True
        )
        if done.returncode:
            print(f"{method} on {target} {seed} failed:\n{done.stderr[-600:]}", file=sys.stderr)
            return None
    with np.load(path) as saved:
        return {name: saved[name] for name in saved.files}


def row(method: str, target: str, n: int, seed: int, found: dict[str, Any]) -> dict[str, Any]:
    ratio = found["log_ratio"]
    return {
        "target": target, "n": n, "seed": seed, "method": method, "kl": float(ratio.mean()),
        "kl_se": float(ratio.std() / math.sqrt(len(ratio))), "seconds": float(found["seconds"]),
        "points_per_second": float(found["rate"]),
    }  # fmt: skip


def verdicts(cells: dict[tuple[str, str, int], Any], methods: list[str], seeds: int) -> list[str]:
    """For each of ours: median against the best peer's median, and run by run."""
    lines = []
    peers = [m for m in methods if m not in OURS]
    for ours in (m for m in OURS if m in methods):
        for target in dict.fromkeys(t for _, t, _ in cells):

            def kl(m: str, s: int, target: str = target) -> float:
                return float(cells[m, target, s]["log_ratio"].mean())

            def median(m: str, target: str = target) -> float:
                return statistics.median(kl(m, s) for s in range(seeds) if (m, target, s) in cells)

            best = min((p for p in peers if (p, target, 0) in cells), key=median)
            worse = []
            for seed in range(seeds):
                here = [p for p in peers if (p, target, seed) in cells]
                rival = min(here, key=lambda p: kl(p, seed))
                mine, theirs = (cells[m, target, seed]["log_ratio"] for m in (ours, rival))
                gap = mine - theirs
                z = gap.mean() / (gap.std() / math.sqrt(len(gap)))
                if z > 2:
                    worse.append(f"seed {seed}: {gap.mean():+.4f} nats to {rival}")
            verdict = "no run above the best peer + 2 SE" if not worse else "; ".join(worse)
            lines.append(
                f"| {ours} | {target} | {median(ours):.4f} | {median(best):.4f} ({best}) | "
                f"{median(ours) / median(best):.2f} | {verdict} |"
            )
    return lines


def made_with() -> str:
    """Versions and hardware."""
    versions = []
    for package in ("amfvi", "torch", "scikit-learn", "flowjax", "zuko", "nflows", "normflows"):
        with suppress(PackageNotFoundError):
            versions.append(f"{package} {version(package)}")
    return f"{', '.join(versions)}, Python {platform.python_version()}, {os.cpu_count()} CPU cores"


def page(
    rows: list[dict[str, Any]], cells: Any, methods: list[str], n: int, seeds: int, extra: str
) -> str:
    targets = list(dict.fromkeys(r["target"] for r in rows))

    def medians(key: str, shown: str) -> list[str]:
        lines = ["| method | " + " | ".join(targets) + " |", "|---" * (len(targets) + 1) + "|"]
        for method in methods:
            entries = []
            for target in targets:
                values = [r[key] for r in rows if r["method"] == method and r["target"] == target]
                values = [v for v in values if not math.isnan(v)]
                entries.append(format(statistics.median(values), shown) if values else "–")
            lines.append(f"| {method} | " + " | ".join(entries) + " |")
        return lines

    # Cells of before this was recorded are of the libraries that are installed.
    recorded = sorted({str(c["made_with"]) for c in cells.values() if "made_with" in c})
    recorded = recorded or [made_with()]
    runs = {m: len({r["seed"] for r in rows if r["method"] == m}) for m in methods}
    return "\n".join([
        f"# The race, {n} draws", "",
        f"`python experiments/race.py --n-draws {n} --seeds {seeds}{extra}`", "",
        "Medians over seeds (" + ", ".join(f"{m}: {k}" for m, k in runs.items()) + ").",
        f"Made with {'; '.join(recorded)}.", "",
        "## Exact KL(p‖q), nats, on 20,000 fresh draws", "", *medians("kl", ".4f"), "",
        "## Seconds to fit, compilation included", "", *medians("seconds", ".1f"), "",
        "## Log density, points a second",  "",
        *medians("points_per_second", ",.0f"), "",
        "## Against the best peer", "",
        "Medians and their ratio; then runs that lose to that run's best peer by more than two",
        "standard errors of the paired difference.", "",
        "| ours | target | median KL | best peer's | ratio | run by run |",
        "|---|---|---|---|---|---|",
        *verdicts(cells, methods, seeds), "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-draws", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", help="comma-separated; all that are installed")
    parser.add_argument("--targets", help="comma-separated; all six")
    parser.add_argument("--folder", type=Path, default=Path("runs") / "race")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--cell", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.cell:
        method, target, n, seed = options.cell
        run_cell(method, target, int(n), int(seed), options.folder)
        return
    from amfvi.targets import CANONICAL

    methods = options.methods.split(",") if options.methods else [*OURS, *PEERS]
    for name in [m for m in methods if m in PEERS]:
        if (module := missing(name)) is not None:
            print(f"{name} is skipped: {module} is not installed", file=sys.stderr)
            methods.remove(name)
    targets = options.targets.split(",") if options.targets else list(CANONICAL)
    cells: dict[tuple[str, str, int], Any] = {}
    rows = []
    for seed in range(options.seeds):
        for target in targets:
            for method in methods:
                found = cell(options.folder, method, target, options.n_draws, seed)
                if found is not None:
                    cells[method, target, seed] = found
                    rows.append(row(method, target, options.n_draws, seed, found))
                    print(
                        f"{target} {seed} {method}: KL {rows[-1]['kl']:.4f}, "
                        f"{rows[-1]['seconds']:.1f} s, {rows[-1]['points_per_second']:,.0f}/s",
                        file=sys.stderr, flush=True,
                    )  # fmt: skip
    options.results.mkdir(parents=True, exist_ok=True)
    stem = options.results / f"race-{options.n_draws}"
    with stem.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    extra = f' --methods "{options.methods}"' if options.methods else ""
    text = page(rows, cells, methods, options.n_draws, options.seeds, extra)
    stem.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
