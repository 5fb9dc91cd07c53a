"""Three real posteriors written as Pyro models, against reference draws.

    python -m experiments.benchmarks.pyro_posteriors FOLDER [--seeds 5] [--experts robust]

FOLDER holds data_NAME.json, NAME.csv and summary.json of posteriordb's eight_schools
(non-centered), kilpisjarvi_mod and arK. Each model is fitted with ``amfvi.fit(amfvi.from_pyro(
model, data))``. Shown for every seed: the worst error of a mean in reference sds and of an
sd in percent, over draws resampled by their importance weights and over plain ones; the
accuracy of a classifier that tells 2,000 resampled draws from 2,000 reference draws (½ if
it cannot); and the verdict. Writes ``experiments/results/pyro-posteriors.md``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from numpy.typing import NDArray
from sklearn.model_selection import cross_val_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.distributions import constraints

import amfvi
from amfvi.json_files import read_json
from experiments.lab.pages import RESULTS, write_page
from experiments.lab.provenance import AMFVI, PACKAGES, Provenance, describe_all
from experiments.lab.tables import markdown_table

__all__ = ["main", "report"]

N_CLASSIFIED = 2000
"""Draws of ours, and of the reference, that a classifier is to tell apart."""

N_DRAWS = 10_000
"""Draws of the mixture that errors are estimated from."""

Draws = NDArray[np.float64]
"""Draws (n,) of one scalar parameter."""


def number(value: Any) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def flat_positive() -> dist.Distribution:
    """Make the prior of Stan for a positive parameter without one."""
    return dist.ImproperUniform(constraints.positive, torch.Size(), torch.Size())


def eight_schools(data: dict[str, Any]) -> None:
    mu = pyro.sample("mu", dist.Normal(number(0.0), 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(number(5.0)))
    with pyro.plate("schools", data["J"]):
        eta = pyro.sample("eta", dist.Normal(number(0.0), 1.0))
        pyro.sample("y", dist.Normal(mu + tau * eta, number(data["sigma"])), obs=number(data["y"]))


def kilpisjarvi(data: dict[str, Any]) -> None:
    alpha = pyro.sample("alpha", dist.Normal(number(data["pmualpha"]), data["psalpha"]))
    beta = pyro.sample("beta", dist.Normal(number(data["pmubeta"]), data["psbeta"]))
    sigma = pyro.sample("sigma", flat_positive())
    with pyro.plate("years", data["N"]):
        pyro.sample("y", dist.Normal(alpha + beta * number(data["x"]), sigma),
                    obs=number(data["y"]))  # fmt: skip


def autoregression(data: dict[str, Any]) -> None:
    y, lags = number(data["y"]), data["K"]
    alpha = pyro.sample("alpha", dist.Normal(number(0.0), 10.0))
    with pyro.plate("lags", lags):
        beta = pyro.sample("beta", dist.Normal(number(0.0), 10.0))
    sigma = pyro.sample("sigma", dist.HalfCauchy(number(2.5)))
    past = torch.stack([y[lags - k : len(y) - k] for k in range(1, lags + 1)], dim=1)
    with pyro.plate("times", len(y) - lags):
        pyro.sample("y", dist.Normal(alpha + past @ beta, sigma), obs=y[lags:])


def effects(draws: dict[str, Draws]) -> dict[str, Draws]:
    """Compute the schools' effects from the non-centered parameters."""
    theta = {f"theta[{j}]": draws["mu"] + draws["tau"] * draws[f"eta[{j}]"] for j in range(1, 9)}
    return theta | {"mu": draws["mu"], "tau": draws["tau"]}


POSTERIORS: dict[str, tuple[Callable[..., None], str, Callable[..., Any]]] = {
    "eight_schools": (eight_schools, "data_eight_schools.json", effects),
    "kilpisjarvi": (kilpisjarvi, "data_kilpisjarvi_mod.json", dict),
    "arK": (autoregression, "data_arK.json", dict),
}


def worst_errors(
    draws: Mapping[str, Draws], summary: Mapping[str, Mapping[str, float]]
) -> tuple[float, float]:
    """Compute the worst error of a mean, in reference sds, and of an sd, in percent."""
    means = [abs(draws[k].mean() - s["mean"]) / s["sd"] for k, s in summary.items()]
    sds = [100 * abs(draws[k].std() / s["sd"] - 1) for k, s in summary.items()]
    return float(max(means)), float(max(sds))


def accuracy(first: Draws, second: Draws, seed: int) -> float:
    """Cross-validate the accuracy of a network that tells two sets of draws (n, d) apart."""
    d = first.shape[1]
    network = MLPClassifier((10 * d, 10 * d), max_iter=300, early_stopping=True, random_state=seed)
    x = np.vstack([first, second])
    label = np.repeat([0, 1], [len(first), len(second)])
    order = np.random.default_rng(seed).permutation(len(x))
    scores = cross_val_score(make_pipeline(StandardScaler(), network), x[order], label[order], cv=5)
    return float(scores.mean())


def report(folder: Path, name: str, experts: str, seed: int) -> list[str]:
    """Fit one posterior; one line of the table."""
    model, data, transform = POSTERIORS[name]
    density = amfvi.from_pyro(model, read_json(folder / data))
    started = time.monotonic()
    posterior = amfvi.fit(density, experts=[experts], seed=seed)
    seconds = time.monotonic() - started
    summary = read_json(folder / "summary.json")[name]
    resampled = transform(_resampled_draws(posterior, seed))
    plain = posterior.sample((N_DRAWS,), torch.Generator().manual_seed(seed)).numpy()
    weighted = worst_errors(resampled, summary)
    unweighted = worst_errors(transform(dict(zip(posterior.names, plain.T, strict=True))), summary)
    reference = amfvi.read_draws(folder / f"{name}.csv")
    order = torch.randperm(len(reference), generator=torch.Generator().manual_seed(seed))
    ours = np.column_stack([resampled[n] for n in reference.names])[:N_CLASSIFIED]
    score = accuracy(ours, reference.values[order[:N_CLASSIFIED]].numpy(), seed)
    diagnostics = posterior.diagnostics
    assert diagnostics is not None  # a fit to a log density has them
    return [
        name, str(seed), f"{weighted[0]:.3f}", f"{weighted[1]:.1f}%", f"{unweighted[0]:.3f}",
        f"{unweighted[1]:.1f}%", f"{score:.3f}",
        f"{diagnostics.log_z:.3f} ± {diagnostics.log_z_se:.3f}", f"{diagnostics.khat:.2f}",
        f"{diagnostics.ess / diagnostics.n_draws:.0%}", str(diagnostics.n_evaluations),
        f"{seconds:.0f}", str(diagnostics.verdict),
    ]  # fmt: skip


def _resampled_draws(posterior: amfvi.Posterior, seed: int) -> dict[str, Draws]:
    """Draws resampled by their importance weights, by the name of each scalar parameter."""
    group = posterior.to_arviz(N_DRAWS, seed=seed).posterior
    draws = {}
    for variable in group.data_vars:
        values = group[variable].values[0]
        if values.ndim == 1:
            draws[variable] = values
        else:
            draws |= {f"{variable}[{j + 1}]": column for j, column in enumerate(values.T)}
    return draws


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--posteriors", default=",".join(POSTERIORS))
    parser.add_argument("--experts", default="robust")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    lines = []
    for name in options.posteriors.split(","):
        for seed in range(options.seeds):
            lines.append(report(options.folder, name, options.experts, seed))
            print(" ".join(lines[-1]), file=sys.stderr, flush=True)
    header = ["posterior", "seed", "mean", "sd", "plain: mean", "plain: sd", "classifier", "log Z",
              "k̂", "effective", "evaluations", "s", "verdict"]  # fmt: skip
    text = "\n".join([
        "# Real posteriors as Pyro models", "",
        f"`python -m experiments.benchmarks.pyro_posteriors FOLDER --seeds {options.seeds} "
        f"--experts {options.experts}`", "",
        f"Worst errors of a mean (reference sds) and of an sd, over {N_DRAWS:,} draws resampled by",
        "their importance weights, and over plain draws of the mixture; accuracy of a classifier",
        "against reference draws; seconds of wall clock for the fit.",
        describe_all([Provenance.current(AMFVI, (*PACKAGES, "pyro-ppl"))]), "",
        *markdown_table(header, lines), "",
    ])  # fmt: skip
    write_page(options.results, "pyro-posteriors", text)


if __name__ == "__main__":
    main()
