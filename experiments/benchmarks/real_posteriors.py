"""Real posteriors from reference draws: beside other density estimators and known moments.

    python -m experiments.benchmarks.real_posteriors FOLDER [--positive eight_schools=tau]

FOLDER holds NAME.csv files of draws. Of each, 80% at random are fitted to and the rest
scored: mean negative log density in nats, in units of the training standard deviation
of each parameter. A peer that is not installed is skipped by name. If FOLDER also holds
a summary.json with the mean and sd of each parameter (as posteriordb has), 10,000 draws
of the mixture are compared with them. Writes ``experiments/results/real-posteriors.md``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import multivariate_normal
from torch.distributions import constraints

import amfvi
from amfvi.json_files import read_json
from experiments.lab.pages import RESULTS, write_page
from experiments.lab.peers import PEERS, Array, missing_module
from experiments.lab.provenance import AMFVI, Provenance, describe_all
from experiments.lab.tables import markdown_table

__all__ = ["main"]

PEER_NAMES = ("gmm (scikit-learn)", "spline (flowjax)", "maf (flowjax)")
"""Density estimators beside ours, those that are installed."""

N_MOMENTS = 10_000
"""Draws of the mixture that its moments are estimated from."""


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """A fit to a random 80% of a file's draws, and the rest of the draws."""

    name: str
    posterior: amfvi.Posterior
    seconds: float
    train: Array
    test: Array


def _fit(path: Path, experts: str, positive: Sequence[str]) -> _Fit:
    draws = amfvi.read_draws(path)
    x = draws.values.numpy()
    order = np.random.default_rng(0).permutation(len(x))
    n_train = len(x) * 4 // 5
    train, test = x[order[:n_train]], x[order[n_train:]]
    started = time.monotonic()
    posterior = amfvi.fit(
        train,
        names=draws.names,
        constraints=dict.fromkeys(positive, constraints.positive) or None,
        experts=experts,
        test_fraction=0,
        seed=0,
    )
    seconds = time.monotonic() - started
    return _Fit(name=path.stem, posterior=posterior, seconds=seconds, train=train, test=test)


def _scores(fit: _Fit, peers: Sequence[str]) -> list[str]:
    """One line of the table of negative log densities."""
    train, test = fit.train, fit.test
    log_unit = np.log(train.std(axis=0)).sum()
    standardized = (test - train.mean(axis=0)) / train.std(axis=0)  # scales differ by 1e4
    gaussian = multivariate_normal(cov=np.corrcoef(train.T))
    log_densities = {
        "amfvi": fit.posterior.log_prob(torch.from_numpy(test)).numpy(),
        "Gaussian": gaussian.logpdf(standardized) - log_unit,
        **{name: PEERS[name].fit(train, 0)(test) for name in peers},
    }
    nll = {name: -float(np.mean(log_q)) - log_unit for name, log_q in log_densities.items()}
    best_other = min(value for name, value in nll.items() if name != "amfvi")
    return [
        fit.name, str(test.shape[1]), *(f"{value:.4f}" for value in nll.values()),
        f"{nll['amfvi'] - best_other:+.4f}", f"{fit.seconds:.0f}",
    ]  # fmt: skip


def _moments(fit: _Fit, reference: Mapping[str, Mapping[str, float]]) -> list[str]:
    """One line of the table of moments."""
    posterior = fit.posterior
    draws = posterior.sample((N_MOMENTS,), torch.Generator().manual_seed(1))
    means = torch.tensor([reference[name]["mean"] for name in posterior.names])
    sds = torch.tensor([reference[name]["sd"] for name in posterior.names])
    mean_error = float(((draws.mean(dim=0) - means).abs() / sds).max())
    sd_error = float((draws.std(dim=0) / sds - 1).abs().max())
    n_outside = int((~posterior.constraints.contains(draws)).sum())
    return [fit.name, f"{mean_error:.3f}", f"{sd_error:.1%}", str(n_outside)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--experts", default="robust")
    parser.add_argument("--positive", action="append", default=[], metavar="FILE=NAMES")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    positive = dict(item.split("=", 1) for item in options.positive)
    peers = []
    for name in PEER_NAMES:
        if (module := missing_module(name)) is None:
            peers.append(name)
        else:
            print(f"{name} is skipped: {module} is not installed", file=sys.stderr)
    scores, moments = [], []
    summary = options.folder / "summary.json"
    reference = read_json(summary) if summary.is_file() else {}
    for path in sorted(options.folder.glob("*.csv")):
        names = [name for name in positive.get(path.stem, "").split(",") if name]
        fit = _fit(path, options.experts, names)
        scores.append(_scores(fit, peers))
        if path.stem in reference:
            moments.append(_moments(fit, reference[path.stem]))
        print(" ".join(scores[-1]), file=sys.stderr, flush=True)
    header = ["posterior", "d", f"amfvi ({options.experts})", "Gaussian", *peers, "to best", "s"]
    text = "\n".join([
        "# Real posteriors", "",
        f"`python -m experiments.benchmarks.real_posteriors FOLDER --experts {options.experts}`",
        "",
        "Mean negative log density in nats of the fifth of the draws that nothing was fitted to,",
        "in units of the training standard deviation of each parameter; one split, seed 0. `to",
        "best` is ours less the best of the others.",
        describe_all([Provenance.current(AMFVI)]), "",
        *markdown_table(header, scores), "",
        *(_moments_section(moments) if moments else ()),
    ])  # fmt: skip
    write_page(options.results, "real-posteriors", text)


def _moments_section(moments: list[list[str]]) -> list[str]:
    return [
        "## Moments", "",
        f"Of {N_MOMENTS:,} draws of the mixture: the worst error of a mean in reference standard",
        "deviations, the worst relative error of a standard deviation, and draws outside the",
        "constraints.", "",
        *markdown_table(["posterior", "worst mean", "worst sd", "outside"], moments), "",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
