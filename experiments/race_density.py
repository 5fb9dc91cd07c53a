"""From a log density to draws and an evidence: beside nautilus and pocoMC.

    python experiments/race_density.py [--seeds 5] [--targets banana,...] [--methods ...]

All are given the same box, as a uniform prior or as where the sampler starts, and the same
vectorised density, one after the other in processes of their own with the same threads. For
amfvi the seconds are those of the whole ``amfvi.fit``, experts and verdict included, and of
its sampler alone in brackets; it alone says which of its results are not to be trusted.

A finished cell is not run again. Needs the extra ``bench``. Writes
``experiments/results/race-density.md``.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from amfvi.targets import get

import amfvi
from amfvi.diagnostics import DO_NOT_TRUST

RESULTS = Path(__file__).parent / "results"
BOXES = {
    "banana": (-12.0, 12.0), "rings": (-5.0, 5.0), "forty_modes": (-50.0, 50.0),
    "clusters": (-12.0, 12.0),
}  # fmt: skip
METHODS = ("amfvi", "nautilus", "pocomc")


class Counted:
    """A target's density of numpy arrays (n, d), and how many points it was asked for."""

    def __init__(self, target: str) -> None:
        self.target = get(target)
        self.calls = 0

    def __call__(self, x: np.ndarray) -> np.ndarray:
        x = np.atleast_2d(x)
        self.calls += len(x)
        return self.target.log_density(torch.from_numpy(np.ascontiguousarray(x))).numpy()


def with_amfvi(target: str, seed: int) -> dict[str, Any]:
    density = amfvi.LogDensity(get(target).log_density, get(target).dim, box=BOXES[target])
    started = time.monotonic()
    from amfvi.experts import resolve

    from amfvi.inference import infer

    found = infer(density, resolve("maf,realnvp,rbig"), seed=seed)
    return {
        "seconds": time.monotonic() - started,
        "sampling": found.seconds["sampling"],
        "calls": density.calls,
        "log_z": found.diagnostics.log_z,
        "verdict": found.diagnostics.verdict,
    }


def with_nautilus(target: str, seed: int) -> dict[str, float]:
    import nautilus

    density, (low, high) = Counted(target), BOXES[target]
    d = density.target.dim
    started = time.monotonic()
    sampler = nautilus.Sampler(
        lambda u: low + (high - low) * u, density, n_dim=d, vectorized=True, pass_dict=False,
        seed=seed,
    )  # fmt: skip
    sampler.run(verbose=False)
    return {
        "seconds": time.monotonic() - started,
        "calls": density.calls,
        "log_z": float(sampler.log_z) + d * math.log(high - low),
    }


def with_pocomc(target: str, seed: int) -> dict[str, float]:
    import pocomc
    from scipy.stats import uniform

    density, (low, high) = Counted(target), BOXES[target]
    d = density.target.dim
    started = time.monotonic()
    prior = pocomc.Prior([uniform(low, high - low)] * d)
    sampler = pocomc.Sampler(prior, density, vectorize=True, random_state=seed)
    sampler.run(progress=False)
    return {
        "seconds": time.monotonic() - started,
        "calls": density.calls,
        "log_z": float(sampler.evidence()[0]) + d * math.log(high - low),
    }


RUN = {"amfvi": with_amfvi, "nautilus": with_nautilus, "pocomc": with_pocomc}


def cell(method: str, target: str, seed: int, folder: Path) -> dict[str, Any]:
    path = folder / f"{target}-{method}-{seed}.json"
    if not path.is_file():
        subprocess.run(
            [sys.executable, __file__, "--cell", method, target, str(seed), str(path)], check=True
        )
    return json.loads(path.read_text())


def page(rows: list[dict[str, Any]], seeds: int) -> str:
    lines = [
        "| target | d | method | seconds | calls | error of log Z: median, largest | not trusted |",
        "|---|---|---|---|---|---|---|",
    ]
    for target, method in dict.fromkeys((row["target"], row["method"]) for row in rows):
        of = [row for row in rows if (row["target"], row["method"]) == (target, method)]
        truth = get(target).log_z or 0.0
        errors = [abs(row["log_z"] - truth) for row in of]
        doubted = [abs(r["log_z"] - truth) for r in of if r.get("verdict") == DO_NOT_TRUST]
        words = f"{len(doubted)} of {len(of)}" if method == "amfvi" else ""
        words += " (errors " + ", ".join(f"{e:.4f}" for e in doubted) + ")" if doubted else ""
        seconds = f"{statistics.median(row['seconds'] for row in of):.1f}"
        if method == "amfvi":
            seconds += f" ({statistics.median(row['sampling'] for row in of):.1f})"
        calls = f"{statistics.median(row['calls'] for row in of):.0f}"
        lines.append(
            f"| {target} | {get(target).dim} | {method} | {seconds} | {calls} "
            f"| {statistics.median(errors):.4f}, {max(errors):.4f} | {words} |"
        )
    made = "; ".join(sorted({row["made_with"] for row in rows}))
    return "\n".join([
        "# Beside other samplers", "",
        f"`python experiments/race_density.py --seeds {seeds}`", "",
        *" ".join(__doc__.split("\n\n")[2].split()).split("\n"), "",
        f"Medians over seeds. Made with {made}.", "",
        *lines, "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--targets", default=",".join(BOXES))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--folder", type=Path, default=Path("runs") / "race-density")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--cell", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell:
        method, target, seed, path = options.cell
        found = RUN[method](target, int(seed))
        library = {"amfvi": amfvi}.get(method) or __import__(method)
        made = f"{method} {getattr(library, '__version__', '0.1.0')}, torch {torch.__version__}, "
        made += f"{torch.get_num_threads()} threads"
        row = {"target": target, "method": method, "seed": int(seed), "made_with": made, **found}
        Path(path).write_text(json.dumps(row))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for target in options.targets.split(","):
        for method in options.methods.split(","):
            for seed in range(options.seeds):
                rows.append(cell(method, target, seed, options.folder))
                print(f"{target} {method} {seed}: {rows[-1]['seconds']:.1f} s, "
                      f"{rows[-1]['calls']} calls", file=sys.stderr, flush=True)  # fmt: skip
    options.results.mkdir(parents=True, exist_ok=True)
    text = page(rows, options.seeds)
    (options.results / "race-density.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
