"""Posteriors with known answers, fitted by their log density alone.

    python experiments/from_density.py [--seeds 5] [--targets banana,...] [--experts ...]

Every cell is ``amfvi fit --target T --from density --seed s`` in a process of its own:
with the default experts for the six canonical posteriors, with the robust ones for the
harder ones. A finished cell is not run again. Writes ``experiments/results/from-density.csv``
and ``.md``.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from amfvi.targets import CANONICAL, TARGETS, get
from amfvi.targets.forty_modes import MODES, FortyModes
from canonical import made_with

RESULTS = Path(__file__).parent / "results"
BY_DRAWS = RESULTS / "canonical-10000.csv"


def cell(target: str, experts: str, seed: int, folder: Path) -> dict[str, Any]:
    """One run's figures, from its directory if it has been run before."""
    out = folder / f"{target}-{seed}"
    if not (out / "metrics.json").is_file():
        done = subprocess.run(
            [sys.executable, "-m", "amfvi", "fit", "--target", target, "--from", "density",
             "--experts", experts, "--seed", str(seed), "--out", str(out), "--quiet"],
            check=False, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode not in (0, 5):  # 5: fitted, but not to be trusted
            raise SystemExit(f"{target} {seed}: exit code {done.returncode}")
    metrics = json.loads((out / "metrics.json").read_text())
    density, truth = metrics["density"], get(target).log_z
    row = {
        "target": target,
        "dim": metrics["dim"],
        "experts": experts,
        "seed": seed,
        "log_z_error": None if truth is None else density["log_z"] - truth,
        "log_z_se": density["log_z_se"],
        "sampler_error": None if truth is None else density["log_z_sampler"] - truth,
        "kl": metrics["mixture"]["kl"],
        "kl_se": metrics["mixture"]["kl_se"],
        "calls": density["calls"],
        "sampling": metrics["seconds"]["sampling"],
        "seconds": metrics["seconds"]["total"],
        "khat": density["khat"],
        "efficiency": density["ess"] / density["draws"],
        "verdict": density["verdict"],
        "why": density["reasons"][0],
        "coverage": None,
    }
    if target == FortyModes.name:
        with np.load(out / "draws.npz") as saved:
            nearest = torch.cdist(torch.from_numpy(saved["draws"]), FortyModes().centres)
        share = torch.bincount(nearest.argmin(dim=1), minlength=MODES).double()
        share = share[share > 0] / share.sum()
        row["coverage"] = float(-(share * share.log()).sum()) / math.log(MODES)
    return row


def by_draws() -> dict[str, list[float]]:
    """KL of the fits to 10,000 exact draws, by target."""
    found: dict[str, list[float]] = {}
    with BY_DRAWS.open(newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["target"], []).append(float(row["kl"]))
    return found


def page(rows: list[dict[str, Any]], command: str, made: str) -> str:
    """The Markdown page: medians, then every run."""
    exact = by_draws()
    medians = [
        "| target | d | experts | abs. error of log Z: median, largest | KL | KL from exact draws "
        "| calls | sampling, s | all, s | k̂ | effective | verdicts |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for target in dict.fromkeys(row["target"] for row in rows):
        of = [row for row in rows if row["target"] == target]

        def median(key: str, of: list[dict[str, Any]] = of) -> float:
            return statistics.median(row[key] for row in of)

        errors = [abs(row["log_z_error"]) for row in of if row["log_z_error"] is not None]
        verdicts: dict[str, int] = {}
        for row in of:
            verdicts[row["verdict"]] = verdicts.get(row["verdict"], 0) + 1
        known = of[0]["kl"] is not None
        cells = [
            target, str(of[0]["dim"]), of[0]["experts"],
            f"{statistics.median(errors):.4f}, {max(errors):.4f}" if errors else "unknown",
            f"{median('kl'):.4f}" if known else "unknown",
            f"{statistics.median(exact[target]):.4f}" if target in exact else "",
            f"{median('calls'):.0f}", f"{median('sampling'):.1f}", f"{median('seconds'):.0f}",
            f"{median('khat'):.2f}", f"{median('efficiency'):.0%}",
            ", ".join(f"{v} ({n})" for v, n in verdicts.items()),
        ]  # fmt: skip
        medians.append("| " + " | ".join(cells) + " |")
    runs = [
        "| target | seed | log Z − truth ± SE | by the sampler alone | KL ± SE | calls | k̂ "
        "| effective | verdict, and the first reason |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        known = row["log_z_error"] is not None
        error = f"{row['log_z_error']:+.4f} ± {row['log_z_se']:.4f}" if known else "unknown"
        sampler = f"{row['sampler_error']:+.4f}" if known else "unknown"
        divergence = "unknown" if row["kl"] is None else f"{row['kl']:.4f} ± {row['kl_se']:.4f}"
        runs.append(
            f"| {row['target']} | {row['seed']} | {error} | {sampler} | {divergence} "
            f"| {row['calls']} | {row['khat']:.2f} | {row['efficiency']:.0%} "
            f"| {row['verdict']}: {row['why']} |"
        )
    covered = [row["coverage"] for row in rows if row["coverage"] is not None]
    modes = [
        "Share of the largest possible entropy that draws of the mixture have over the forty "
        f"modes: {min(covered):.3f} at least.", "",
    ] if covered else []  # fmt: skip
    return "\n".join([
        "# Posteriors by their log density alone", "",
        f"`{command}`", "",
        "Medians over seeds. Exact KL(p‖q) in nats of the fitted mixture, beside that of the same",
        "experts fitted to 10,000 exact draws (`canonical.py`). log Z by importance sampling from",
        "the mixture. Calls of the density, gradients included, for everything: start, two runs of",
        "the sampler, refinements, comparison, search for missed modes. Seconds of wall clock.",
        f"Made with {made}.", "",
        *medians, "", *modes,
        "## Every run", "", *runs, "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--experts", help="for all; by default paper or robust")
    parser.add_argument("--folder", type=Path, default=Path("runs") / "from-density")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for target in options.targets.split(","):
        experts = options.experts or ("paper" if target in CANONICAL else "robust")
        for seed in range(options.seeds):
            row = cell(target, experts, seed, options.folder)
            rows.append(row)
            print(f"{target} {seed}: {row['verdict']}", file=sys.stderr, flush=True)
    options.results.mkdir(parents=True, exist_ok=True)
    stem = options.results / "from-density"
    with stem.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    command = f"python experiments/from_density.py --seeds {options.seeds}"
    if options.targets != ",".join(TARGETS):
        command += f" --targets {options.targets}"
    text = page(rows, command, made_with(options.folder))
    stem.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
