"""Peers on a posterior of posteriordb: Stan's NUTS, and Pathfinder and ADVI by BlackJAX."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from amfvi.draws.mixing import assess_mixing
from amfvi.interop.stan_library import StanLibrary, compile_stan
from amfvi.variables import group_labels
from experiments.lab.posteriordb import ReferencePosterior, by_entry, compare_with_reference
from experiments.lab.tables import Row
from experiments.lab.variational import ADVI_FAMILIES, Approximation, run_advi, run_pathfinder

__all__ = ["VARIATIONAL", "run_stan_nuts", "run_variational"]

VARIATIONAL: dict[str, dict[str, Callable[..., Approximation]]] = {
    "pathfinder": {"pathfinder": run_pathfinder},
    "advi": {f"advi {family}": partial(run_advi, family=family) for family in ADVI_FAMILIES},
}
"""Methods of BlackJAX, each with what it adds to the page."""


def run_stan_nuts(posterior: ReferencePosterior, seed: int) -> Row:
    """PyStan's NUTS with its defaults: four chains of 1,000 draws after 1,000 of warm-up."""
    import stan

    model = stan.build(posterior.code, data=dict(posterior.data), random_seed=seed + 1)
    started = time.monotonic()
    fit = model.sample(num_chains=4, save_warmup=True)
    seconds = time.monotonic() - started
    kept = {name: np.asarray(fit[name])[..., 4000:] for name in (*fit.param_names, "n_leapfrog__")}
    arrays = {name: np.moveaxis(kept[name], -1, 0) for name in fit.param_names}
    arrays = {n: v[:, 0] if v.shape[1:] == (1,) and not d else v
              for (n, v), d in zip(arrays.items(), fit.dims, strict=True)}  # fmt: skip
    entries = by_entry(arrays)
    x = np.column_stack([entries[name] for name in posterior.chains])
    chain = np.tile(np.arange(4), len(x) // 4)
    mixing = assess_mixing(x, chain)
    return {
        "dim": len(posterior.chains),
        "verdict": "none",
        "calls": int(np.asarray(fit["n_leapfrog__"]).sum()),
        "seconds": seconds,
        "ess": None if mixing is None else float(mixing.ess.min()),
        **compare_with_reference(entries, posterior.draws),
    }


def run_variational(
    posterior: ReferencePosterior, method: str, n_draws: int, seed: int
) -> list[Row]:
    """BlackJAX over Stan's unconstrained space: a row for each approximation of a method."""
    # On two cores XLA has two threads, and jaxlib 0.10.2 has been seen to hang when a batched QR
    # and a batched LU decomposition each wait in one of them for the other's.
    os.environ.setdefault("NPROC", "16")
    import blackjax  # noqa: F401  # before the clock starts; it starts XLA's threads

    model = StanLibrary(compile_stan(posterior.code), dict(posterior.data), seed)
    dim = len(model.unconstrained_names)
    groups = group_labels(model.names(generated=True)).items()
    rows: list[Row] = []
    for name, approximate in VARIATIONAL[method].items():
        row: Row = {"method": name, "dim": dim, "verdict": "none"}
        started, cpu = time.monotonic(), time.process_time()
        try:
            found = approximate(model, dim, n_draws=n_draws, seed=seed)
        except ValueError as error:
            rows.append(row | {"reason": str(error)})
            continue
        row |= {"seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - cpu}
        values = model.constrain(found.draws, generated=True)
        arrays = {n: values[:, columns].reshape(-1, *shape) for n, (shape, columns) in groups}
        rows.append(row | {
            "elbo": found.elbo,
            "efficiency": found.efficiency,
            "khat": found.khat,
            "calls": found.n_gradients + found.n_values,
            "gradients": found.n_gradients,
            "ess": None if found.efficiency is None else found.efficiency * n_draws,
            **compare_with_reference(by_entry(arrays), posterior.draws),
        })  # fmt: skip
    return rows
