"""Is an expert that diverges weighted down?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from amfvi.experts import MAF
from amfvi.experts.matrix import log_densities
from amfvi.randomness import generator_for
from amfvi.two_stage.weights import fit_weights
from experiments.lab.pictures import PALETTE
from experiments.lab.pool import kl_divergence, trio_pool
from experiments.lab.study import Report, Size, Study
from experiments.lab.tables import Row, distinct, mean_se, pivot, values
from experiments.lab.unregularized import train_snapshots

STEPS = (10, 100, 300, 1_000, 3_000)
"""Steps without early stopping after which the MAF is scored."""

LEARNING_RATE = 3e-2
"""Of the MAF; large enough to diverge."""

RULES = ("ema", "batch-mean", "uniform", "in-sample")
"""Weight rules; "in-sample" is EM on the draws that the experts were trained on."""

OTHERS = ("realnvp", "rbig")
"""Experts that are fitted with early stopping throughout."""


def cells(size: Size) -> list[Row]:
    return size.grid(
        target=size.choose(["bimodal", "multimodal", "rings"], "bimodal", "bimodal"),
        n=200,
        most=size.choose(STEPS[-1], 300, 10),
    )


@dataclass(frozen=True, kw_only=True)
class _Densities:
    """Log densities of one expert (n,) or of several (n, K), nats.

    Attributes:
        heldout: at held-out draws, corrected for optimism.
        trained: at all draws that the experts were fitted to.
        test: at fresh draws.
    """

    heldout: Tensor
    trained: Tensor
    test: Tensor

    def columns(self, index: int | list[int]) -> _Densities:
        """Those of one expert or of several."""
        return _Densities(
            heldout=self.heldout[:, index],
            trained=self.trained[:, index],
            test=self.test[:, index],
        )


def run(cell: Row, folder: Path) -> list[Row]:
    pool = trio_pool(cell, folder)
    folds = pool.split.folds
    log_p, log_q = pool.test_log_densities
    trio = _Densities(
        heldout=pool.heldout,
        trained=log_densities(pool.mixture.experts, folds.draws),
        test=log_q,
    )
    others = trio.columns([pool.names.index(name) for name in OTHERS])
    rows = _score(0, trio.columns(pool.names.index("maf")), others, log_p)
    at = [s for s in STEPS if s <= cell["most"]]
    generator = generator_for(cell["seed"], "diverging")
    snapshots = train_snapshots(MAF(), folds, at, learning_rate=LEARNING_RATE, generator=generator)
    for steps, expert in snapshots:
        maf = _Densities(
            heldout=_without_nan(expert.log_prob_optimism_corrected(folds)),
            trained=_without_nan(expert.log_prob(folds.draws)),
            test=_without_nan(expert.log_prob(pool.points)),
        )
        rows += _score(steps, maf, others, log_p)
    return rows


def _without_nan(log_q: Tensor) -> Tensor:
    """Log densities with −∞ in place of NaN."""
    return torch.nan_to_num(log_q, nan=-torch.inf)


def _score(steps: int, maf: _Densities, others: _Densities, log_p: Tensor) -> list[Row]:
    """Score mixtures of a MAF and the other experts by all rules."""
    heldout = torch.cat([maf.heldout[:, None], others.heldout], dim=1)
    trained = torch.cat([maf.trained[:, None], others.trained], dim=1)
    log_q = torch.cat([maf.test[:, None], others.test], dim=1)
    nll = -float(maf.test.mean())
    rows = []
    for rule in RULES:
        matrix, weight_rule = (trained, "em") if rule == "in-sample" else (heldout, rule)
        weights = fit_weights(matrix, weight_rule).weights
        weights_without = fit_weights(matrix[:, 1:], weight_rule).weights
        rows.append({
            "steps": steps, "rule": rule, "weight": float(weights[0]),
            "kl": kl_divergence(log_p, log_q, weights),
            "without": kl_divergence(log_p, log_q[:, 1:], weights_without),
            "expert_kl": float(log_p.mean()) + nll,
            "expert_train_nll": -float(maf.trained.mean()), "expert_nll": nll,
        })  # fmt: skip
    return rows


def report(rows: list[Row]) -> Report:
    rows = [row | {"harm": row["kl"] - row["without"]} for row in rows]
    body = [
        "`steps` is how long the MAF was trained without early stopping; 0 is the MAF of "
        "`amfvi.fit`, stopped early. The other two experts are stopped early throughout.", "",
        "KL of that MAF alone, nats:", "",
        *pivot([r for r in rows if r["rule"] == "ema"], "target", "steps", "expert_kl", ".3f"), "",
    ]  # fmt: skip
    for target in distinct(rows, "target"):
        of_target = [row for row in rows if row["target"] == target]
        body += [
            f"## {target}", "", "Weight of the MAF:", "",
            *pivot(of_target, "rule", "steps", "weight", ".3f"), "",
            "KL of the mixture, nats:", "", *pivot(of_target, "rule", "steps", "kl", ".3f"), "",
            "KL of the mixture above that of the other two alone, under the same rule, nats "
            "(negative: it still helps):", "", *pivot(of_target, "rule", "steps", "harm"), "",
        ]  # fmt: skip
    return Report(brief=_brief(rows), answer=_answer(rows), body=body, figure=_figure(rows))


def _mean(rows: list[Row], key: str, rule: str, steps: int) -> float:
    return round(mean_se(values(rows, key, rule=rule, steps=steps))[0], 3) + 0.0


def _brief(rows: list[Row]) -> str:
    last = max(row["steps"] for row in rows)
    weight, harm = (_mean(rows, key, "ema", last) for key in ("weight", "harm"))
    return (
        f"{'Yes' if weight < 0.01 else 'Not enough'}: under the default its weight ends at "
        f"{weight:.3f} and it costs the mixture {harm:.3f} nats; under the paper's printed rule "
        f"{_mean(rows, 'weight', 'batch-mean', last):.3f} and "
        f"{_mean(rows, 'harm', 'batch-mean', last):.3f}, with equal weights "
        f"{_mean(rows, 'harm', 'uniform', last):.3f}."
    )


def _answer(rows: list[Row]) -> str:
    steps = sorted({row["steps"] for row in rows})
    in_sample = {s: _mean(rows, "weight", "in-sample", s) for s in steps[1:]}
    most = max(in_sample, key=in_sample.__getitem__)
    stopped, diverged = (_mean(rows, "expert_kl", "ema", s) for s in (0, steps[-1]))
    return (
        f"In {steps[-1]:,} unregularized steps on 200 draws the MAF's own KL rises from "
        f"{stopped:.2f} to {diverged:.2f} nats, means over targets and seeds. Weights "
        "that rest on draws which the expert did not train on protect the mixture; "
        "estimated in-sample they follow the expert that memorizes "
        f"(after {most:,} steps its weight is {in_sample[most]:.3f}, by the default "
        f"{_mean(rows, 'weight', 'ema', most):.3f}), until it is bad everywhere."
    )


def _figure(rows: list[Row]) -> Figure:
    steps = sorted({row["steps"] for row in rows})
    figure = Figure(figsize=(9, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for rule, color in zip(RULES, PALETTE, strict=False):
        for ax, key in ((left, "weight"), (right, "kl")):
            points = [mean_se(values(rows, key, rule=rule, steps=s)) for s in steps]
            ax.errorbar(
                range(len(steps)), [p[0] for p in points], [p[1] for p in points],
                marker="o", ms=4, color=color, label=rule, capsize=2,
            )  # fmt: skip
    left.set_ylabel("weight of the diverging MAF")
    right.set_ylabel("KL of the mixture, nats")
    right.set_yscale("log")
    for ax in (left, right):
        ax.set_xticks(range(len(steps)), ["stopped\nearly" if s == 0 else f"{s:,}" for s in steps],
                      fontsize=8)  # fmt: skip
        ax.set_xlabel("unregularized steps")
        ax.grid(alpha=0.3)
    left.legend(fontsize=8, frameon=False)
    return figure


STUDY = Study(
    name="divergence",
    question="Is an expert that diverges weighted down?",
    method=(
        "200 draws. The MAF is made to diverge by full-batch Adam at a rate of 0.03 without early "
        "stopping; RealNVP and RBIG are the package's own. “In-sample” is EM on the draws that the "
        "experts trained on. KL on 50,000 fresh exact draws."
    ),
    cells=cells,
    run=run,
    report=report,
)
