"""Posteriors with known answers, fitted by their log density alone.

    python -m experiments.benchmarks.from_density [--seeds 5] [--targets banana,...]

Every cell is ``amfvi fit --target T --from density --seed s`` in a process of its own:
with the default experts for the six canonical posteriors, with the robust ones for the
harder ones. A finished cell is not run again. Writes ``experiments/results/from-density.csv``
and ``.md``.
"""

from __future__ import annotations

import csv
import math
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amfvi.json_files import read_json
from amfvi.targets import CANONICAL, TARGETS, get
from amfvi.targets.forty_modes import MODES, FortyModes
from experiments.lab.cells import CellStore
from experiments.lab.pages import RESULTS, benchmark_parser, write_page
from experiments.lab.provenance import AMFVI, Provenance, describe_all
from experiments.lab.tables import Row, distinct, markdown_table

__all__ = ["main", "page", "run"]

BY_DRAWS = RESULTS / "canonical-10000.csv"
"""Figures of the fits to 10,000 exact draws, shown beside ours."""

FITTED = (0, 5)
"""Exit codes of a run that wrote its directory; 5 is a fit that is not to be trusted."""


def run(cell: Row, folder: Path) -> list[Row]:
    """Run ``amfvi fit`` with the log density of a target, experts and a seed."""
    target, experts, seed = cell["target"], cell["experts"], cell["seed"]
    out = folder / f"from-density-{target}-{experts}-{seed}"
    done = subprocess.run(
        [sys.executable, "-m", "amfvi", "fit", "--target", target, "--from", "density",
         "--experts", experts, "--seed", str(seed), "--out", str(out), "--force", "--quiet"],
        check=False, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode not in FITTED:
        raise RuntimeError(f"{target} {seed}: amfvi fit ended with exit code {done.returncode}")
    metrics = read_json(out / "metrics.json")
    density, mixture, truth = metrics["density"], metrics["mixture"], get(target).log_z
    return [{
        "dim": metrics["dim"],
        "log_z_error": None if truth is None else density["log_z"] - truth,
        "log_z_se": density["log_z_se"],
        "sampler_error": None if truth is None else density["log_z_sampler"] - truth,
        "kl": mixture["kl"],
        "kl_se": mixture["kl_se"],
        "n_evaluations": density["n_evaluations"],
        "sampling": metrics["seconds"]["sampling"],
        "seconds": metrics["seconds"]["total"],
        "khat": density["khat"],
        "efficiency": density["ess"] / density["n_draws"],
        "verdict": density["verdict"],
        "reason": density["reasons"][0],
        "coverage": _coverage(out) if target == FortyModes.name else None,
    }]  # fmt: skip


def _coverage(out: Path) -> float:
    """Entropy of a run's draws over the forty modes, as a share of the largest possible."""
    with np.load(out / "draws.npz") as saved:
        distances = torch.cdist(torch.from_numpy(saved["draws"]), FortyModes().centers)
    share = torch.bincount(distances.argmin(dim=1), minlength=MODES).double()
    share = share[share > 0] / share.sum()
    return float(-(share * share.log()).sum()) / math.log(MODES)


def page(rows: list[Row], command: str, made_with: str) -> str:
    """Write the page: medians, then every run."""
    coverage = [row["coverage"] for row in rows if row["coverage"] is not None]
    modes = [
        "Entropy of the mixture's draws over the forty modes, as a share of the largest possible: "
        f"{min(coverage):.3f} at least.", "",
    ] if coverage else []  # fmt: skip
    return "\n".join([
        "# Posteriors by their log density alone", "",
        f"`{command}`", "",
        "Medians over seeds. Exact KL(p‖q) in nats of the fitted mixture, beside that of the same",
        "experts fitted to 10,000 exact draws (benchmark `canonical`). log Z by importance",
        "sampling from the mixture. Evaluations of the density, gradients included, for",
        "everything: the sampler's reference, two runs of the sampler, refinements, importance",
        "weights, the search for undetected modes. Seconds of wall clock.",
        made_with, "",
        *_medians(rows, _kl_by_draws()), "", *modes,
        "## Every run", "", *_runs(rows), "",
    ])  # fmt: skip


def _kl_by_draws() -> dict[str, list[float]]:
    """KL of the fits to 10,000 exact draws, by target."""
    kl: dict[str, list[float]] = {}
    with BY_DRAWS.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            kl.setdefault(row["target"], []).append(float(row["kl"]))
    return kl


def _medians(rows: list[Row], by_draws: dict[str, list[float]]) -> list[str]:
    lines = []
    for target in distinct(rows, "target"):
        runs = [row for row in rows if row["target"] == target]

        def median(key: str, runs: list[Row] = runs) -> Any:
            return statistics.median(row[key] for row in runs)

        errors = [abs(row["log_z_error"]) for row in runs if row["log_z_error"] is not None]
        verdicts = Counter(row["verdict"] for row in runs)
        known = runs[0]["kl"] is not None
        lines.append([
            target, runs[0]["dim"], runs[0]["experts"],
            f"{statistics.median(errors):.4f}, {max(errors):.4f}" if errors else "unknown",
            f"{median('kl'):.4f}" if known else "unknown",
            f"{statistics.median(by_draws[target]):.4f}" if target in by_draws else "",
            f"{median('n_evaluations'):.0f}", f"{median('sampling'):.1f}",
            f"{median('seconds'):.0f}", f"{median('khat'):.2f}", f"{median('efficiency'):.0%}",
            ", ".join(f"{verdict} ({n})" for verdict, n in verdicts.items()),
        ])  # fmt: skip
    return markdown_table(
        ["target", "d", "experts", "abs. error of log Z: median, largest", "KL",
         "KL from exact draws", "evaluations", "sampling, s", "all, s", "k̂", "effective",
         "verdicts"],
        lines,
    )  # fmt: skip


def _runs(rows: list[Row]) -> list[str]:
    lines = []
    for row in rows:
        known = row["log_z_error"] is not None
        lines.append([
            row["target"], row["seed"],
            f"{row['log_z_error']:+.4f} ± {row['log_z_se']:.4f}" if known else "unknown",
            f"{row['sampler_error']:+.4f}" if known else "unknown",
            "unknown" if row["kl"] is None else f"{row['kl']:.4f} ± {row['kl_se']:.4f}",
            row["n_evaluations"], f"{row['khat']:.2f}", f"{row['efficiency']:.0%}",
            f"{row['verdict']}: {row['reason']}",
        ])  # fmt: skip
    return markdown_table(
        ["target", "seed", "log Z − truth ± SE", "by the sampler alone", "KL ± SE", "evaluations",
         "k̂", "effective", "verdict, and the first reason"],
        lines,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = benchmark_parser(__doc__, folder="from-density")
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--experts", help="for all; by default paper or robust")
    options = parser.parse_args(arguments)
    cells = [
        {
            "target": target,
            "experts": options.experts or ("paper" if target in CANONICAL else "robust"),
            "seed": seed,
        }
        for target in options.targets.split(",")
        for seed in range(options.seeds)
    ]
    store = CellStore(folder=options.folder, experiment="from-density")
    finished = store.run_all(cells, run, Provenance.current(AMFVI))
    rows = [row for cell in finished for row in cell.full_rows]
    command = f"python -m experiments.benchmarks.from_density --seeds {options.seeds}"
    if options.targets != ",".join(TARGETS):
        command += f" --targets {options.targets}"
    if options.experts:
        command += f" --experts {options.experts}"
    text = page(rows, command, describe_all(finished))
    write_page(options.results, "from-density", text, rows)


if __name__ == "__main__":
    main()
