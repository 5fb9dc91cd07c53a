"""How do accuracy and cost grow with the dimension?"""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch.distributions import MultivariateNormal

import amfvi
from amfvi.experts.matrix import log_densities
from amfvi.randomness import generator_for
from amfvi.targets import ExactTarget
from experiments.lab.cells import run_in_own_process
from experiments.lab.pictures import PALETTE
from experiments.lab.pool import TRIO, draw_test_points
from experiments.lab.study import Report, Size, Study
from experiments.lab.tables import Row, distinct, pivot, values
from experiments.lab.targets import SCALABLE

DIMENSIONS = (2, 5, 10, 20, 50, 100)
"""Numbers of parameters."""

GMM = "gmm"
"""The expert that is also fitted alone."""


def cells(size: Size) -> list[Row]:
    return size.grid(
        target=size.choose(list(SCALABLE), ["long_banana"], ["three_gaussians"]),
        dim=size.choose(DIMENSIONS, (2, 5), 3),
        n=size.choose(10_000, 1_000, 200),
        n_test=size.choose(20_000, 10_000, 2_000),
    )


def run(cell: Row, folder: Path) -> list[Row]:
    """Run in a process of its own, whose memory is then that of the fit."""
    return run_in_own_process(_fit_and_score, cell)


def _fit_and_score(cell: Row) -> list[Row]:
    """Fit the trio, the package's Gaussian mixture and one Gaussian to the same draws."""
    target = SCALABLE[cell["target"]](cell["dim"])
    x = draw_test_points(target, cell["n_test"], cell["seed"])
    log_p = target.log_prob(x)
    before = _peak_memory()
    posterior, seconds = _timed_fit(target, cell, TRIO)
    memory = _peak_memory() - before
    started = time.monotonic()
    log_q = posterior.log_prob(x.float())
    rate = len(log_q) / (time.monotonic() - started)
    of_experts = log_densities(posterior.experts, x)
    kl = {name: float((log_p - of_experts[:, k]).mean()) for k, name in enumerate(TRIO)}
    kl["mixture"] = float((log_p - posterior.mix(of_experts)).mean())
    gmm, seconds_gmm = _timed_fit(target, cell, (GMM,))
    kl[GMM] = float((log_p - gmm.log_prob(x)).mean())
    draws = target.sample(cell["n"], generator_for(cell["seed"], "draws"))
    gaussian = MultivariateNormal(draws.mean(dim=0), draws.T.cov())
    kl["one Gaussian"] = float((log_p - gaussian.log_prob(x)).mean())
    weights = dict(zip(posterior.experts, posterior.weights.tolist(), strict=True))
    assert posterior.summary is not None  # it is not a loaded one
    seconds_by_method = {name: r.seconds for name, r in posterior.summary.reports.items()}
    seconds_by_method |= {"mixture": seconds, GMM: seconds_gmm}
    return [
        {"method": name, "kl": value, "kl_per_dim": value / cell["dim"],
         "weight": weights.get(name), "seconds": seconds_by_method.get(name),
         "memory": memory if name == "mixture" else None,
         "rate": rate if name == "mixture" else None}
        for name, value in kl.items()
    ]  # fmt: skip


def _timed_fit(
    target: ExactTarget, cell: Row, experts: tuple[str, ...]
) -> tuple[amfvi.Posterior, float]:
    """Fit experts to draws of a target; also the seconds."""
    started = time.monotonic()
    posterior = amfvi.fit(target, n_draws=cell["n"], seed=cell["seed"], experts=experts)
    return posterior, time.monotonic() - started


def _peak_memory() -> float:
    """Most memory that this process and the one it fits in have held, MiB."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    helpers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return (own + helpers) / 1024


def report(rows: list[Row]) -> Report:
    mixtures = [row for row in rows if row["method"] == "mixture"]
    weighted = [row for row in rows if row["method"] in TRIO]
    timed = [row for row in rows if row["method"] in (*TRIO, "mixture", GMM)]
    body = ["Exact KL(p‖q) per dimension, nats:", ""]
    body += pivot(rows, ("target", "dim"), "method", "kl_per_dim")
    body += ["", "Weights of the trio:", "",
             *pivot(weighted, ("target", "dim"), "method", "weight", ".2f"), "",
             "Seconds: of the whole fit (mixture), of each expert while another is fitted beside "
             "it, and of the Gaussian mixture alone:", "",
             *pivot(timed, "dim", "method", "seconds", ".1f"), "",
             "Memory that the fit took on top of what was loaded, MiB:", "",
             *pivot(mixtures, "dim", "target", "memory", ".0f"), "",
             "Log densities per second of the mixture (ensembles of five), single precision; an "
             "expert of weight zero is left out, which matters most where that is RBIG:", "",
             *pivot(mixtures, "dim", "target", "rate", ",.0f"), ""]  # fmt: skip
    return Report(brief=_brief(rows), answer=_answer(rows), body=body, figure=_figure(rows))


def _slope(rows: list[Row], key: str, **where: Any) -> float:
    """Slope of log ``key`` against log dimension, from 5 dimensions up."""
    dims = [d for d in sorted({row["dim"] for row in rows}) if d >= 5]
    if len(dims) < 2:
        return float("nan")
    means = [values(rows, key, dim=d, **where).mean() for d in dims]
    return float(np.polyfit(np.log(dims), np.log(means), 1)[0])


def _per_dim(rows: list[Row], target: str, dim: int, method: str = "mixture") -> float:
    return float(values(rows, "kl_per_dim", target=target, dim=dim, method=method).mean())


def _brief(rows: list[Row]) -> str:
    least, most = min(row["dim"] for row in rows), max(row["dim"] for row in rows)
    slope = _slope(rows, "seconds", method="mixture")
    growth = "" if np.isnan(slope) else f", and from d = 5 a fit's time grows like d^{slope:.1f}"
    return (
        f"From d = {least} to {most} KL per dimension goes from "
        + ", ".join(
            f"{_per_dim(rows, t, least):.4f} to {_per_dim(rows, t, most):.4f} ({t})"
            for t in distinct(rows, "target")
        )
        + f"{growth}."
    )


def _answer(rows: list[Row]) -> str:
    most = max(row["dim"] for row in rows)
    parts = []
    for target in distinct(rows, "target"):
        kl = {m: _per_dim(rows, target, most, m) for m in ("mixture", *TRIO, GMM, "one Gaussian")}
        share = 1 - kl["mixture"] / kl["one Gaussian"]
        others = {m: value for m, value in kl.items() if m != "mixture"}
        best = min(others, key=others.__getitem__)
        parts.append(f"{share:.0%} on {target} (best without it: {best}, {others[best]:.4f})")
    return f"Of what one Gaussian misses at d = {most} the mixture finds " + ", ".join(parts) + "."


def _figure(rows: list[Row]) -> Figure:
    targets = distinct(rows, "target")
    dims = sorted({row["dim"] for row in rows})
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots(1, len(targets) + 1, squeeze=False)[0]
    for ax, target in zip(axes, targets, strict=False):
        for color, method in zip(PALETTE, ("mixture", *TRIO, GMM, "one Gaussian"), strict=False):
            means = [values(rows, "kl_per_dim", target=target, dim=d, method=method).mean()
                     for d in dims]  # fmt: skip
            ax.plot(dims, means, "-o", ms=3, color=color, label=method)
        ax.set_title(target, fontsize=9)
        ax.set_yscale("log")
    axes[0].set_ylabel("KL per dimension, nats")
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside lower center", ncols=6, fontsize=7, frameon=False,
    )  # fmt: skip
    for color, method in zip(PALETTE, ("mixture", *TRIO, GMM), strict=False):
        means = [values(rows, "seconds", dim=d, method=method).mean() for d in dims]
        axes[-1].plot(dims, means, "-o", ms=3, color=color)
    axes[-1].set_title("seconds", fontsize=9)
    axes[-1].set_yscale("log")
    for ax in axes:
        ax.set_xscale("log")
        ax.set_xlabel("d")
        ax.grid(alpha=0.3)
        ax.tick_params(labelsize=7)
    return figure


STUDY = Study(
    name="dimension",
    question="How do accuracy and cost grow with the dimension?",
    method=(
        "10,000 draws of three targets that exist in any dimension: a mixture of three correlated "
        "Gaussians, a banana in every pair of coordinates under a random rotation, and a "
        "funnel whose width has a standard deviation of 1. The default trio, the package's "
        "Gaussian mixture, and one Gaussian of the draws' mean and covariance. KL on 20,000 fresh "
        "exact draws. Every fit in a process of its own."
    ),
    cells=cells,
    run=run,
    report=report,
)
