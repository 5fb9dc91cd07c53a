"""Does a mixture density network find every branch of an inverse?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from amfvi.experts import MDN
from amfvi.targets.conditional import get
from experiments.lab.conditional_methods import OURS, fit_ours
from experiments.lab.conditional_peers import CardMDN, Ensemble
from experiments.lab.conditional_tasks import Task, read_task
from experiments.lab.pictures import PALETTE
from experiments.lab.study import Report, Size, Study
from experiments.lab.tables import Row, distinct, format_mean, markdown_table, pivot, values

COMPONENTS = (2, 5, 8)
"""Numbers of components K."""

CARD = "card-mdn"
"""One network of the card."""

OWN = "mdn"
"""This package's mixture density network alone: five members, over folds."""

N_CONDITIONS = 200
"""Conditions between the 2.5% and the 97.5% quantile of those of the target."""

N_NODES = 2_000
"""Points of y that masses are summed over."""

EDGE = 0.25
"""By how much their range exceeds that of the target's draws, as a share, if it is unbounded."""

NEEDED = 0.05
"""Exact mass from which a branch counts."""

KEPT = 0.1
"""Share of its exact mass below which a branch is lost."""

IN_USE = 0.05
"""Weight from which a component counts as in use."""

CLEAR = 0.95
"""Share of its mass that a component of a branch has there."""


def cells(size: Size) -> list[Row]:
    axes: dict[str, Any] = {
        "task": size.choose(["sinus", "saddle"], ["sinus"], ["sinus"]),
        "n": size.choose((50, 200, 1_000), (50, 200), 50),
        "steps": size.choose(1_500, 300, 50),
        "n_test": N_CONDITIONS,
    }
    networks = size.grid(
        method=size.choose([OWN, CARD], [OWN, CARD], [CARD]),
        k=size.choose(COMPONENTS, COMPONENTS, (2, 5)), **axes,
    )  # fmt: skip
    return networks if size.name == "tiny" else networks + size.grid(method=OURS, k=0, **axes)


def run(cell: Row, folder: Path) -> list[Row]:
    """Fit one method; count branches that it loses, and components by branch."""
    task = read_task(cell)
    places = _Places.of(task)
    exact = places.masses(lambda y, c: get(task.name).log_prob(y, given=c))
    counts = exact >= NEEDED
    several = counts.sum(dim=1) > 1
    row: Row = dict.fromkeys(("in_use", "clear", "shared"))
    density: Any
    if cell["method"] == CARD:
        density = Ensemble.fit(task, CardMDN, members=1, steps=cell["steps"], components=cell["k"])
        row |= _by_component(*_card_components(density, places), several)
    elif cell["method"] == OWN:
        density = fit_ours(task, [MDN(components=cell["k"])])
        row |= _by_component(*_own_components(density, places), several)
    else:
        density = fit_ours(task)
    found = places.masses(lambda y, c: density.log_prob(y, given=c))
    lost = counts & (found < KEPT * exact)
    error = (found - exact).abs().sum(dim=1) / 2
    return [{
        "lost": float(lost[several].double().sum() / counts[several].sum()),
        "conditions_with_loss": float(lost[several].any(dim=1).double().mean()),
        "mass_error": float(error[several].mean()),
        **row,
    }]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Places:
    """Conditions and points of one parameter, and the edges between branches.

    Attributes:
        given: (m, 1).
        y: (N_NODES,), of equal distances.
        edges: between branches, increasing, (m, 2); those that do not exist are infinite, and
            their branches have no mass.
    """

    given: Tensor
    y: Tensor
    edges: Tensor

    @classmethod
    def of(cls, task: Task) -> _Places:
        share = torch.linspace(0.025, 0.975, N_CONDITIONS).double()
        c, y = get(task.name).sample(20_000, torch.Generator().manual_seed(0))
        given = c[:, 0].quantile(share)
        if task.box is not None:
            low, high = (float(b) for b in task.box)
        else:
            margin = EDGE * float(y.max() - y.min())
            low, high = float(y.min()) - margin, float(y.max()) + margin
        nodes = low + (high - low) * (torch.arange(N_NODES).double() + 0.5) / N_NODES
        return cls(given=given[:, None], y=nodes, edges=EDGES[task.name](given))

    def masses(self, log_prob: Any) -> Tensor:
        """Mass of a density on every branch, (m, 3)."""
        m = len(self.given)
        points = self.y.repeat(m)[:, None]
        log_q = log_prob(points, self.given.repeat_interleave(N_NODES, dim=0))
        p = log_q.exp().view(m, N_NODES) * float(self.y[1] - self.y[0])
        branch = torch.searchsorted(self.edges.contiguous(), self.y.expand(m, -1).contiguous())
        return torch.zeros(m, 3).double().scatter_add(1, branch, p)


def _sinus_edges(c: Tensor) -> Tensor:
    """The curve y + 0.3 sin 2πy turns at two points: between, before and after lies a branch."""
    turn = math.acos(-1 / (0.6 * math.pi)) / (2 * math.pi)
    return torch.tensor([turn, 1 - turn]).double().expand(len(c), 2)


def _saddle_edges(c: Tensor) -> Tensor:
    """The unstable equilibrium, the middle root of c + x − x³, where there is one."""
    edges = torch.full((len(c), 2), math.inf).double()
    for row, value in enumerate(c.tolist()):
        roots = np.roots([-1.0, 0.0, 1.0, value])
        real = np.sort(roots[np.abs(roots.imag) < 1e-9].real)
        if len(real) == 3:
            edges[row, 0] = float(real[1])
    return edges


EDGES = {"sinus": _sinus_edges, "saddle": _saddle_edges}
"""Functions from conditions (m,) to the edges between branches, by target."""


def _card_components(density: Ensemble, places: _Places) -> tuple[Tensor, Tensor]:
    """Weights (m, K) of the one network's components, and their mass by branch (m, K, 3)."""
    mean, sd = density.moments
    network = density.networks[0]
    assert isinstance(network, CardMDN)
    with torch.no_grad():
        c = ((places.given - mean[:1]) / sd[:1]).float()
        log_weights, means, sds = (part.double() for part in network.components(c))
    edges = (_unconstrained(density.transform, places.edges) - mean[1]) / sd[1]
    return log_weights.exp(), _normal_masses(means[..., 0], sds[..., 0], edges)


def _own_components(density: Any, places: _Places) -> tuple[Tensor, Tensor]:
    """As :func:`_card_components`, of the first member of the package's network."""
    (expert,) = density.experts.values()
    edges = _unconstrained(density.transform, places.edges)
    parameters = {name: value.double() for name, value in expert.parameters.items()}
    members = expert.n_members

    def whitened(x: Tensor) -> Tensor:
        rows = torch.cat([places.given, x[:, None]], dim=1)
        return expert.whitening.forward(rows.expand(members, -1, -1))

    with torch.no_grad():
        z = torch.stack([whitened(edge.clamp(-1e6, 1e6))[0, 1] for edge in edges.T], dim=1)
        parts = expert.network.components(parameters, whitened(edges[:, 0].clamp(-1, 1))[:, :1])
    log_weights, means, log_diagonal = (
        part[0].T for part in (parts.log_weights, parts.means[:, :, 0], parts.log_diagonal[:, :, 0])
    )
    z = torch.where(edges.isinf(), edges, z)
    return log_weights.exp(), _normal_masses(means, (-log_diagonal).exp(), z)


def _unconstrained(transform: Any, edges: Tensor) -> Tensor:
    """Edges (m, 2) in unconstrained space; infinite ones stay."""
    finite = edges.where(edges.isfinite(), torch.tensor(0.5).double())
    moved = transform.to_unconstrained(finite.reshape(-1, 1))[0].view_as(edges)
    return moved.where(edges.isfinite(), edges)


def _normal_masses(means: Tensor, sds: Tensor, edges: Tensor) -> Tensor:
    """Mass between edges (m, 2) of normals (m, K): (m, K, 3)."""
    below = torch.special.ndtr((edges[:, None] - means[..., None]) / sds[..., None])
    ends = [torch.zeros_like(below[..., :1]), below, torch.ones_like(below[..., :1])]
    return torch.cat(ends, dim=2).diff(dim=2)


def _by_component(weights: Tensor, masses: Tensor, several: Tensor) -> Row:
    """How components are divided among branches, at conditions that have several.

    In use, on average; the share of the weight on those that lie clearly on one branch; and of
    the weight on each branch the share that one and the same component has at all conditions.
    """
    weights, masses = weights[several], masses[several]
    used = weights >= IN_USE
    clear = masses.max(dim=2).values >= CLEAR
    on_branch = (weights[..., None] * masses).sum(dim=0)  # (K, 3)
    by_branch = on_branch.sum(dim=0)
    return {
        "in_use": float(used.double().sum(dim=1).mean()),
        "clear": float((weights * clear).sum() / weights.sum()),
        "shared": float(on_branch.max(dim=0).values.sum() / by_branch.sum()),
    }


def report(rows: list[Row]) -> Report:
    shown = [row | {"fit": _label(row)} for row in rows]
    networks = [row for row in shown if row["method"] != OURS]
    body = [
        f"Lost branches: the share of branches with an exact mass of {NEEDED} or more, at "
        f"conditions that have several, that a fit gives less than a tenth of it:", "",
        *pivot(shown, ("task", "n"), "fit", "lost", ".3f"), "",
        "Half the sum of the differences of the branches' masses from the exact ones:", "",
        *pivot(shown, ("task", "n"), "fit", "mass_error", ".3f"), "",
        f"Components of a network (of one member): how many have a weight of {IN_USE} or more on "
        f"average over conditions, the share of weight on components that have {CLEAR:.0%} of "
        "their mass on one branch, and the share of a branch's mass that one and the same "
        "component has over all conditions; all at conditions that have several branches:", "",
        *_components(networks), "",
    ]  # fmt: skip
    return Report(brief=_brief(shown), answer=_answer(shown), body=body, figure=_figure(shown))


def _label(row: Row) -> str:
    return row["method"] if row["method"] == OURS else f"{row['method']}, K = {row['k']}"


def _components(rows: list[Row]) -> list[str]:
    lines = []
    for task in distinct(rows, "task"):
        for fit in distinct(rows, "fit"):
            entries = [
                format_mean(values(rows, key, task=task, fit=fit), ".2f")
                for key in ("in_use", "clear", "shared")
            ]
            if any(entries):
                lines.append([task, fit, *entries])
    return markdown_table(["task", "fit", "in use", "clearly on one", "the same"], lines)


def _brief(rows: list[Row]) -> str:
    lost = {fit: float(values(rows, "lost", fit=fit).mean()) for fit in distinct(rows, "fit")}
    parts = ", ".join(f"{share:.1%} ({fit})" for fit, share in lost.items())
    verdict = "Yes" if not any(lost.values()) else "Not always"
    return f"{verdict}: of the branches that matter it loses {parts}."


def _answer(rows: list[Row]) -> str:
    worst = max(rows, key=lambda row: row["lost"])
    return (
        f"The most is lost by {worst['fit']} on {worst['task']} with {worst['n']} pairs: "
        f"{worst['lost']:.1%}, at {worst['conditions_with_loss']:.1%} of the conditions."
    )


def _figure(rows: list[Row]) -> Figure:
    tasks, fits = distinct(rows, "task"), distinct(rows, "fit")
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots(1, len(tasks), squeeze=False)[0]
    numbers = sorted(distinct(rows, "n"))
    for ax, task in zip(axes, tasks, strict=True):
        for number, fit in enumerate(fits):
            means = [values(rows, "mass_error", task=task, n=n, fit=fit) for n in numbers]
            points = [(n, m.mean()) for n, m in zip(numbers, means, strict=True) if len(m)]
            color = PALETTE[number % len(PALETTE)]
            ax.plot(*zip(*points, strict=True), "-o", ms=3, color=color, label=fit)
        ax.set_title(task, fontsize=9)
        ax.set_xscale("log")
        ax.set_xlabel("pairs")
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("error of the branches' masses")
    axes[0].legend(fontsize=7, frameon=False)
    return figure


STUDY = Study(
    name="branches",
    question="Does a mixture density network find every branch of an inverse?",
    method=(
        "The branches of `sinus` lie between the two turns of its curve, those of `saddle` on the "
        "two sides of the unstable equilibrium. Masses are sums over 2,000 points of y at 200 "
        "conditions between the 2.5% and the 97.5% quantile. `mdn` is the package's network "
        "alone, five members over folds; `card-mdn` one network of arXiv:2602.00960 "
        "(see `conditional`); `ours` the whole mixture with its defaults."
    ),
    cells=cells,
    run=run,
    report=report,
)
