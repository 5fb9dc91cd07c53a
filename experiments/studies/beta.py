"""What does the momentum β do?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from amfvi.randomness import generator_for
from amfvi.targets import CANONICAL
from amfvi.two_stage.weights import fit_weights
from experiments.lab.pictures import PALETTE
from experiments.lab.pool import kl_divergence, trio_pool
from experiments.lab.study import Report, Size, Study
from experiments.lab.tables import Row, mean_se, pivot, values

BETAS = (0.0, 0.5, 0.9, 0.99, 0.999)
"""Momenta."""

BATCHES: tuple[str | int, ...] = ("full", 1_000, 100)
"""Draws per step; "full" is the same draws in every step, as many as were fitted to."""

RULES = {"responsibilities": "em", "batch-mean": "batch-mean"}
"""Updates, each with the weight rule that finds its fixed point."""

STEPS = 3_000
"""Steps of every path."""

TOLERANCE = 1e-3
"""Nats from the KL of the fixed point within which a path has arrived."""

N_LAST = 1_000
"""Last steps, over which the oscillation is measured."""


def cells(size: Size) -> list[Row]:
    return size.grid(
        target=size.choose(list(CANONICAL), ["banana", "rings"], ["banana"]),
        n=size.choose(10_000, 1_000, 200),
    )


def run(cell: Row, folder: Path) -> list[Row]:
    pool = trio_pool(cell, folder)
    log_p, log_q = pool.test_log_densities
    generator = generator_for(cell["seed"], "batches")
    _, batches = pool.log_densities_at(pool.target.sample(2 * cell["n_test"], generator))
    rows = []
    noiseless: dict[tuple[str, float], np.ndarray] = {}  # of full batches, which come first
    for rule, weight_rule in RULES.items():
        for batch in BATCHES:
            draws = batches[: cell["n"]] if batch == "full" else batches
            batch_size = len(draws) if isinstance(batch, str) else batch
            fixed_point = fit_weights(draws, weight_rule).weights
            limit = kl_divergence(log_p, log_q, fixed_point)
            for beta in BETAS:
                path = _path(draws.numpy(), rule, beta, batch_size)
                kl = _kl_along(path, log_p.numpy(), log_q.numpy())
                away = np.abs(kl - limit) > TOLERANCE
                arrived = _first_step_after(away)
                last = path[-N_LAST:]
                noise = last - noiseless.setdefault((rule, beta), last)
                rows.append({
                    "rule": rule, "beta": beta, "batch": batch,
                    "steps": arrived if arrived < STEPS else float("inf"),
                    "oscillation": float(noise.std(axis=0).max()),
                    "n_eff": float(1 / np.square(last.mean(axis=0)).sum()),
                    "excess": 1e3 * (float(kl[-len(kl) // 3 :].mean()) - limit),
                    "kl_end": limit,
                })  # fmt: skip
    return rows


def _first_step_after(away: np.ndarray) -> int:
    """The step after the last checked one that is away; 0 if none is."""
    return int(_checked_steps()[np.flatnonzero(away)[-1]]) + 1 if away.any() else 0


def _path(log_q: np.ndarray, rule: str, beta: float, size: int) -> np.ndarray:
    """Weights after each step, (STEPS + 1, K), on consecutive batches."""
    ratios = np.exp(log_q - log_q.max(axis=1, keepdims=True))
    weights = np.full(log_q.shape[1], 1 / log_q.shape[1])
    path = [weights]
    for step in range(STEPS):
        first = (step * size) % (len(log_q) - size + 1)
        if rule == "batch-mean":
            mean = log_q[first : first + size].mean(axis=0)
            new = np.exp(mean - mean.max())
            new /= new.sum()
        else:
            part = ratios[first : first + size]
            new = weights * ((1 / (part @ weights)) @ part) / size
        weights = beta * weights + (1 - beta) * new
        path.append(weights)
    return np.array(path)


def _checked_steps() -> np.ndarray:
    """Steps at which the KL is computed, evenly on a logarithmic scale."""
    return np.unique(np.geomspace(1, STEPS, 120).round().astype(int))


def _kl_along(path: np.ndarray, log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """KL at the checked steps, nats."""
    top = log_q.max(axis=1, keepdims=True)
    ratios = np.exp(log_q - top)
    offset = float((log_p - top[:, 0]).mean())
    with np.errstate(divide="ignore"):
        return np.array([offset - np.log(ratios @ path[s]).mean() for s in _checked_steps()])


def report(rows: list[Row]) -> Report:
    body = []
    for rule in RULES:
        of_rule = [row for row in rows if row["rule"] == rule]
        body += [
            f"## {rule}", "",
            f"Steps until the KL stays within {TOLERANCE} nats of that of the rule's fixed point "
            f"on all draws (“∞”: in so many runs not within {STEPS:,} steps):", "",
            *pivot(of_rule, "batch", "beta", "steps", ".0f"), "",
            "Oscillation: largest standard deviation of a weight around its path with full "
            f"batches, over the last {N_LAST:,} steps:", "",
            *pivot(of_rule, "batch", "beta", "oscillation"), "",
            "KL in the last steps above that of the rule's fixed point, thousandths of a nat:", "",
            *pivot(of_rule, "batch", "beta", "excess", ".2f"), "",
            "Effective number of experts, mean of the last steps:", "",
            *pivot(of_rule, "batch", "beta", "n_eff", ".2f"), "",
        ]  # fmt: skip
    return Report(brief=_brief(rows), answer=_answer(rows), body=body, figure=_figure(rows))


def _steps(rows: list[Row], beta: float) -> str:
    """Steps of the median run by responsibilities with full batches."""
    x = values(rows, "steps", rule="responsibilities", batch="full", beta=beta)
    median = np.median(x)
    return f"{median:.0f}" if np.isfinite(median) else f"over {STEPS:,}"


def _oscillation(rows: list[Row], beta: float) -> str:
    """Mean oscillation by responsibilities with batches of 100."""
    x = values(rows, "oscillation", rule="responsibilities", batch=100, beta=beta)
    return f"{x.mean():.4f}"


def _brief(rows: list[Row]) -> str:
    return (
        f"With full batches it only slows the rule down ({_steps(rows, 0.9)} steps at β = 0.9, "
        f"{_steps(rows, 0.0)} at 0); with batches of 100 it calms the weights, which oscillate by "
        f"{_oscillation(rows, 0.9)} instead of {_oscillation(rows, 0.0)}."
    )


def _answer(rows: list[Row]) -> str:
    def steps(beta: float) -> str:
        x = values(rows, "steps", rule="responsibilities", batch="full", beta=beta)
        late = int((~np.isfinite(x)).sum())
        return f"{_steps(rows, beta)} at β = {beta:g}" + (
            f" ({late} of {len(x)} runs took longer)" * (late > 0)
        )

    ends = {rule: mean_se(values(rows, "kl_end", rule=rule))[0] for rule in RULES}
    return (
        "Steps are those that the median run takes to come within a thousandth of a nat: "
        + ", ".join(map(steps, (0.0, 0.9, 0.99)))
        + ". Oscillation is the largest standard deviation of a weight: "
        + ", ".join(f"{_oscillation(rows, beta)} at β = {beta:g}" for beta in (0.0, 0.9, 0.99))
        + ". No β repairs the printed rule, whose fixed point has a mean KL of "
        f"{ends['batch-mean']:.4f} nats against {ends['responsibilities']:.4f} for "
        "responsibilities."
    )


def _figure(rows: list[Row]) -> Figure:
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    x = np.arange(len(BETAS))
    for color, batch in zip(PALETTE, BATCHES, strict=False):
        for rule, style in zip(RULES, ("-", "--"), strict=True):
            steps = [
                np.median(values(rows, "steps", rule=rule, batch=batch, beta=b)) for b in BETAS
            ]
            oscillation = [
                values(rows, "oscillation", rule=rule, batch=batch, beta=b).mean() for b in BETAS
            ]
            label = f"{rule}, batch {batch}"
            finite = [min(s, STEPS) for s in steps]
            look: dict[str, Any] = {"marker": "o", "ms": 4, "color": color, "label": label}
            left.plot(x, np.maximum(finite, 0.8), style, **look)
            right.plot(x, np.maximum(oscillation, 1e-6), style, **look)
    left.set_ylabel("median steps to 0.001 nats", fontsize=9)
    right.set_ylabel("oscillation of a weight")
    for ax in (left, right):
        ax.set_yscale("log")
        ax.set_xticks(x, [f"{b:g}" for b in BETAS])
        ax.set_xlabel("β")
        ax.grid(alpha=0.3)
    left.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(0, 0.28))
    return figure


STUDY = Study(
    name="beta",
    question="What does the momentum β do?",
    method=(
        "The experts are those of `table2`; the two rules are run from uniform weights for 3,000 "
        "steps on batches of fresh draws (100,000 in turn; “full” is the same 10,000 in every "
        "step), as the paper does it. KL on other fresh draws."
    ),
    cells=cells,
    run=run,
    report=report,
)
