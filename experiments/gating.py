"""Is there anything to be had from weights that depend on the point?

python experiments/gating.py [--seeds 5] [--quick]
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from amfvi.targets import CANONICAL, Target, get
from matplotlib.figure import Figure
from pictures import dots_by_target
from pool import Pool, divergence
from study import Report, Row, Size, Study, apart, command, entry, mean_se, pivot, values
from torch import Tensor, nn

from amfvi.mixture import log_densities
from amfvi.randomness import stream
from amfvi.stage_two import fit_weights

HIDDEN = 16
STEPS = 600
RATE = 1e-2
GRID = 220  # cells a side
TOLD = "gated, as if it were a density"
MARGIN = 0.35  # of the draws' range, on each side


def cells(size: Size) -> list[Row]:
    return size.grid(
        target=size.of(list(CANONICAL), ["rings"], ["banana"]),
        n=size.of(10_000, 1_000, 200),
        steps=size.of(STEPS, 100, 20),
    )


def run(cell: Row, store: Path) -> list[Row]:
    pool = Pool.of(get(cell["target"]), cell["n"], cell["seed"], store, tested=cell["tested"])
    log_p, log_q = pool.fresh
    folds = pool.split.folds
    draws, heldout = folds.draws[folds.is_heldout], pool.heldout
    grid, log_area = _grid(pool.target, draws)
    on_grid = log_densities(pool.mixture.experts, grid)
    covered = float((pool.mixture.log_prob(grid) + log_area).exp().sum())
    global_kl = divergence(log_p, log_q, fit_weights(heldout).weights)
    rows = [{"weights": "global", "kl": global_kl, "log_z": 0.0, "covered": covered}]

    # Half of the held-out draws to fit a gate, half to choose when to stop.
    halves = torch.arange(len(draws)) % 2 == 0
    scale = draws.mean(dim=0), draws.std(dim=0)
    for name, normalised in (("gated, not normalised", False), ("gated, normalised", True)):
        gate = _fitted_gate(
            draws, heldout, halves, grid, on_grid, log_area, scale, normalised=normalised,
            steps=cell["steps"], generator=stream(cell["seed"], "gate"),
        )  # fmt: skip
        with torch.no_grad():
            log_z = float(torch.logsumexp(_gated(gate, grid, on_grid, scale), 0) + log_area)
            value = float((log_p - _gated(gate, pool.points, log_q, scale)).mean())
        rows.append({"weights": name, "kl": value + log_z, "log_z": log_z,
                     "as if": value, "covered": covered})  # fmt: skip
    return rows


def _grid(target: Target, draws: Tensor) -> tuple[Tensor, float]:
    """Centres of cells (GRID², 2) that hold nearly all mass, and the log of a cell's area."""
    low, high = draws.min(dim=0).values, draws.max(dim=0).values
    low, high = low - MARGIN * (high - low), high + MARGIN * (high - low)
    step = (high - low) / GRID
    axes = [low[k] + step[k] * (torch.arange(GRID) + 0.5) for k in range(2)]
    return torch.cartesian_prod(*axes).double(), float(step.log().sum())


def _gate(experts: int, generator: torch.Generator) -> nn.Module:
    gate = nn.Sequential(
        nn.Linear(2, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh(),
        nn.Linear(HIDDEN, experts),
    ).double()  # fmt: skip
    with torch.no_grad():
        for parameter in gate.parameters():
            scale = 0.3 if parameter.ndim > 1 else 0.0
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return gate


def _gated(gate: nn.Module, x: Tensor, log_q: Tensor, scale: tuple[Tensor, Tensor]) -> Tensor:
    """log Σwₖ(x)qₖ(x), which is the log of no density."""
    log_w = gate((x - scale[0]) / scale[1]).log_softmax(dim=1)
    return torch.logsumexp(log_w + log_q, dim=1)


def _fitted_gate(
    draws: Tensor, log_q: Tensor, first: Tensor, grid: Tensor, on_grid: Tensor,
    log_area: float, scale: tuple[Tensor, Tensor], *, normalised: bool, steps: int,
    generator: torch.Generator,
) -> nn.Module:  # fmt: skip
    """By maximum likelihood on the draws of ``first``, stopped by the others.

    With ``normalised`` the likelihood is that of the density after division by its
    integral over the grid.
    """
    gate = _gate(log_q.shape[1], generator)
    adam = torch.optim.Adam(gate.parameters(), lr=RATE)
    best, state = torch.inf, {k: v.clone() for k, v in gate.state_dict().items()}

    def loss(chosen: Tensor, log_z: Tensor | float) -> Tensor:
        return log_z - _gated(gate, draws[chosen], log_q[chosen], scale).mean()

    for step in range(steps + 1):
        log_z: Tensor | float = 0.0
        if normalised:
            log_z = torch.logsumexp(_gated(gate, grid, on_grid, scale), dim=0) + log_area
        if step % 10 == 0:
            with torch.no_grad():
                score = float(loss(~first, log_z))
            if score < best:
                best, state = score, {k: v.clone() for k, v in gate.state_dict().items()}
        adam.zero_grad()
        loss(first, log_z).backward()
        adam.step()
    gate.load_state_dict(state)
    return gate


def report(rows: list[Row]) -> Report:
    gated = [row for row in rows if row["weights"] != "global"]
    body = [
        "## Why Σwₖ(x)qₖ(x) is no density", "",
        "Each qₖ integrates to one, and so does Σwₖqₖ for constant weights that sum to one. With "
        "weights that depend on the point the integral is Σ∫wₖ(x)qₖ(x)dx, which is whatever the "
        "gate makes it: a gate that follows, at every point, the expert that is highest there "
        "makes it ∫maxₖqₖ, which exceeds one as soon as two experts differ. Its negative "
        "log-likelihood can then fall below the entropy of the truth, and means nothing. Divided "
        "by its integral it is a density, at the price of computing that integral, which is easy "
        "in two dimensions and hopeless in many.", "",
        "## What it brings", "",
        "Exact KL(p‖q) after division by the integral, nats:", "",
        *pivot(rows, "target", "weights", "kl"), "",
        "Logarithm of the integral (0 for a density):", "",
        *pivot(gated, "target", "weights", "log_z"), "",
        "What a reader would be told who takes it for a density, “KL” in nats:", "",
        *pivot(gated, "target", "weights", "as if"), "",
        "Smallest share of the global mixture's mass that lies on the grid of the integral: "
        f"{values(rows, 'covered').min():.5f}.", "",
    ]  # fmt: skip
    return Report(_brief(rows), _answer(rows), body, _figure(rows))


def _gain(rows: list[Row], target: str) -> np.ndarray:
    """KL of global weights less that of normalised gating, of each seed, nats."""
    return values(rows, "kl", target=target, weights="global") - values(
        rows, "kl", target=target, weights="gated, normalised"
    )


def _brief(rows: list[Row]) -> str:
    won, lost = apart({t: _gain(rows, t) for t in dict.fromkeys(row["target"] for row in rows)})
    return (
        f"{'No' if not won else 'Little' if len(won) < 3 else 'Yes'}: divided by their integral, "
        f"such weights are nearer than global ones by more than two standard errors on {len(won)} "
        f"targets and further on {len(lost)}; not divided, they are no density."
    )


def _answer(rows: list[Row]) -> str:
    targets = list(dict.fromkeys(row["target"] for row in rows))
    parts = [f"{target} {entry(1e3 * _gain(rows, target), '+.2f')}" for target in targets]
    told = mean_se(
        values(rows, "as if", weights="gated, not normalised")
        - values(rows, "kl", weights="gated, not normalised")
    )[0]
    return (
        "The gain of normalised gating, in thousandths of a nat: "
        + ", ".join(parts)
        + f". Without normalisation a reader would be told {-told:.4f} nats better than the truth, "
        "on average, whatever the fit."
    )


def _figure(rows: list[Row]) -> Figure:
    told = [row | {"weights": TOLD, "kl": row["as if"]} for row in rows
            if row["weights"] == "gated, not normalised"]  # fmt: skip
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    ax = figure.subplots()
    dots_by_target(ax, rows + told, "weights", ("global", "gated, normalised", TOLD))
    ax.axhline(0, color="0.6", lw=1)
    ax.set_yscale("symlog", linthresh=1e-2)
    ax.legend(fontsize=8, frameon=False)
    return figure


STUDY = Study(
    name="gating",
    question="Is there anything to be had from weights that depend on the point?",
    method=(
        "The fits are those of `table2` at 10,000 draws. A gate is a network of two hidden layers "
        "of 16, fitted by likelihood to half of the held-out densities and stopped by the other "
        "half; global weights rest on all of them. Integrals are sums over a grid of 220 × 220 "
        "cells. KL on 50,000 fresh exact draws."
    ),
    cells=cells,
    run=run,
    report=report,
)

if __name__ == "__main__":
    command(STUDY)
