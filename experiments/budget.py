"""How does accuracy grow with the number of draws?

python experiments/budget.py [--seeds 5] [--quick]
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from amfvi.targets import CANONICAL, get
from matplotlib.figure import Figure
from peers import PEERS
from pictures import lines_by_target
from pool import TRIO, Pool, divergence
from study import PALETTE, Report, Row, Size, Study, command, pivot, values

DRAWS = (200, 1_000, 10_000, 100_000)
PEER = "gmm (scikit-learn)"
METHODS = (*TRIO, "mixture", PEER)


def cells(size: Size) -> list[Row]:
    return size.grid(
        target=size.of(list(CANONICAL), ["two_moons"], ["banana"]),
        n=size.of(DRAWS, (200, 1_000), (200, 400)),
    )


def run(cell: Row, store: Path) -> list[Row]:
    pool = Pool.of(get(cell["target"]), cell["n"], cell["seed"], store, tested=cell["tested"])
    log_p, log_q = pool.fresh
    kl = {name: divergence(log_p, log_q[:, [k]], [1.0]) for k, name in enumerate(pool.names)}
    kl["mixture"] = divergence(log_p, log_q, pool.mixture.weights)
    fit, _ = PEERS[PEER]
    peer = fit(pool.split.draws.numpy(), cell["seed"])
    kl[PEER] = float(log_p.mean() - np.mean(peer(pool.points.numpy())))
    return [{"method": method, "kl": value} for method, value in kl.items()]


def report(rows: list[Row]) -> Report:
    body = ["Exact KL(p‖q), nats:", ""]
    body += pivot(rows, ("target", "method"), "n", "kl")
    body += ["", "Exponents a of KL ∝ n^a, by least squares on logarithms over all runs:", "",
             *_exponents(rows), ""]  # fmt: skip
    return Report(_brief(rows), _answer(rows), body, _figure(rows))


def _exponent(rows: list[Row], target: str, method: str) -> tuple[float, float]:
    """The slope and its standard error."""
    of = [row for row in rows if row["target"] == target and row["method"] == method]
    x = np.log([row["n"] for row in of])
    y = np.log([max(row["kl"], 1e-6) for row in of])
    if len(of) < 4:
        return float(np.polyfit(x, y, 1)[0]), float("nan")
    (slope, _), covariance = np.polyfit(x, y, 1, cov=True)
    return float(slope), float(np.sqrt(covariance[0, 0]))


def _exponents(rows: list[Row]) -> list[str]:
    targets = list(dict.fromkeys(row["target"] for row in rows))
    lines = ["| target | " + " | ".join(METHODS) + " |", "|---" * (len(METHODS) + 1) + "|"]
    for target in targets:
        found = [_exponent(rows, target, method) for method in METHODS]
        lines.append(
            f"| {target} | " + " | ".join(f"{a:+.2f} ± {se:.2f}" for a, se in found) + " |"
        )
    return lines


def _mean_exponents(rows: list[Row]) -> dict[str, float]:
    targets = list(dict.fromkeys(row["target"] for row in rows))
    return {m: float(np.mean([_exponent(rows, t, m)[0] for t in targets])) for m in METHODS}


def _brief(rows: list[Row]) -> str:
    targets = list(dict.fromkeys(row["target"] for row in rows))
    numbers = sorted({row["n"] for row in rows})
    mean = _mean_exponents(rows)
    ahead = {
        n: sum(
            values(rows, "kl", target=t, n=n, method="mixture").mean()
            < values(rows, "kl", target=t, n=n, method=PEER).mean()
            for t in targets
        )
        for n in numbers
    }
    return (
        f"The mixture's KL falls like n^{mean['mixture']:.2f}, that of scikit-learn's Gaussian "
        f"mixture like n^{mean[PEER]:.2f}; the trio's mixture is ahead on "
        + ", ".join(f"{won} of {len(targets)} targets at n = {n:,}" for n, won in ahead.items())
        + "."
    )


def _answer(rows: list[Row]) -> str:
    *_, before, last = sorted({row["n"] for row in rows})
    return (
        "Mean exponents over targets: "
        + ", ".join(f"{m} {a:+.2f}" for m, a in _mean_exponents(rows).items())
        + f". From {before:,} to {last:,} draws KL is divided by "
        + ", ".join(f"{_fall(rows, m, before, last):.1f} ({m})" for m in METHODS)
        + f", geometric means over targets, where n^-0.5 would give {(last / before) ** 0.5:.1f}."
    )


def _fall(rows: list[Row], method: str, before: int, after: int) -> float:
    """By how much mean KL is divided between two numbers of draws."""
    targets = list(dict.fromkeys(row["target"] for row in rows))
    logs = [
        math.log(max(values(rows, "kl", target=t, n=n, method=method).mean(), 1e-6))
        for n in (before, after)
        for t in targets
    ]
    half = len(targets)
    return math.exp((sum(logs[:half]) - sum(logs[half:])) / half)


def _figure(rows: list[Row]) -> Figure:
    figure = lines_by_target(
        rows, "n", "method", METHODS, PALETTE[1:4] + PALETTE[:1] + PALETTE[4:5]
    )
    figure.supxlabel("draws", fontsize=9)
    return figure


STUDY = Study(
    name="budget",
    question="How does accuracy grow with the number of draws?",
    method=(
        "The default trio and scikit-learn's Gaussian mixture (number of components chosen on "
        "held-out draws, as in `race.py`) on the same draws. KL on 50,000 fresh exact draws."
    ),
    cells=cells,
    run=run,
    report=report,
)

if __name__ == "__main__":
    command(STUDY)
