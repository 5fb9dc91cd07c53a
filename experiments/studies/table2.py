"""Which of the paper's claims hold?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

import amfvi
from amfvi.metrics.evaluation import N_W2
from amfvi.targets import CANONICAL
from amfvi.two_stage.weights import fit_weights
from experiments.lab.pictures import MIXTURE_LAST, dots_by_target
from experiments.lab.pool import TRIO, kl_divergence, trio_pool
from experiments.lab.study import Report, Size, Study
from experiments.lab.tables import Row, distinct, format_mean, markdown_table, pivot, values

METHODS = (*TRIO, "mixture")
"""What is scored."""

PAPER_N_EFF = (2.10, 2.99)
"""Range of the effective number of experts in the paper."""


def cells(size: Size) -> list[Row]:
    return size.grid(
        target=size.choose(list(CANONICAL), ["banana", "rings"], ["banana"]),
        n=size.choose([1_000, 10_000], 1_000, 200),
    )


def run(cell: Row, folder: Path) -> list[Row]:
    pool = trio_pool(cell, folder)
    evaluation = amfvi.evaluate(
        pool.mixture, pool.target, seed=cell["seed"], floor_cache=folder / "floors.json"
    )
    assert evaluation.floor is not None  # of a target it is always measured
    scores = evaluation.experts | {"mixture": evaluation.mixture}
    literal = fit_weights(pool.heldout, "batch-mean")
    log_p, log_q = pool.test_log_densities
    common = {
        "w2_floor": evaluation.floor.w2,
        "n_eff": pool.mixture.n_eff, "n_eff_literal": literal.n_eff,
        "kl_literal": kl_divergence(log_p, log_q, literal.weights),
        "advantage": evaluation.advantage.mean, "advantage_se": evaluation.advantage.se,
    }  # fmt: skip
    return [
        {"method": name, "nll": s.nll, "kl": s.kl, "w2": s.w2, "mmd2": s.mmd2, "mmd_p": s.mmd_p,
         **common}
        for name, s in scores.items()
    ]  # fmt: skip


def report(rows: list[Row]) -> Report:
    body = []
    for n in distinct(rows, "n"):
        of_n = [row for row in rows if row["n"] == n]
        floors = [row | {"method": "floor", "w2": row["w2_floor"]} for row in of_n
                  if row["method"] == "mixture"]  # fmt: skip
        rejected: list[Row] = [row | {"rejected": row["mmd_p"] < 0.05} for row in of_n]
        body += [
            f"## {n:,} draws", "", "Exact KL(p‖q), nats:", "",
            *pivot(of_n, "target", "method", "kl"), "",
            "Negative log-likelihood of fresh draws, nats:", "",
            *pivot(of_n, "target", "method", "nll"), "",
            f"W2 at {N_W2:,} draws, beside that of two exact samples:", "",
            *pivot(of_n + floors, "target", "method", "w2", ".3f"), "",
            "MMD², unbiased, in units of 10⁻³:", "",
            *pivot([row | {"mmd2": 1e3 * row["mmd2"]} for row in of_n],
                   "target", "method", "mmd2", ".2f"), "",
            "Share of runs whose draws a permutation test of MMD² tells from exact ones (p < .05):",
            "", *pivot(rejected, "target", "method", "rejected", ".2f"), "",
            "Effective number of experts, by the default rule and by the paper's printed one, and "
            "the mixture's KL under the latter:", "",
            *_effective_numbers(of_n), "",
        ]  # fmt: skip
    return Report(brief=_brief(rows), answer=_answer(rows), body=body, figure=_figure(rows))


def _effective_numbers(rows: list[Row]) -> list[str]:
    """Tabulate the effective number of experts by the default rule and by the printed one."""
    mixtures = [row for row in rows if row["method"] == "mixture"]
    columns = {"n_eff": ".2f", "n_eff_literal": ".2f", "kl_literal": ".4f"}
    return markdown_table(
        ["target", "n_eff", "n_eff, printed rule", "KL, printed rule"],
        (
            [target, *(format_mean(values(mixtures, key, target=target), number_format)
                       for key, number_format in columns.items())]
            for target in distinct(mixtures, "target")
        ),
    )  # fmt: skip


def _runs(rows: list[Row]) -> list[dict[str, Row]]:
    """Group the rows of each run, by method."""
    runs: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in rows:
        runs.setdefault((row["n"], row["target"], row["seed"]), {})[row["method"]] = row
    return list(runs.values())


def _ahead(runs: list[dict[str, Row]]) -> int:
    """Count the runs in which the mixture's likelihood is above that of each expert."""
    return sum(run["mixture"]["advantage"] > 0 for run in runs)


def _brief(rows: list[Row]) -> str:
    parts = []
    for n in distinct(rows, "n"):
        runs = _runs([row for row in rows if row["n"] == n])
        parts.append(f"{_ahead(runs)} of {len(runs)} runs at {n:,} draws")
    return (
        "The mixture's likelihood is above that of every single flow in "
        + ", in ".join(parts)
        + "."
    )


def _answer(rows: list[Row]) -> str:
    sentences = []
    for n in distinct(rows, "n"):
        runs = _runs([row for row in rows if row["n"] == n])
        level = sum(r["mixture"]["advantage"] >= -2 * r["mixture"]["advantage_se"] for r in runs)
        nearer = sum(r["mixture"]["w2"] <= min(r[e]["w2"] for e in TRIO) for r in runs)
        low, high = PAPER_N_EFF
        inside = sum(low <= r["mixture"]["n_eff"] <= high for r in runs)
        literal = [r["mixture"]["n_eff_literal"] for r in runs]
        sentences.append(
            f"At {n:,} draws it is not below the best by more than two standard errors in {level}; "
            f"its W2 is the lowest of the four in {nearer}; its effective number of experts is "
            f"inside the paper's {low:.2f} to {high:.2f} in {inside} (by the paper's printed rule "
            f"it runs from {min(literal):.2f} to {max(literal):.2f})."
        )
    return " ".join(sentences)


def _figure(rows: list[Row]) -> Figure:
    numbers = distinct(rows, "n")
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots(1, len(numbers), sharey=True, squeeze=False)[0]
    for ax, n in zip(axes, numbers, strict=True):
        dots_by_target(ax, rows, "method", METHODS, colors=MIXTURE_LAST, n=n)
        ax.set_title(f"{n:,} draws", fontsize=10)
    axes[-1].legend(fontsize=8, frameon=False)
    return figure


STUDY = Study(
    name="table2",
    question="Which of the paper's claims hold?",
    method=(
        "The paper's three experts with this package's defaults, on its six posteriors, at its "
        "1,000 draws and at 10,000. KL and negative log-likelihood on 20,000 fresh exact draws; "
        f"W2 and MMD² on {N_W2:,} draws per side. “Printed rule” is the paper's weight update as "
        "it prints it, a softmax of mean log-likelihoods."
    ),
    cells=cells,
    run=run,
    report=report,
)
