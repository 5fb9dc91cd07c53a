"""What does each further expert buy?

The continuous-time flow needs the extra ``bench`` (torchdiffeq).
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from amfvi.experts import ExpertConfig
from amfvi.two_stage.weights import fit_weights
from experiments.lab.pictures import dots_by_target
from experiments.lab.pool import TRIO, Pool, kl_divergence
from experiments.lab.study import Report, Size, Study
from experiments.lab.tables import Row, distinct, pivot, values
from experiments.lab.targets import NAMES, exact_target

ADDED = ("nsf", "gmm", "tmm", "cnf")
"""Experts that are added to the trio; the last is a continuous-time flow."""


def cells(size: Size) -> list[Row]:
    added = [name for name in ADDED if name != "cnf" or find_spec("torchdiffeq")]
    return size.grid(
        target=size.choose(list(NAMES), ["rings"], ["banana"]),
        n=size.choose(10_000, 1_000, 200),
        cnf_steps=size.choose(4_000, 500, 50),
        added="+".join(added),
        n_test=size.choose(20_000, 10_000, 2_000),
    )


def run(cell: Row, folder: Path) -> list[Row]:
    added = cell["added"].split("+")
    pools = {name: _pool(name, cell, folder) for name in ("trio", *added)}
    names = [name for pool in pools.values() for name in pool.names]
    heldout = torch.cat([pool.heldout for pool in pools.values()], dim=1)
    log_p = pools["trio"].test_log_densities[0]
    log_q = torch.cat([pool.test_log_densities[1] for pool in pools.values()], dim=1)

    def score(label: str, members: tuple[str, ...]) -> Row:
        columns = [names.index(member) for member in members]
        weights = fit_weights(heldout[:, columns]).weights
        last = members[-1]
        return {
            "set": label, "kl": kl_divergence(log_p, log_q[:, columns], weights),
            "weight": float(weights[-1]), "seconds": pools[last].seconds if last in added else None,
        }  # fmt: skip

    rows = [score(f"{name} alone", (name,)) for name in names]
    rows.append(score("trio", TRIO))
    rows += [score(f"trio + {name}", (*TRIO, name)) for name in added]
    rows.append(score("all", tuple(names)))
    return rows


def _pool(name: str, cell: Row, folder: Path) -> Pool:
    """The trio, or one expert, fitted to the draws of a cell."""
    experts: tuple[str | ExpertConfig, ...] = TRIO if name == "trio" else (name,)
    label = None
    if name == "cnf":
        from experiments.lab.continuous import CNF

        experts = (CNF(steps=cell["cnf_steps"]),)
        label = f"cnf{cell['cnf_steps']}"
    return Pool.load_or_fit(
        exact_target(cell["target"]),
        cell["n"],
        cell["seed"],
        folder,
        experts=experts,
        label=label,
        n_test=cell["n_test"],
    )


def report(rows: list[Row]) -> Report:
    together = [row for row in rows if not row["set"].endswith("alone")]
    alone = [row | {"set": row["set"].removesuffix(" alone")} for row in rows
             if row["set"].endswith("alone")]  # fmt: skip
    added = [row for row in rows if row["set"].startswith("trio + ")]
    timed = [row for row in added if row["seconds"]]
    body = [
        "## Joined", "", "Exact KL(p‖q), nats:", "", *pivot(together, "target", "set", "kl"), "",
        "Weight of the expert that was added:", "",
        *pivot(added, "target", "set", "weight", ".2f"), "",
        "Seconds to fit the expert that was added:", "",
        *pivot(timed, "target", "set", "seconds", ".1f"), "",
        "## Alone", "", "Exact KL(p‖q), nats:", "", *pivot(alone, "target", "set", "kl"), "",
    ]  # fmt: skip
    return Report(brief=_brief(rows), answer=_answer(rows), body=body, figure=_figure(rows))


def _sets_of_four(rows: list[Row]) -> list[str]:
    """Names of the sets of the trio and one more."""
    return [s for s in dict.fromkeys(row["set"] for row in rows) if s.startswith("trio + ")]


def _brief(rows: list[Row]) -> str:
    trio = values(rows, "kl", set="trio")

    def ratio(name: str) -> float:
        return float(np.exp(np.log(values(rows, "kl", set=name) / trio).mean()))

    parts = [f"{name.removeprefix('trio + ')} {ratio(name):.2f}" for name in _sets_of_four(rows)]
    return (
        "KL as a multiple of the trio's once one more is added, geometric means: "
        + ", ".join(parts)
        + f"; all of them {ratio('all'):.2f}."
    )


def _answer(rows: list[Row]) -> str:
    worst = {
        name: max(
            (
                float(np.mean(values(rows, "kl", set=name, target=t)
                              - values(rows, "kl", set="trio", target=t))), t
            )
            for t in distinct(rows, "target")
        )
        for name in _sets_of_four(rows)
    }  # fmt: skip
    harm = ", ".join(f"{n.removeprefix('trio + ')} {1e3 * v:+.2f} on {t}"
                     for n, (v, t) in worst.items())  # fmt: skip
    return f"The worst that an addition did to any target, in thousandths of a nat: {harm}."


def _figure(rows: list[Row]) -> Figure:
    sets = [s for s in dict.fromkeys(row["set"] for row in rows) if not s.endswith("alone")]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    ax = figure.subplots()
    dots_by_target(ax, rows, "set", sets)
    ax.legend(fontsize=8, frameon=False, ncols=3)
    return figure


STUDY = Study(
    name="experts",
    question="What does each further expert buy?",
    method=(
        "10,000 draws of the six canonical targets and of four harder ones. Spline flow, Gaussian "
        "and Student-t mixtures are the package's; the continuous-time flow is fitted by flow "
        "matching for 4,000 steps and integrated by torchdiffeq. All sets are weighted by the "
        "default rule on the same held-out draws. KL on 20,000 fresh exact draws."
    ),
    cells=cells,
    run=run,
    report=report,
)
