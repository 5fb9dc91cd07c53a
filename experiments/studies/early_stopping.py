"""How much of the paper's gain is rescue from overfitting?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from amfvi.experts import MAF, Folds, RealNVP
from amfvi.experts.matrix import log_densities
from amfvi.experts.neural import NeuralFlowConfig
from amfvi.randomness import generator_for
from amfvi.targets import CANONICAL
from amfvi.two_stage.weights import fit_weights
from experiments.lab.pictures import MIXTURE_LAST, lines_by_target
from experiments.lab.pool import TRIO, Pool, kl_divergence
from experiments.lab.study import Report, Size, Study
from experiments.lab.tables import Row, distinct, mean_se, pivot, values
from experiments.lab.targets import exact_target
from experiments.lab.unregularized import train_snapshots

STEPS = (100, 300, 1_000, 3_000, 10_000)
"""Unregularized steps after which the flows are scored."""

LEARNING_RATE = 1e-3
"""Of unregularized training."""

N_WEIGHT_DRAWS = 1_000
"""Draws for the weights, as many as the paper trains on."""

FLOWS: dict[str, NeuralFlowConfig] = {"maf": MAF(), "realnvp": RealNVP()}
"""Flows that are trained without regularization."""


def cells(size: Size) -> list[Row]:
    return size.grid(
        target=size.choose(list(CANONICAL), ["bimodal"], ["bimodal"]),
        n=size.choose(1_000, 500, 100),
        most=size.choose(STEPS[-1], 1_000, 100),
    )


def run(cell: Row, folder: Path) -> list[Row]:
    target, n, seed = exact_target(cell["target"]), cell["n"], cell["seed"]
    ensembles = Pool.load_or_fit(target, n, seed, folder, n_test=cell["n_test"])
    single = Pool.load_or_fit(target, n, seed, folder, folds=1, n_test=cell["n_test"])
    log_p, log_q = single.test_log_densities
    weight_draws = target.sample(N_WEIGHT_DRAWS, generator_for(seed, "fresh draws for weights"))
    at_weight_draws = log_densities(single.mixture.experts, weight_draws)
    early = "early stopping, "
    log_q_ensembles = ensembles.test_log_densities[1]
    rows = _score(f"{early}ensembles", 0, ensembles.heldout, log_p, log_q_ensembles)
    rows += _score(f"{early}single", 0, at_weight_draws, log_p, log_q)

    at = [s for s in STEPS if s <= cell["most"]]
    paths = {
        name: _unregularized_path(single, config, name, at, (weight_draws, single.points))
        for name, config in FLOWS.items()
    }
    rbig = TRIO.index("rbig")  # it has an early stop of its own, and keeps it
    for steps in at:
        columns = [paths["maf"][steps], paths["realnvp"][steps],
                   (at_weight_draws[:, rbig], log_q[:, rbig])]  # fmt: skip
        matrix, log_q_at = (
            torch.nan_to_num(torch.stack(part, dim=1), nan=-torch.inf)
            for part in zip(*columns, strict=True)
        )
        rows += _score("unregularized", steps, matrix, log_p, log_q_at)
    return rows


def _unregularized_path(
    pool: Pool, config: NeuralFlowConfig, name: str, at: Sequence[int],
    points: tuple[Tensor, Tensor],
) -> dict[int, tuple[Tensor, Tensor]]:  # fmt: skip
    """Log densities of a flow trained on all draws of a pool, by steps, at two sets of points."""
    draws = pool.split.draws
    folds = Folds.holdout(draws, draws[:1])  # nothing is held out, so all draws are trained on
    generator = generator_for(pool.seed, "unregularised", name)
    snapshots = train_snapshots(config, folds, at, learning_rate=LEARNING_RATE, generator=generator)
    return {
        steps: (flow.log_prob(points[0]), flow.log_prob(points[1])) for steps, flow in snapshots
    }


def _score(regime: str, steps: int, matrix: Tensor, log_p: Tensor, log_q: Tensor) -> list[Row]:
    """Score every expert of the trio, and mixtures by two rules.

    Args:
        matrix: log densities (m, 3) that the weights rest on, nats.
        log_p: log densities of the target (n,) at fresh draws, nats.
        log_q: log densities of the experts (n, 3) at fresh draws, nats.
    """
    kl = {name: kl_divergence(log_p, log_q[:, [k]], [1.0]) for k, name in enumerate(TRIO)}
    for rule in ("ema", "batch-mean"):
        weights = fit_weights(matrix, rule).weights
        kl[f"mixture, {rule}"] = kl_divergence(log_p, log_q, weights)
    return [{"regime": regime, "steps": steps, "method": m, "kl": value} for m, value in kl.items()]


def report(rows: list[Row]) -> Report:
    last = max(row["steps"] for row in rows)
    ends = [
        row | {"regime": f"{last:,} unregularized steps" if row["steps"] else row["regime"]}
        for row in rows
        if row["steps"] in (0, last)
    ]
    path = [row for row in rows if row["regime"] == "unregularized"]
    body = ["## The three ways of training", "", "Exact KL(p‖q), nats:", ""]
    body += pivot(ends, ("target", "regime"), "method", "kl", ".3f")
    body += ["", "## As unregularized training goes on", "",
             "Means over targets and seeds, nats:", "",
             *pivot(path, "method", "steps", "kl", ".3f"), "",
             "## What mixing gains over the best single expert", "",
             "By EMA of responsibilities, nats:", "", *_gains(ends), ""]  # fmt: skip
    return Report(
        brief=_brief(ends, last), answer=_answer(ends, last), body=body, figure=_figure(rows)
    )


def _gain(rows: list[Row], regime: str, over: Sequence[str] = TRIO, **where: str) -> np.ndarray:
    """KL of the best of some experts less that of the mixture per run, nats."""
    single = np.min([values(rows, "kl", regime=regime, method=m, **where) for m in over], axis=0)
    mixed = values(rows, "kl", regime=regime, method="mixture, ema", **where)
    return np.asarray(single - mixed)


def _gains(rows: list[Row]) -> list[str]:
    long = [
        {"target": target, "regime": regime, "gain": float(gain)}
        for target in distinct(rows, "target")
        for regime in distinct(rows, "regime")
        for gain in _gain(rows, regime, target=target)
    ]
    return pivot(long, "target", "regime", "gain")


def _mean_gains(rows: list[Row]) -> list[float]:
    """What mixing gains over the best single expert, nats, by regime in order."""
    targets = distinct(rows, "target")
    return [
        float(np.mean([_gain(rows, regime, target=target).mean() for target in targets]))
        for regime in distinct(rows, "regime")
    ]


def _brief(rows: list[Row], last: int) -> str:
    _, single, without = _mean_gains(rows)
    return (
        f"{(without - single) / without:.0%} of it: after {last:,} unregularized steps mixing "
        f"gains {without:.3f} nats over the best single expert, with early stopping {single:.3f}."
    )


def _answer(rows: list[Row], last: int) -> str:
    ensembles, *_ = _mean_gains(rows)
    flows = [
        float(np.median(_gain(rows, regime, tuple(FLOWS)))) for regime in distinct(rows, "regime")
    ]
    mixed = {
        regime: mean_se(values(rows, "kl", regime=regime, method="mixture, ema"))[0]
        for regime in distinct(rows, "regime")
    }
    return (
        f"Means over targets and seeds. Where experts are ensembles, mixing gains {ensembles:.3f} "
        f"nats. Over the better of the two flows, without RBIG, the median gain is {flows[2]:.3f} "
        f"without regularization, {flows[1]:.3f} with early stopping and {flows[0]:.3f} for "
        "ensembles. The mixture itself has a mean KL of "
        + ", ".join(f"{kl:.3f} ({regime})" for regime, kl in mixed.items())
        + "."
    )


def _figure(rows: list[Row]) -> Figure:
    methods, colors = (*TRIO, "mixture, ema"), MIXTURE_LAST
    path = [row for row in rows if row["regime"] == "unregularized"]
    figure = lines_by_target(path, "steps", "method", methods, colors)
    stopped = {"regime": "early stopping, single"}
    for ax in figure.axes:
        if not ax.get_title():
            continue
        for method, color in zip(methods, colors, strict=True):
            kl = values(rows, "kl", target=ax.get_title(), method=method, **stopped)
            ax.axhline(kl.mean(), color=color, ls=":", lw=1)
    figure.supxlabel("unregularized full-batch steps (dotted: with early stopping)", fontsize=9)
    return figure


STUDY = Study(
    name="early_stopping",
    question="How much of the paper's gain is rescue from overfitting?",
    method=(
        "1,000 draws. “Unregularized” is what the paper describes: one MAF and one RealNVP, "
        "full-batch Adam (rate 0.001, which the paper does not give) on all draws, no early "
        "stopping; RBIG keeps its own stop. “Single” trains the same flows on 80% of the draws "
        "and stops by the rest; “ensembles” is the default of this package. Weights rest on 1,000 "
        "fresh draws, for ensembles on held-out ones. KL on 50,000 other fresh draws."
    ),
    cells=cells,
    run=run,
    report=report,
)
