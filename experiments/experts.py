"""What does each further expert buy?

    python experiments/experts.py [--seeds 5] [--quick]

The continuous-time flow needs the extra ``bench`` (torchdiffeq).
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from amfvi.experts import ExpertConfig
from matplotlib.figure import Figure
from pictures import dots_by_target
from pool import TRIO, Pool, divergence
from shapes import NAMES, shape
from study import Report, Row, Size, Study, command, pivot, values

from amfvi.stage_two import fit_weights

ADDED = ("nsf", "gmm", "tmm", "cnf")


def cells(size: Size) -> list[Row]:
    added = [name for name in ADDED if name != "cnf" or find_spec("torchdiffeq")]
    return size.grid(
        target=size.of(list(NAMES), ["rings"], ["banana"]),
        n=size.of(10_000, 1_000, 200),
        cnf_steps=size.of(4_000, 500, 50),
        added="+".join(added),
        tested=size.of(20_000, 10_000, 2_000),
    )


def run(cell: Row, store: Path) -> list[Row]:
    added = cell["added"].split("+")
    target = shape(cell["target"])
    pools = [Pool.of(target, cell["n"], cell["seed"], store, tested=cell["tested"])]
    seconds = {}
    for name in added:
        configs: list[str | ExpertConfig] = [name]
        if name == "cnf":
            from continuous import CNF

            configs = [CNF(steps=cell["cnf_steps"])]
        label = f"{name}{cell['cnf_steps']}" if name == "cnf" else name
        pools.append(
            Pool.of(
                target, cell["n"], cell["seed"], store, configs, label=label, tested=cell["tested"]
            )
        )
        seconds[name] = pools[-1].seconds
    names = [name for pool in pools for name in pool.names]
    heldout = torch.cat([pool.heldout for pool in pools], dim=1)
    log_p = pools[0].fresh[0]
    log_q = torch.cat([pool.fresh[1] for pool in pools], dim=1)

    def scored(label: str, members: tuple[str, ...]) -> Row:
        columns = [names.index(member) for member in members]
        found = fit_weights(heldout[:, columns])
        return {
            "set": label, "kl": divergence(log_p, log_q[:, columns], found.weights),
            "weight": float(found.weights[-1]), "seconds": seconds.get(members[-1]),
        }  # fmt: skip

    rows = [scored(f"{name} alone", (name,)) for name in names]
    rows.append(scored("trio", TRIO))
    rows += [scored(f"trio + {name}", (*TRIO, name)) for name in added]
    rows.append(scored("all", tuple(names)))
    return rows


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
    return Report(_brief(rows), _answer(rows), body, _figure(rows))


def _joined(rows: list[Row]) -> list[str]:
    """Sets of the trio and one more."""
    return [s for s in dict.fromkeys(row["set"] for row in rows) if s.startswith("trio + ")]


def _brief(rows: list[Row]) -> str:
    trio = values(rows, "kl", set="trio")

    def ratio(name: str) -> float:
        return float(np.exp(np.log(values(rows, "kl", set=name) / trio).mean()))

    parts = [f"{name.removeprefix('trio + ')} {ratio(name):.2f}" for name in _joined(rows)]
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
            for t in dict.fromkeys(row["target"] for row in rows)
        )
        for name in _joined(rows)
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

if __name__ == "__main__":
    command(STUDY)
