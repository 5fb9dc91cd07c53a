"""Is there anything to be had from weights that depend on the point?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from amfvi.experts.matrix import log_densities
from amfvi.mixture import Mixture
from amfvi.randomness import generator_for
from amfvi.targets import CANONICAL
from amfvi.two_stage.weights import fit_weights
from experiments.lab.pictures import dots_by_target
from experiments.lab.pool import kl_divergence, trio_pool
from experiments.lab.study import Report, Size, Study
from experiments.lab.tables import Row, distinct, format_mean, mean_se, pivot, significant, values

HIDDEN = 16
"""Units of each hidden layer of a gate."""

STEPS = 600
"""Most steps of training a gate."""

LEARNING_RATE = 1e-2
"""Of a gate."""

GRID = 220
"""Grid cells per side."""

MARGIN = 0.35
"""Share of the draws' range by which the grid is wider, per side."""

AS_IF = "gated, as if it were a density"
"""Label of gated weights whose integral is taken to be one."""


def cells(size: Size) -> list[Row]:
    return size.grid(
        target=size.choose(list(CANONICAL), ["rings"], ["banana"]),
        n=size.choose(10_000, 1_000, 200),
        steps=size.choose(STEPS, 100, 20),
    )


def run(cell: Row, folder: Path) -> list[Row]:
    pool = trio_pool(cell, folder)
    log_p, log_q = pool.test_log_densities
    folds = pool.split.folds
    draws, heldout = folds.draws[folds.is_heldout], pool.heldout
    grid = _Grid.around(draws, pool.mixture)
    covered = float((pool.mixture.log_prob(grid.points) + grid.log_area).exp().sum())
    global_kl = kl_divergence(log_p, log_q, fit_weights(heldout).weights)
    rows = [{"weights": "global", "kl": global_kl, "log_z": 0.0, "covered": covered}]
    for label, normalize in (("gated, not normalized", False), ("gated, normalized", True)):
        gate = _Gate(draws, len(pool.names), generator_for(cell["seed"], "gate"))
        _train(gate, draws, heldout, grid if normalize else None, cell["steps"])
        with torch.no_grad():
            log_z = float(grid.log_integral(gate))
            value = float((log_p - gate.log_mix(pool.points, log_q)).mean())
        rows.append({"weights": label, "kl": value + log_z, "log_z": log_z,
                     "as if": value, "covered": covered})  # fmt: skip
    return rows


class _Gate:
    """A network from a point (n, 2) to log weights of experts (n, K)."""

    def __init__(self, draws: Tensor, n_experts: int, generator: torch.Generator) -> None:
        self.network = nn.Sequential(
            nn.Linear(2, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh(),
            nn.Linear(HIDDEN, n_experts),
        ).double()  # fmt: skip
        self._mean, self._sd = draws.mean(dim=0), draws.std(dim=0)
        with torch.no_grad():
            for parameter in self.network.parameters():
                scale = 0.3 if parameter.ndim > 1 else 0.0
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))

    def log_mix(self, x: Tensor, log_q: Tensor) -> Tensor:
        """Compute log Σwₖ(x)qₖ(x), which is the log of no density; (n,)."""
        log_w = self.network((x - self._mean) / self._sd).log_softmax(dim=1)
        return torch.logsumexp(log_w + log_q, dim=1)


@dataclass(frozen=True, kw_only=True)
class _Grid:
    """Centers of grid cells that hold nearly all mass.

    Attributes:
        points: (GRID², 2).
        log_q: log densities of the experts there, (GRID², K), nats.
        log_area: log of the area of a grid cell.
    """

    points: Tensor
    log_q: Tensor
    log_area: float

    @classmethod
    def around(cls, draws: Tensor, mixture: Mixture) -> _Grid:
        """Cover the range of the draws (n, 2), and a margin."""
        low, high = draws.min(dim=0).values, draws.max(dim=0).values
        low, high = low - MARGIN * (high - low), high + MARGIN * (high - low)
        step = (high - low) / GRID
        axes = [low[k] + step[k] * (torch.arange(GRID) + 0.5) for k in range(2)]
        points = torch.cartesian_prod(*axes).double()
        log_q = log_densities(mixture.experts, points)
        return cls(points=points, log_q=log_q, log_area=float(step.log().sum()))

    def log_integral(self, gate: _Gate) -> Tensor:
        """Compute log ∫Σwₖ(x)qₖ(x)dx, nats."""
        return torch.logsumexp(gate.log_mix(self.points, self.log_q), dim=0) + self.log_area


def _train(gate: _Gate, draws: Tensor, log_q: Tensor, grid: _Grid | None, steps: int) -> None:
    """Train a gate by likelihood on half of the draws, stopped by the other half.

    With a grid the likelihood is that of the density after division by its integral.
    """
    first_half = torch.arange(len(draws)) % 2 == 0
    network = gate.network
    adam = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    best, state = torch.inf, {k: v.clone() for k, v in network.state_dict().items()}

    def loss(chosen: Tensor, log_z: Tensor | float) -> Tensor:
        return log_z - gate.log_mix(draws[chosen], log_q[chosen]).mean()

    for step in range(steps + 1):
        log_z = 0.0 if grid is None else grid.log_integral(gate)
        if step % 10 == 0:
            with torch.no_grad():
                score = float(loss(~first_half, log_z))
            if score < best:
                best, state = score, {k: v.clone() for k, v in network.state_dict().items()}
        adam.zero_grad()
        loss(first_half, log_z).backward()
        adam.step()
    network.load_state_dict(state)


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
        "“KL” if it is taken for a density, nats:", "",
        *pivot(gated, "target", "weights", "as if"), "",
        "Smallest share of the global mixture's mass that lies on the grid of the integral: "
        f"{values(rows, 'covered').min():.5f}.", "",
    ]  # fmt: skip
    return Report(brief=_brief(rows), answer=_answer(rows), body=body, figure=_figure(rows))


def _gain(rows: list[Row], target: str) -> np.ndarray:
    """KL of global weights less that of normalized gating per seed, nats."""
    return values(rows, "kl", target=target, weights="global") - values(
        rows, "kl", target=target, weights="gated, normalized"
    )


def _brief(rows: list[Row]) -> str:
    won, lost = significant({t: _gain(rows, t) for t in distinct(rows, "target")})
    return (
        f"{'No' if not won else 'Little' if len(won) < 3 else 'Yes'}: divided by their integral, "
        f"such weights are nearer than global ones by more than two standard errors on {len(won)} "
        f"targets and further on {len(lost)}; not divided, they are no density."
    )


def _answer(rows: list[Row]) -> str:
    targets = distinct(rows, "target")
    parts = [f"{target} {format_mean(1e3 * _gain(rows, target), '+.2f')}" for target in targets]
    bias = mean_se(
        values(rows, "as if", weights="gated, not normalized")
        - values(rows, "kl", weights="gated, not normalized")
    )[0]
    return (
        "The gain of normalized gating, in thousandths of a nat: "
        + ", ".join(parts)
        + f". Taken for densities without normalization they would seem {-bias:.4f} nats better "
        "than they are, on average."
    )


def _figure(rows: list[Row]) -> Figure:
    as_if = [row | {"weights": AS_IF, "kl": row["as if"]} for row in rows
            if row["weights"] == "gated, not normalized"]  # fmt: skip
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    ax = figure.subplots()
    dots_by_target(ax, rows + as_if, "weights", ("global", "gated, normalized", AS_IF))
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
