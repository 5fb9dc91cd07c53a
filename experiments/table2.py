"""Which of the paper's claims hold?

python experiments/table2.py [--seeds 5] [--quick]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from amfvi.targets import CANONICAL, get
from matplotlib.figure import Figure
from pictures import dots_by_target
from pool import TRIO, Pool, divergence
from study import PALETTE, Report, Row, Size, Study, command, entry, pivot, values

from amfvi.metrics import evaluate
from amfvi.stage_two import fit_weights

METHODS = (*TRIO, "mixture")


def cells(size: Size) -> list[Row]:
    return size.grid(
        target=size.of(list(CANONICAL), ["banana", "rings"], ["banana"]),
        n=size.of([1_000, 10_000], 1_000, 200),
    )


def run(cell: Row, store: Path) -> list[Row]:
    pool = Pool.of(get(cell["target"]), cell["n"], cell["seed"], store, tested=cell["tested"])
    found = evaluate(pool.mixture, pool.target, seed=cell["seed"])
    scores = found.experts | {"mixture": found.mixture}
    literal = fit_weights(pool.heldout, "batch-mean")
    log_p, log_q = pool.fresh
    common = {
        "w2_floor": found.floor.w2, "n_eff": pool.mixture.n_eff, "n_eff_literal": literal.n_eff,
        "kl_literal": divergence(log_p, log_q, literal.weights),
        "advantage": found.advantage.mean, "advantage_se": found.advantage.se,
    }  # fmt: skip
    return [
        {"method": name, "nll": s.nll, "kl": s.kl, "w2": s.w2, "mmd2": s.mmd2, "mmd_p": s.mmd_p,
         **common}
        for name, s in scores.items()
    ]  # fmt: skip


def report(rows: list[Row]) -> Report:
    body = []
    for n in dict.fromkeys(row["n"] for row in rows):
        at = [row for row in rows if row["n"] == n]
        floors = [row | {"method": "floor", "w2": row["w2_floor"]} for row in at
                  if row["method"] == "mixture"]  # fmt: skip
        rejected: list[Row] = [row | {"rejected": row["mmd_p"] < 0.05} for row in at]
        body += [
            f"## {n:,} draws", "", "Exact KL(p‖q), nats:", "",
            *pivot(at, "target", "method", "kl"), "",
            "Negative log-likelihood of fresh draws, nats:", "",
            *pivot(at, "target", "method", "nll"), "",
            "W2 at 2,000 draws, beside what two samples of the truth score:", "",
            *pivot(at + floors, "target", "method", "w2", ".3f"), "",
            "MMD², unbiased, in units of 10⁻³:", "",
            *pivot([row | {"mmd2": 1e3 * row["mmd2"]} for row in at],
                   "target", "method", "mmd2", ".2f"), "",
            "Share of runs whose draws a permutation test of MMD² tells from the truth (p < .05):",
            "", *pivot(rejected, "target", "method", "rejected", ".2f"), "",
            "Effective number of experts, by our rule and by the paper's printed one, and the "
            "mixture's KL under the latter:", "",
            *_numbers(at), "",
        ]  # fmt: skip
    return Report(_brief(rows), _answer(rows), body, _figure(rows))


def _numbers(rows: list[Row]) -> list[str]:
    of = [row for row in rows if row["method"] == "mixture"]
    lines = ["| target | n_eff | n_eff, printed rule | KL, printed rule |", "|---|---|---|---|"]
    for target in dict.fromkeys(row["target"] for row in of):
        entries = [entry(values(of, "n_eff", target=target), ".2f"),
                   entry(values(of, "n_eff_literal", target=target), ".2f"),
                   entry(values(of, "kl_literal", target=target))]  # fmt: skip
        lines.append(f"| {target} | {' | '.join(entries)} |")
    return lines


def _runs(rows: list[Row]) -> list[dict[str, Row]]:
    """The rows of each run, by method."""
    found: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in rows:
        found.setdefault((row["n"], row["target"], row["seed"]), {})[row["method"]] = row
    return list(found.values())


def _ahead(runs: list[dict[str, Row]]) -> int:
    """Of how many runs the mixture's likelihood is above that of each of its experts."""
    return sum(run["mixture"]["advantage"] > 0 for run in runs)


def _brief(rows: list[Row]) -> str:
    parts = []
    for n in dict.fromkeys(row["n"] for row in rows):
        runs = _runs([row for row in rows if row["n"] == n])
        parts.append(f"{_ahead(runs)} of {len(runs)} runs at {n:,} draws")
    return (
        "The mixture's likelihood is above that of every single flow in "
        + ", in ".join(parts)
        + "."
    )


def _answer(rows: list[Row]) -> str:
    sentences = []
    for n in dict.fromkeys(row["n"] for row in rows):
        runs = _runs([row for row in rows if row["n"] == n])
        level = sum(r["mixture"]["advantage"] >= -2 * r["mixture"]["advantage_se"] for r in runs)
        nearer = sum(r["mixture"]["w2"] <= min(r[e]["w2"] for e in TRIO) for r in runs)
        inside = sum(2.10 <= r["mixture"]["n_eff"] <= 2.99 for r in runs)
        literal = [r["mixture"]["n_eff_literal"] for r in runs]
        sentences.append(
            f"At {n:,} draws it is not below the best by more than two standard errors in {level}; "
            f"its W2 is the lowest of the four in {nearer}; its effective number of experts is "
            f"inside the paper's 2.10 to 2.99 in {inside} (by the paper's printed rule it runs "
            f"from {min(literal):.2f} to {max(literal):.2f})."
        )
    return " ".join(sentences)


def _figure(rows: list[Row]) -> Figure:
    numbers = list(dict.fromkeys(row["n"] for row in rows))
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots(1, len(numbers), sharey=True, squeeze=False)[0]
    colours = PALETTE[1:4] + PALETTE[:1]
    for ax, n in zip(axes, numbers, strict=True):
        dots_by_target(ax, rows, "method", METHODS, colours=colours, n=n)
        ax.set_title(f"{n:,} draws", fontsize=10)
    axes[-1].legend(fontsize=8, frameon=False)
    return figure


STUDY = Study(
    name="table2",
    question="Which of the paper's claims hold?",
    method=(
        "The paper's three experts with this package's defaults, on its six posteriors, at its "
        "1,000 draws and at 10,000. KL and negative log-likelihood on 20,000 fresh exact draws; "
        "W2 and MMD² on 2,000 draws a side. “Printed rule” is the paper's weight update as it "
        "prints it, a softmax of mean log-likelihoods."
    ),
    cells=cells,
    run=run,
    report=report,
)

if __name__ == "__main__":
    command(STUDY)
