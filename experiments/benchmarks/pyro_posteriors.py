"""Three real posteriors written as Pyro models, against reference draws.

    python experiments/pyro_posteriors.py FOLDER [--seeds 5] [--experts robust]

FOLDER holds data_NAME.json, NAME.csv and summary.json of posteriordb's eight_schools (not
centred), kilpisjarvi_mod and arK. Each model is fitted with ``amfvi.fit(amfvi.from_pyro(
model, data))``. Printed for every seed: the worst error of a mean in reference sds and of
an sd in percent, over draws resampled by their importance weights and over plain ones; the
accuracy of a classifier that tells 2,000 resampled draws from 2,000 reference draws (½ if
it cannot); and the verdict. Writes ``experiments/results/pyro-posteriors.md``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from sklearn.model_selection import cross_val_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.distributions import constraints

import amfvi

RESULTS = Path(__file__).parent / "results"
CLASSIFIED = 2000


def number(value: Any) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def flat_positive() -> dist.Distribution:
    """What Stan means by a positive parameter without a prior."""
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


def effects(draws: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The schools' effects from the parameters that are not centred."""
    theta = {f"theta[{j}]": draws["mu"] + draws["tau"] * draws[f"eta[{j}]"] for j in range(1, 9)}
    return theta | {"mu": draws["mu"], "tau": draws["tau"]}


POSTERIORS: dict[str, tuple[Callable[..., None], str, Callable[..., Any]]] = {
    "eight_schools": (eight_schools, "data_eight_schools.json", effects),
    "kilpisjarvi": (kilpisjarvi, "data_kilpisjarvi_mod.json", dict),
    "arK": (autoregression, "data_arK.json", dict),
}


def errors(draws: dict[str, np.ndarray], summary: dict[str, dict[str, float]]) -> list[float]:
    """Worst error of a mean, in reference sds, and of an sd, in percent."""
    means = [abs(draws[k].mean() - s["mean"]) / s["sd"] for k, s in summary.items()]
    sds = [100 * abs(draws[k].std() / s["sd"] - 1) for k, s in summary.items()]
    return [float(max(means)), float(max(sds))]


def accuracy(one: np.ndarray, other: np.ndarray, seed: int) -> float:
    """Cross-validated accuracy of a network that tells one from the other."""
    d = one.shape[1]
    network = MLPClassifier((10 * d, 10 * d), max_iter=300, early_stopping=True, random_state=seed)
    x = np.vstack([one, other])
    label = np.repeat([0, 1], [len(one), len(other)])
    order = np.random.default_rng(seed).permutation(len(x))
    scores = cross_val_score(make_pipeline(StandardScaler(), network), x[order], label[order], cv=5)
    return float(scores.mean())


def report(folder: Path, name: str, experts: str, seed: int) -> str:
    """One row of the table."""
    model, data, derived = POSTERIORS[name]
    density = amfvi.from_pyro(model, json.loads((folder / data).read_text()))
    started = time.monotonic()
    posterior = amfvi.fit(density, experts=[experts], seed=seed)
    seconds = time.monotonic() - started
    summary = json.loads((folder / "summary.json").read_text())[name]
    group = posterior.to_arviz(10_000, seed=seed).posterior
    resampled = {}
    for variable in group.data_vars:
        values = group[variable].values[0]
        if values.ndim == 1:
            resampled[variable] = values
        else:
            resampled |= {f"{variable}[{j + 1}]": v for j, v in enumerate(values.T)}
    plain = posterior.sample((10_000,), torch.Generator().manual_seed(seed)).numpy()
    weighted = errors(derived(resampled), summary)
    unweighted = errors(derived(dict(zip(posterior.names, plain.T, strict=True))), summary)
    reference = amfvi.read_draws(folder / f"{name}.csv")
    rows = torch.randperm(len(reference), generator=torch.Generator().manual_seed(seed))
    columns = derived(resampled)
    ours = np.column_stack([columns[n] for n in reference.names])[:CLASSIFIED]
    score = accuracy(ours, reference.values[rows[:CLASSIFIED]].numpy(), seed)
    found = posterior.diagnostics
    return (
        f"| {name} | {seed} | {weighted[0]:.3f} | {weighted[1]:.1f}% | {unweighted[0]:.3f} "
        f"| {unweighted[1]:.1f}% | {score:.3f} | {found.log_z:.3f} ± {found.log_z_se:.3f} "
        f"| {found.khat:.2f} | {found.ess / found.draws:.0%} | {found.calls} | {seconds:.0f} "
        f"| {found.verdict} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--posteriors", default=",".join(POSTERIORS))
    parser.add_argument("--experts", default="robust")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    lines = [
        "# Real posteriors as Pyro models", "",
        f"`python experiments/pyro_posteriors.py FOLDER --seeds {options.seeds} "
        f"--experts {options.experts}`", "",
        "Worst errors of a mean (reference sds) and of an sd, over 10,000 draws resampled by their",
        "importance weights, and over plain draws of the mixture; accuracy of a classifier against",
        "reference draws; seconds of wall clock for the fit.",
        f"Made with torch {torch.__version__}, {torch.get_num_threads()} threads.", "",
        "| posterior | seed | mean | sd | plain: mean | plain: sd | classifier | log Z | k̂ "
        "| effective | calls | s | verdict |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    print("\n".join(lines[-2:]), flush=True)
    for name in options.posteriors.split(","):
        for seed in range(options.seeds):
            lines.append(report(options.folder, name, options.experts, seed))
            print(lines[-1], flush=True)
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "pyro-posteriors.md").write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
