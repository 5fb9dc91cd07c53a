"""How near to the six canonical posteriors a default fit comes, and in what time.

    python experiments/canonical.py [--n-draws 10000] [--seeds 5]

Every cell is ``amfvi fit --target T --seed s`` in a process of its own, timed from
its start to its end, metrics and figures included. A finished cell is not run again.
Writes ``experiments/results/canonical-<n>.csv`` and ``.md``.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from amfvi.targets import CANONICAL

RESULTS = Path(__file__).parent / "results"
EXPERTS = ("maf", "realnvp", "rbig")


def cell(target: str, seed: int, n_draws: int, folder: Path) -> dict[str, Any]:
    """One run's figures, from its directory if it has been run before."""
    out = folder / f"{target}-{seed}"
    wall = out.with_suffix(".seconds")
    if not (out / "metrics.json").is_file():
        started = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "amfvi", "fit", "--target", target, "--seed", str(seed),
             "--n-draws", str(n_draws), "--out", str(out), "--quiet"],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        wall.write_text(f"{time.monotonic() - started:.1f}")
    metrics = json.loads((out / "metrics.json").read_text())
    advantage = metrics["advantage"]
    return {
        "target": target,
        "seed": seed,
        **{f"{e}_kl": metrics["experts"][e]["kl"] for e in EXPERTS},
        "kl": metrics["mixture"]["kl"],
        "kl_se": metrics["mixture"]["kl_se"],
        "advantage": advantage["mean"],
        "advantage_se": advantage["se"],
        "never_worse": advantage["mean"] >= -2 * advantage["se"],
        **{f"{e}_weight": metrics["experts"][e]["weight"] for e in EXPERTS},
        "n_eff": metrics["weights"]["n_eff"],
        "w2": metrics["mixture"]["w2"],
        "w2_floor": metrics["floor"]["w2"],
        "mmd_p": metrics["mixture"]["mmd_p"],
        "seconds": float(wall.read_text()),
    }


def made_with(folder: Path) -> str:
    """Versions and hardware of the runs in a folder; several if they differ."""
    found = set()
    for path in folder.glob("*/environment.json"):
        environment = json.loads(path.read_text())
        packages = environment["packages"]
        found.add(
            f"amfvi {packages['amfvi']}, torch {packages['torch']}, Python "
            f"{environment['python']}, {environment['device']}, {environment['threads']} threads"
        )
    return "; ".join(sorted(found))


def page(rows: list[dict[str, Any]], n_draws: int, seeds: int, made_with: str) -> str:
    """The Markdown page: a table of medians, then one of every run."""
    medians = [
        "| target | " + " | ".join(EXPERTS) + " | mixture | W2 / floor | seconds |",
        "|---|" + "---|" * (len(EXPERTS) + 3),
    ]
    for target in CANONICAL:
        of = [row for row in rows if row["target"] == target]

        def median(key: str, of: list[dict[str, Any]] = of) -> float:
            return statistics.median(row[key] for row in of)

        cells = [f"{median(f'{e}_kl'):.4f}" for e in EXPERTS] + [f"**{median('kl'):.4f}**"]
        cells += [f"{median('w2'):.3f} / {median('w2_floor'):.3f}", f"{median('seconds'):.0f}"]
        medians.append(f"| {target} | " + " | ".join(cells) + " |")
    runs = [
        "| target | seed | mixture KL ± SE | best expert − mixture ± SE | weights | n_eff | s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        weights = ", ".join(f"{row[f'{e}_weight']:.3f}" for e in EXPERTS)
        mark = "" if row["never_worse"] else " (worse by more than 2 SE)"
        runs.append(
            f"| {row['target']} | {row['seed']} | {row['kl']:.4f} ± {row['kl_se']:.4f} | "
            f"{row['advantage']:+.5f} ± {row['advantage_se']:.5f}{mark} | {weights} | "
            f"{row['n_eff']:.2f} | {row['seconds']:.0f} |"
        )
    kept = sum(row["never_worse"] for row in rows)
    return "\n".join([
        f"# Six canonical posteriors, {n_draws} draws", "",
        f"`python experiments/canonical.py --n-draws {n_draws} --seeds {seeds}`", "",
        "Exact KL(p‖q) in nats, medians over seeds; W2 at 2,000 draws beside what two samples",
        "of the truth score; seconds from process start to written run directory.",
        f"Made with {made_with}.", "",
        *medians, "",
        f"In {kept} of {len(rows)} runs the mixture's KL is at most the best expert's + 2 standard",
        "errors of their paired difference. Median time of a run:",
        f"{statistics.median(row['seconds'] for row in rows):.1f} s.", "",
        f"## Every run (weights of {', '.join(EXPERTS)})", "",
        *runs, "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-draws", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the runs go; runs/canonical-<n>")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    folder = options.folder or Path("runs") / f"canonical-{options.n_draws}"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for target in CANONICAL:
        for seed in range(options.seeds):
            rows.append(cell(target, seed, options.n_draws, folder))
            print(f"{target} {seed}: KL {rows[-1]['kl']:.4f}", file=sys.stderr, flush=True)
    options.results.mkdir(parents=True, exist_ok=True)
    stem = options.results / f"canonical-{options.n_draws}"
    with stem.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    text = page(rows, options.n_draws, options.seeds, made_with(folder))
    stem.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
