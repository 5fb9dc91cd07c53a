"""Fits to reference draws of real posteriors, against their moments and a Gaussian.

    python experiments/reference_posteriors.py FOLDER [--positive eight_schools=tau]

FOLDER holds NAME.csv files of draws and a summary.json with each parameter's mean and
sd (posteriordb's reference draws have both). Prints, for every file: the worst error of
a mean in reference sds and of an sd in percent, over 10,000 draws of the mixture; the
test NLL beside that of a full-covariance Gaussian fitted to the same training and
held-out draws, in the user's parameters; and whether a positive parameter was ever
drawn at or below zero.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torch.distributions import MultivariateNormal, constraints

import amfvi


def report(path: Path, positive: list[str], reference: dict[str, dict[str, float]]) -> str:
    """One row of the table."""
    draws = amfvi.read_draws(path, support=dict.fromkeys(positive, constraints.positive))
    started = time.monotonic()
    posterior = amfvi.fit(draws, seed=0)
    seconds = time.monotonic() - started
    if posterior.summary is None or posterior.summary.split.test is None:
        raise SystemExit(f"{path}: no test draws were set aside")
    split = posterior.summary.split
    fitted_to = split.draws
    gaussian = MultivariateNormal(fitted_to.mean(dim=0), fitted_to.T.cov())
    gain = posterior.log_prob(split.test) - gaussian.log_prob(split.test)
    made = posterior.sample((10_000,), torch.Generator().manual_seed(1))
    means = torch.tensor([reference[name]["mean"] for name in posterior.names])
    sds = torch.tensor([reference[name]["sd"] for name in posterior.names])
    mean_error = ((made.mean(dim=0) - means).abs() / sds).max()
    sd_error = (made.std(dim=0) / sds - 1).abs().max()
    outside = int((~posterior.bounds.contains(made)).sum())
    return (
        f"| {path.stem} | {posterior.dim} | {mean_error:.3f} | {100 * sd_error:.1f}% | "
        f"{-posterior.log_prob(split.test).mean():.3f} | "
        f"{-gaussian.log_prob(split.test).mean():.3f} | "
        f"{gain.mean():+.3f} ± {gain.std() / len(gain) ** 0.5:.3f} | {outside} | {seconds:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--positive", action="append", default=[], metavar="FILE=NAMES")
    options = parser.parse_args()
    positive = dict(item.split("=", 1) for item in options.positive)
    summary = json.loads((options.folder / "summary.json").read_text())
    print(
        "| posterior | d | worst mean (sd) | worst sd | NLL | Gaussian NLL | gain | outside | s |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for path in sorted(options.folder.glob("*.csv")):
        names = [name for name in positive.get(path.stem, "").split(",") if name]
        print(report(path, names, summary[path.stem]), flush=True)


if __name__ == "__main__":
    main()
