"""Where the time of ``amfvi fit`` goes.

    python -m experiments.timing.profile_fit [--target two_moons] [--seed 0]

Imports in a process of their own, then one whole run with figures: stages and metrics by
the run's own record, figures and saving by the profiler's cumulative clock, whose cost
is in all of them; experts by their own reports (they overlap).
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from inspect import unwrap
from pathlib import Path
from typing import Any

from experiments.lab.tables import markdown_table

__all__ = ["import_seconds", "main", "profile_run"]

IMPORTS = "import amfvi.runs.run, amfvi.runs.figures, ot, amfvi.experts"
"""What a run imports."""


def import_seconds() -> float:
    """Time the interpreter and all that a run imports, the best of three."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", IMPORTS], check=True)
        times.append(time.perf_counter() - started)
    return min(times)


def profile_run(target: str, seed: int, n_draws: int | None = None) -> dict[str, float]:
    """Run ``amfvi fit`` under the profiler; seconds of its parts by name, "in all" among them."""
    from amfvi.runs.figures import draw_figures
    from amfvi.runs.run import run
    from amfvi.runs.settings import InputSettings, RunSettings
    from amfvi.saving import write_model
    from amfvi.two_stage.options import FitOptions

    profile = cProfile.Profile()
    with tempfile.TemporaryDirectory() as folder:
        settings = RunSettings(
            input=InputSettings(target=target),
            options=FitOptions(n_draws=n_draws, seed=seed),
            out=str(Path(folder) / "run"),
        )
        started = time.perf_counter()
        metrics = profile.runcall(run, settings)
        total = time.perf_counter() - started
    recorded = metrics["seconds"]
    parts = {
        "stage one": recorded["stage_one"],
        "stage two": recorded["stage_two"],
        "metrics": recorded["evaluate"],
        "figures": _cumulative_seconds(profile, draw_figures),
        "saving": _cumulative_seconds(profile, write_model),
    }
    experts = {
        f"(within stage one: {name})": expert["seconds"]
        for name, expert in metrics["experts"].items()
    }
    return parts | {"the rest": total - sum(parts.values())} | experts | {"in all": total}


def _cumulative_seconds(profile: cProfile.Profile, function: Callable[..., Any]) -> float:
    """Seconds within a function, and within what it calls.

    Raises:
        KeyError: the function was not called.
    """
    code = unwrap(function).__code__
    stats: dict[tuple[str, int, str], Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    return float(stats[code.co_filename, code.co_firstlineno, code.co_name][3])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--target", default="two_moons")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n-draws", type=int, help="10,000 if not given")
    options = parser.parse_args(arguments)
    imports = import_seconds()
    parts = profile_run(options.target, options.seed, options.n_draws)
    total = parts.pop("in all")
    lines = [["imports", f"{imports:.1f}"]]
    lines += [[name, f"{seconds:.1f}"] for name, seconds in parts.items()]
    lines.append(["**in all**", f"**{total + imports:.1f}**"])
    header = [f"{options.target}, seed {options.seed}", "seconds"]
    print("\n".join(markdown_table(header, lines)))


if __name__ == "__main__":
    main()
