"""Where the time of ``amfvi fit`` goes.

    python experiments/profile_fit.py [--target two_moons] [--seed 0]

Imports in a process of their own, then one whole run with figures, its parts timed by
the profiler's cumulative clock; experts by their own reports (they overlap).
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PARTS = {
    "stage one": "fit_experts",
    "stage two: densities and weights": None,
    "metrics": "_evaluate",
    "figures": "draw_figures",
    "saving": "write_model",
}


def import_seconds() -> float:
    """Of the interpreter and all that a run imports, the best of three."""
    code = "import amfvi.runs.run, amfvi.runs.figures, ot, amfvi.experts"
    times = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        times.append(time.perf_counter() - started)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="two_moons")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    imports = import_seconds()
    from amfvi.experts import resolve
    from amfvi.runs.run import RunSettings, run

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        settings = RunSettings(
            experts=resolve(), target=options.target, seed=options.seed, out=str(out)
        )
        profile = cProfile.Profile()
        started = time.perf_counter()
        profile.runcall(run, settings)
        total = time.perf_counter() - started
        metrics = json.loads((out / "metrics.json").read_text())
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]

    def seconds(function: str) -> float:
        in_ours = [
            row[3]
            for (path, _, name), row in stats.items()
            if name == function and "amfvi" in path and "evaluation.py" not in path
        ]
        return max(in_ours, default=0.0)

    rows = {"imports": imports}
    rows |= {part: seconds(name) for part, name in PARTS.items() if name}
    rows["stage two: densities and weights"] = metrics["seconds"]["stage_two"]
    rows["the rest"] = total - sum(rows.values()) + imports
    print(f"| {options.target}, seed {options.seed} | seconds |\n|---|---|")
    for part, value in rows.items():
        print(f"| {part} | {value:.1f} |")
    for name, expert in metrics["experts"].items():
        print(f"| (within stage one: {name}) | {expert['seconds']:.1f} |")
    print(f"| **in all** | **{total + imports:.1f}** |")


if __name__ == "__main__":
    main()
