"""Real posteriors against the peers, on draws that nobody was fitted to.

    python experiments/real_posteriors.py FOLDER [--experts robust] [--positive eight_schools=tau]

FOLDER holds NAME.csv files of draws. Of each, 80% at random are fitted to and the rest
scored: mean negative log density in nats, in units of the training standard deviation
of each parameter. A peer that is not installed is skipped by name.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from peers import PEERS, missing
from scipy.stats import multivariate_normal
from torch.distributions import constraints

import amfvi

RIVALS = ("gmm (scikit-learn)", "spline (flowjax)", "maf (flowjax)")


def scores(path: Path, experts: str, positive: list[str], rivals: list[str]) -> list[str]:
    """One row of the table."""
    draws = amfvi.read_draws(path)
    values = draws.values.numpy()
    order = np.random.default_rng(0).permutation(len(values))
    n = len(values) * 4 // 5
    train, test = values[order[:n]], values[order[n:]]
    unit = np.log(train.std(axis=0)).sum()
    standard = (test - train.mean(axis=0)) / train.std(axis=0)  # scales differ by 1e4
    started = time.monotonic()
    posterior = amfvi.fit(
        train,
        names=draws.names,
        support=dict.fromkeys(positive, constraints.positive) or None,
        experts=experts,
        test_fraction=0,
        seed=0,
    )
    seconds = time.monotonic() - started
    densities = {
        "amfvi": posterior.log_prob(torch.from_numpy(test)).numpy(),
        "Gaussian": multivariate_normal(cov=np.corrcoef(train.T)).logpdf(standard) - unit,
    }
    densities |= {name: PEERS[name][0](train, 0)(test) for name in rivals}
    nll = {name: -float(np.mean(log_q)) - unit for name, log_q in densities.items()}
    rest = min(value for name, value in nll.items() if name != "amfvi")
    cells = [path.stem, str(values.shape[1]), *(f"{value:.4f}" for value in nll.values())]
    return [*cells, f"{nll['amfvi'] - rest:+.4f}", f"{seconds:.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--experts", default="robust")
    parser.add_argument("--positive", action="append", default=[], metavar="FILE=NAMES")
    options = parser.parse_args()
    positive = dict(item.split("=", 1) for item in options.positive)
    rivals = []
    for name in RIVALS:
        if (module := missing(name)) is None:
            rivals.append(name)
        else:
            print(f"{name} is skipped: {module} is not installed", file=sys.stderr)
    header = ["posterior", "d", f"amfvi ({options.experts})", "Gaussian", *rivals, "to best", "s"]
    print("| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|")
    for path in sorted(options.folder.glob("*.csv")):
        names = [name for name in positive.get(path.stem, "").split(",") if name]
        row = scores(path, options.experts, names, rivals)
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
