"""How does accuracy grow with the number of draws?"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from amfvi.targets import CANONICAL
from experiments.lab.peers import PEERS
from experiments.lab.pictures import MIXTURE_LAST, PALETTE, lines_by_target
from experiments.lab.pool import TRIO, kl_divergence, trio_pool
from experiments.lab.study import Report, Size, Study
from experiments.lab.tables import Row, distinct, markdown_table, pivot, values

DRAWS = (200, 1_000, 10_000, 100_000)
"""Numbers of draws that are fitted to."""

PEER = "gmm (scikit-learn)"
"""The density estimator of another library."""

METHODS = (*TRIO, "mixture", PEER)


def cells(size: Size) -> list[Row]:
    return size.grid(
        target=size.choose(list(CANONICAL), ["two_moons"], ["banana"]),
        n=size.choose(DRAWS, (200, 1_000), (200, 400)),
    )


def run(cell: Row, folder: Path) -> list[Row]:
    pool = trio_pool(cell, folder)
    log_p, log_q = pool.test_log_densities
    kl = {name: kl_divergence(log_p, log_q[:, [k]], [1.0]) for k, name in enumerate(pool.names)}
    kl["mixture"] = kl_divergence(log_p, log_q, pool.mixture.weights)
    peer = PEERS[PEER].fit(pool.split.draws.numpy(), cell["seed"])
    kl[PEER] = float(log_p.mean()) - float(np.mean(peer(pool.points.numpy())))
    return [{"method": method, "kl": value} for method, value in kl.items()]


def report(rows: list[Row]) -> Report:
    body = ["Exact KL(p‖q), nats:", ""]
    body += pivot(rows, ("target", "method"), "n", "kl")
    body += ["", "Exponents a of KL ∝ n^a, by least squares on logarithms over all runs:", "",
             *_exponents(rows), ""]  # fmt: skip
    return Report(brief=_brief(rows), answer=_answer(rows), body=body, figure=_figure(rows))


def _exponent(rows: list[Row], target: str, method: str) -> tuple[float, float]:
    """Slope of log KL against log n, and its standard error."""
    chosen = [row for row in rows if row["target"] == target and row["method"] == method]
    x = np.log([row["n"] for row in chosen])
    y = np.log([max(row["kl"], 1e-6) for row in chosen])
    if len(chosen) < 4:
        return float(np.polyfit(x, y, 1)[0]), float("nan")
    (slope, _), covariance = np.polyfit(x, y, 1, cov=True)
    return float(slope), float(np.sqrt(covariance[0, 0]))


def _exponents(rows: list[Row]) -> list[str]:
    """Tabulate the exponents of every target and method."""
    lines = []
    for target in distinct(rows, "target"):
        exponents = [_exponent(rows, target, method) for method in METHODS]
        lines.append([target, *(_format_exponent(slope, se) for slope, se in exponents)])
    return markdown_table(["target", *METHODS], lines)


def _format_exponent(slope: float, se: float) -> str:
    return f"{slope:+.2f}" if math.isnan(se) else f"{slope:+.2f} ± {se:.2f}"


def _mean_exponents(rows: list[Row]) -> dict[str, float]:
    targets = distinct(rows, "target")
    return {m: float(np.mean([_exponent(rows, t, m)[0] for t in targets])) for m in METHODS}


def _brief(rows: list[Row]) -> str:
    targets = distinct(rows, "target")
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
    """Factor by which mean KL falls between two numbers of draws."""
    targets = distinct(rows, "target")
    logs = [
        math.log(max(values(rows, "kl", target=t, n=n, method=method).mean(), 1e-6))
        for n in (before, after)
        for t in targets
    ]
    half = len(targets)
    return math.exp((sum(logs[:half]) - sum(logs[half:])) / half)


def _figure(rows: list[Row]) -> Figure:
    figure = lines_by_target(rows, "n", "method", METHODS, (*MIXTURE_LAST, PALETTE[4]))
    figure.supxlabel("draws", fontsize=9)
    return figure


STUDY = Study(
    name="budget",
    question="How does accuracy grow with the number of draws?",
    method=(
        "The default trio and scikit-learn's Gaussian mixture (number of components chosen on "
        "held-out draws, as in the benchmark `race`) on the same draws. KL on 50,000 fresh exact "
        "draws."
    ),
    cells=cells,
    run=run,
    report=report,
)
