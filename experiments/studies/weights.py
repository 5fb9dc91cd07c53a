"""Which weight rule is nearest to the best possible weights?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from amfvi.experts.matrix import log_densities
from amfvi.randomness import generator_for
from amfvi.targets import CANONICAL
from amfvi.two_stage.weights import fit_weights
from experiments.lab.pictures import PALETTE
from experiments.lab.pool import kl_divergence, trio_pool
from experiments.lab.study import Report, Size, Study
from experiments.lab.tables import Row, distinct, mean_se, pivot, values

RULES = {
    "uniform": "all equal",
    "best single": "the expert of the highest held-out likelihood alone",
    "batch-mean": "the paper's printed rule",
    "ema": "EMA of responsibilities, β = 0.9, to its certificate: the default",
    "em": "EM, β = 0, to the same certificate",
    "stacking": "EM on densities of the members that did not see each draw (Yao et al. 2018)",
    "in-sample": "EM on the very draws that the experts were trained on",
}
"""What each rule does."""


def cells(size: Size) -> list[Row]:
    return size.grid(
        target=size.choose(list(CANONICAL), ["banana", "rings"], ["banana"]),
        n=size.choose([1_000, 10_000], 1_000, 200),
    )


def run(cell: Row, folder: Path) -> list[Row]:
    pool = trio_pool(cell, folder)
    heldout = pool.heldout
    experts, folds = pool.mixture.experts, pool.split.folds
    out_of_fold = heldout.clone()
    for column, expert in enumerate(experts.values()):
        out_of_fold[:, column] = expert.log_prob_out_of_fold(folds)
    in_sample = log_densities(experts, folds.draws)
    best_single = np.zeros(len(experts))
    best_single[int(heldout.mean(dim=0).argmax())] = 1.0
    weights = {
        "uniform": fit_weights(heldout, "uniform").weights,
        "best single": best_single,
        "batch-mean": fit_weights(heldout, "batch-mean").weights,
        "ema": fit_weights(heldout, "ema").weights,
        "em": fit_weights(heldout, "em").weights,
        "stacking": fit_weights(out_of_fold, "em").weights,
        "in-sample": fit_weights(in_sample, "em").weights,
    }
    x = pool.target.sample(2 * cell["n_test"], generator_for(cell["seed"], "the best weights"))
    log_p, log_q = pool.log_densities_at(x)
    best = fit_weights(log_q, "em")
    smallest_kl = kl_divergence(log_p, log_q, best.weights)
    rows: list[Row] = []
    for rule, w in weights.items():
        kl = kl_divergence(log_p, log_q, w)
        rows.append({
            "rule": rule, "kl": kl, "excess": 1e3 * (kl - smallest_kl),
            "share": (kl - smallest_kl) / smallest_kl, "n_eff": float(1 / np.square(w).sum()),
        })  # fmt: skip
    return [*rows, {"rule": "best possible", "kl": smallest_kl, "excess": 0.0, "share": 0.0,
          "n_eff": best.n_eff}]  # fmt: skip


def report(rows: list[Row]) -> Report:
    body = ["| rule | what it does |", "|---|---|"]
    body += [f"| {rule} | {description} |" for rule, description in RULES.items()] + [""]
    for n in distinct(rows, "n"):
        of_n = [row for row in rows if row["n"] == n]
        body += [
            f"## {n:,} draws", "",
            "KL above that of the best possible weights, in thousandths of a nat:", "",
            *pivot([row for row in of_n if row["rule"] != "best possible"],
                   "rule", "target", "excess", ".2f"), "",
            "KL itself, nats:", "", *pivot(of_n, "rule", "target", "kl"), "",
            "Effective number of experts:", "", *pivot(of_n, "rule", "target", "n_eff", ".2f"), "",
        ]  # fmt: skip
    return Report(brief=_brief(rows), answer=_answer(rows), body=body, figure=_figure(rows))


def _losses(rows: list[Row], n: int) -> dict[str, float]:
    """Mean KL above that of the best possible weights by rule, thousandths of a nat."""
    return {rule: mean_se(values(rows, "excess", rule=rule, n=n))[0] for rule in RULES}


def _brief(rows: list[Row]) -> str:
    numbers = distinct(rows, "n")
    losses = [_losses(rows, n) for n in numbers]

    def losses_of(rule: str) -> str:
        return " and ".join(f"{mean[rule]:.2f}" for mean in losses)

    nearest = [
        f"{min(mean, key=mean.__getitem__)} at {n:,} draws"
        for n, mean in zip(numbers, losses, strict=True)
    ]
    return (
        f"{', '.join(nearest).capitalize()}. KL above that of the best weights, thousandths of a "
        f"nat: {losses_of('stacking')} by stacking, {losses_of('ema')} by the default, `ema`, "
        f"{losses_of('best single')} by the best single expert, {losses_of('batch-mean')} by the "
        "paper's printed rule."
    )


def _answer(rows: list[Row]) -> str:
    sentences = []
    for n in distinct(rows, "n"):
        mean = _losses(rows, n)
        ordered = "; ".join(
            f"{rule} {mean[rule]:.2f}" for rule in sorted(mean, key=mean.__getitem__)
        )
        sentences.append(f"At {n:,} draws: {ordered}.")
    return "All rules, over all targets. " + " ".join(sentences)


def _figure(rows: list[Row]) -> Figure:
    numbers = distinct(rows, "n")
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, len(numbers), sharey=True, squeeze=False)[0]
    for ax, n in zip(axes, numbers, strict=True):
        for place, rule in enumerate(RULES):
            x = np.maximum(values(rows, "excess", n=n, rule=rule), 1e-2)
            spread = np.linspace(-0.25, 0.25, len(x)) if len(x) > 1 else np.zeros(1)
            ax.plot(x, place + spread, "o", ms=3, alpha=0.6, color=PALETTE[place % len(PALETTE)])
        ax.set_xscale("log")
        ax.set_title(f"{n:,} draws", fontsize=10)
        ax.set_xlabel("KL above the best weights', 10⁻³ nats (at least 0.01)")
        ax.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(RULES)), list(RULES))
    axes[0].invert_yaxis()
    return figure


STUDY = Study(
    name="weights",
    question="Which weight rule is nearest to the best possible weights?",
    method=(
        "The fits are those of `table2`. The best possible weights are EM's on 100,000 fresh "
        "draws; all KLs are on these same draws. A rule sees only the held-out draws."
    ),
    cells=cells,
    run=run,
    report=report,
)
