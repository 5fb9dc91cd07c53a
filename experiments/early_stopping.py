"""How much of the paper's gain is rescue from overfitting?

python experiments/early_stopping.py [--seeds 5] [--quick]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from amfvi.experts import MAF, Folds, RealNVP
from amfvi.experts.neural import NeuralFlowConfig
from amfvi.targets import CANONICAL, get
from matplotlib.figure import Figure
from pictures import lines_by_target
from pool import TRIO, Pool, divergence
from study import PALETTE, Report, Row, Size, Study, command, mean_se, pivot, values
from unregularised import snapshots

from amfvi.mixture import log_densities
from amfvi.randomness import stream
from amfvi.split import split_target
from amfvi.stage_two import fit_weights

STEPS = (100, 300, 1_000, 3_000, 10_000)
RATE = 1e-3
FRESH = 1_000  # draws for the weights, as many as the paper trains on
FLOWS: dict[str, NeuralFlowConfig] = {"maf": MAF(), "realnvp": RealNVP()}


def cells(size: Size) -> list[Row]:
    return size.grid(
        target=size.of(list(CANONICAL), ["bimodal"], ["bimodal"]),
        n=size.of(1_000, 500, 100),
        most=size.of(STEPS[-1], 1_000, 100),
    )


def run(cell: Row, store: Path) -> list[Row]:
    target, n, seed = get(cell["target"]), cell["n"], cell["seed"]
    ensembles = Pool.of(target, n, seed, store, tested=cell["tested"])
    single = Pool.of(target, n, seed, store, folds=1, tested=cell["tested"])
    log_p, _ = single.fresh
    x = single.points
    for_weights = target.sample(FRESH, stream(seed, "fresh draws for weights"))

    def scored(regime: str, steps: int, matrix: torch.Tensor, log_q: torch.Tensor) -> list[Row]:
        """Every expert, and mixtures by both rules."""
        kl = {name: divergence(log_p, log_q[:, [k]], [1.0]) for k, name in enumerate(TRIO)}
        for rule in ("ema", "batch-mean"):
            kl[f"mixture, {rule}"] = divergence(log_p, log_q, fit_weights(matrix, rule).weights)
        return [{"regime": regime, "steps": steps, "method": m, "kl": v} for m, v in kl.items()]

    rows = scored("early stopping, ensembles", 0, ensembles.heldout, ensembles.fresh[1])
    own = log_densities(single.mixture.experts, for_weights)
    rows += scored("early stopping, single", 0, own, single.fresh[1])

    # All draws to training, as nothing is held out; RBIG has its own stop and keeps it.
    draws = split_target(target, n, 0, seed, 0, 1).draws
    folds = Folds.holdout(draws, draws[:1])
    at = [s for s in STEPS if s <= cell["most"]]
    rbig = TRIO.index("rbig")
    columns: dict[str, dict[int, tuple[torch.Tensor, torch.Tensor]]] = {}
    for name, config in FLOWS.items():
        generator = stream(seed, "unregularised", name)
        columns[name] = {
            steps: (expert.log_prob(for_weights), expert.log_prob(x))
            for steps, expert in snapshots(
                config, folds, at, learning_rate=RATE, generator=generator
            )
        }
    for steps in at:
        pairs = [columns["maf"][steps], columns["realnvp"][steps],
                 (own[:, rbig], single.fresh[1][:, rbig])]  # fmt: skip
        matrix, log_q = (
            torch.nan_to_num(torch.stack(part, dim=1), nan=-torch.inf)
            for part in zip(*pairs, strict=True)
        )
        rows += scored("unregularised", steps, matrix, log_q)
    return rows


def report(rows: list[Row]) -> Report:
    last = max(row["steps"] for row in rows)
    ends = [
        row | {"regime": f"{last:,} unregularised steps" if row["steps"] else row["regime"]}
        for row in rows
        if row["steps"] in (0, last)
    ]
    path = [row for row in rows if row["regime"] == "unregularised"]
    body = ["## The three ways of training", "", "Exact KL(p‖q), nats:", ""]
    body += pivot(ends, ("target", "regime"), "method", "kl", ".3f")
    body += ["", "## As unregularised training goes on", "",
             "Means over targets and seeds, nats:", "",
             *pivot(path, "method", "steps", "kl", ".3f"), "",
             "## What mixing gains over the best single expert", "",
             "By EMA of responsibilities, nats:", "", *_gains(ends), ""]  # fmt: skip
    return Report(_brief(ends, last), _answer(ends, last), body, _figure(rows))


def _gain(rows: list[Row], regime: str, over: Sequence[str] = TRIO, **where: str) -> np.ndarray:
    """KL of the best of some experts less that of the mixture, of each run, nats."""
    single = np.min([values(rows, "kl", regime=regime, method=m, **where) for m in over], axis=0)
    mixed = values(rows, "kl", regime=regime, method="mixture, ema", **where)
    return np.asarray(single - mixed)


def _gains(rows: list[Row]) -> list[str]:
    long = [
        {"target": target, "regime": regime, "gain": float(gain)}
        for target in dict.fromkeys(row["target"] for row in rows)
        for regime in dict.fromkeys(row["regime"] for row in rows)
        for gain in _gain(rows, regime, target=target)
    ]
    return pivot(long, "target", "regime", "gain")


def _mean_gains(rows: list[Row]) -> list[float]:
    """What mixing gains over the best single expert, nats, by regime in order."""
    targets = list(dict.fromkeys(row["target"] for row in rows))
    return [
        float(np.mean([_gain(rows, regime, target=target).mean() for target in targets]))
        for regime in dict.fromkeys(row["regime"] for row in rows)
    ]


def _brief(rows: list[Row], last: int) -> str:
    _, single, without = _mean_gains(rows)
    return (
        f"{(without - single) / without:.0%} of it: after {last:,} unregularised steps mixing "
        f"gains {without:.3f} nats over the best single expert, with early stopping {single:.3f}."
    )


def _answer(rows: list[Row], last: int) -> str:
    ensembles, *_ = _mean_gains(rows)
    flows = [
        float(np.median(_gain(rows, regime, tuple(FLOWS))))
        for regime in dict.fromkeys(row["regime"] for row in rows)
    ]
    mixed = {
        regime: mean_se(values(rows, "kl", regime=regime, method="mixture, ema"))[0]
        for regime in dict.fromkeys(row["regime"] for row in rows)
    }
    return (
        f"Means over targets and seeds. Where experts are ensembles, mixing gains {ensembles:.3f} "
        f"nats. Over the better of the two flows, without RBIG, the median gain is {flows[2]:.3f} "
        f"without regularisation, {flows[1]:.3f} with early stopping and {flows[0]:.3f} for "
        "ensembles. The mixture itself has a mean KL of "
        + ", ".join(f"{kl:.3f} ({regime})" for regime, kl in mixed.items())
        + "."
    )


def _figure(rows: list[Row]) -> Figure:
    methods, colours = (*TRIO, "mixture, ema"), PALETTE[1:4] + PALETTE[:1]
    path = [row for row in rows if row["regime"] == "unregularised"]
    figure = lines_by_target(path, "steps", "method", methods, colours)
    stopped = {"regime": "early stopping, single"}
    for ax in figure.axes:
        if not ax.get_title():
            continue
        for method, colour in zip(methods, colours, strict=True):
            kl = values(rows, "kl", target=ax.get_title(), method=method, **stopped)
            ax.axhline(kl.mean(), color=colour, ls=":", lw=1)
    figure.supxlabel("unregularised full-batch steps (dotted: with early stopping)", fontsize=9)
    return figure


STUDY = Study(
    name="early_stopping",
    question="How much of the paper's gain is rescue from overfitting?",
    method=(
        "1,000 draws. “Unregularised” is what the paper describes: one MAF and one RealNVP, "
        "full-batch Adam (rate 0.001, which the paper does not give) on all draws, no early "
        "stopping; RBIG keeps its own stop. “Single” trains the same flows on 80% of the draws "
        "and stops by the rest; “ensembles” is the default of this package. Weights rest on 1,000 "
        "fresh draws, for ensembles on held-out ones. KL on 50,000 other fresh draws."
    ),
    cells=cells,
    run=run,
    report=report,
)

if __name__ == "__main__":
    command(STUDY)
