"""How near to the six canonical posteriors a default fit comes, and in what time.

    python -m experiments.benchmarks.canonical [--n-draws 10000] [--seeds 5]

Every cell is ``amfvi fit --target T --seed s`` in a process of its own, timed from
its start to its end, metrics and figures included. A finished cell is not run again.
Writes ``experiments/results/canonical-<n>.csv`` and ``.md``.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from amfvi.json_files import read_json
from amfvi.metrics.evaluation import N_W2
from amfvi.targets import CANONICAL
from experiments.lab.cells import CellStore
from experiments.lab.pages import benchmark_parser, write_page
from experiments.lab.pool import TRIO
from experiments.lab.provenance import AMFVI, Provenance, describe_all
from experiments.lab.tables import Row, distinct, markdown_table, values

__all__ = ["main", "page", "run"]


def run(cell: Row, folder: Path) -> list[Row]:
    """Run ``amfvi fit`` with a target, a seed and a number of draws."""
    target, seed, n_draws = cell["target"], cell["seed"], cell["n_draws"]
    out = folder / f"canonical-{target}-{n_draws}-{seed}"
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "amfvi", "fit", "--target", target, "--seed", str(seed),
         "--n-draws", str(n_draws), "--out", str(out), "--force", "--quiet"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    seconds = round(time.monotonic() - started, 1)
    metrics = read_json(out / "metrics.json")
    advantage, experts, mixture = (metrics[k] for k in ("advantage", "experts", "mixture"))
    return [{
        **{f"{name}_kl": experts[name]["kl"] for name in TRIO},
        "kl": mixture["kl"],
        "kl_se": mixture["kl_se"],
        "advantage": advantage["mean"],
        "advantage_se": advantage["se"],
        "never_worse": advantage["mean"] >= -2 * advantage["se"],
        **{f"{name}_weight": experts[name]["weight"] for name in TRIO},
        "n_eff": metrics["weights"]["n_eff"],
        "w2": mixture["w2"],
        "w2_floor": metrics["floor"]["w2"],
        "mmd_p": mixture["mmd_p"],
        "seconds": seconds,
    }]  # fmt: skip


def page(rows: list[Row], n_draws: int, seeds: int, made_with: str) -> str:
    """Write the page: a table of medians, then one of every run."""
    kept = sum(row["never_worse"] for row in rows)
    return "\n".join([
        f"# Six canonical posteriors, {n_draws} draws", "",
        f"`python -m experiments.benchmarks.canonical --n-draws {n_draws} --seeds {seeds}`", "",
        f"Exact KL(p‖q) in nats, medians over seeds; W2 at {N_W2:,} draws beside that of two exact",
        "samples; seconds from process start to written run directory.",
        made_with, "",
        *_medians(rows), "",
        f"In {kept} of {len(rows)} runs the mixture's KL is at most the best expert's + 2 standard",
        "errors of their paired difference. Median time of a run:",
        f"{statistics.median(row['seconds'] for row in rows):.1f} s.", "",
        f"## Every run (weights of {', '.join(TRIO)})", "",
        *_runs(rows), "",
    ])  # fmt: skip


def _medians(rows: list[Row]) -> list[str]:
    lines = []
    for target in distinct(rows, "target"):

        def median(key: str, target: str = target) -> float:
            return statistics.median(values(rows, key, target=target))

        lines.append([
            target, *(f"{median(f'{name}_kl'):.4f}" for name in TRIO), f"**{median('kl'):.4f}**",
            f"{median('w2'):.3f} / {median('w2_floor'):.3f}", f"{median('seconds'):.0f}",
        ])  # fmt: skip
    return markdown_table(["target", *TRIO, "mixture", "W2 / floor", "seconds"], lines)


def _runs(rows: list[Row]) -> list[str]:
    lines = []
    for row in rows:
        mark = "" if row["never_worse"] else " (worse by more than 2 SE)"
        lines.append([
            row["target"], row["seed"], f"{row['kl']:.4f} ± {row['kl_se']:.4f}",
            f"{row['advantage']:+.5f} ± {row['advantage_se']:.5f}{mark}",
            ", ".join(f"{row[f'{name}_weight']:.3f}" for name in TRIO), f"{row['n_eff']:.2f}",
            f"{row['seconds']:.0f}",
        ])  # fmt: skip
    header = ["target", "seed", "mixture KL ± SE", "best expert − mixture ± SE", "weights",
              "n_eff", "s"]  # fmt: skip
    return markdown_table(header, lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = benchmark_parser(__doc__, folder="canonical")
    parser.add_argument("--n-draws", type=int, default=10_000)
    options = parser.parse_args(arguments)
    cells = [
        {"target": target, "seed": seed, "n_draws": options.n_draws}
        for target in CANONICAL
        for seed in range(options.seeds)
    ]
    store = CellStore(folder=options.folder, experiment="canonical")
    finished = store.run_all(cells, run, Provenance.current(AMFVI))
    rows = [row for cell in finished for row in cell.full_rows]
    made_with = describe_all(finished)
    text = page(rows, options.n_draws, options.seeds, made_with)
    write_page(options.results, f"canonical-{options.n_draws}", text, rows)


if __name__ == "__main__":
    main()
