"""Posteriors in pieces beside one fit: draws in shards, and data in shards.

    python -m experiments.benchmarks.shards [--seeds 1] [--n-draws 1000000]

Draws of a banana are fitted by ``amfvi.fit_shards`` in eight shards and by ``amfvi.fit`` at
once. The data of a logistic regression with five coefficients lie in eight shards, each of
which NumPyro's NUTS samples with the prior to the power of 1/8; ``amfvi.product`` of the fits
is compared with NUTS on all data, and so is the sum of the log densities. Finished cells are
not run again. Writes ``experiments/results/shards.csv`` and ``.md``.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import amfvi
from amfvi import targets
from amfvi.randomness import generator_for
from experiments.lab.cells import CellStore, run_in_own_process
from experiments.lab.pages import benchmark_parser, write_page
from experiments.lab.pool import draw_test_points
from experiments.lab.provenance import AMFVI, PACKAGES, Provenance, describe_all
from experiments.lab.tables import Row, markdown_table

__all__ = ["main", "page", "run"]

Array = NDArray[np.float64]

N_SHARDS = 8
"""Pieces of draws and of data."""

PROCESSES = 2
"""Processes that fit the shards of draws."""

N_TEST = 20_000
"""Fresh draws for the KL divergence."""

N_DATA = 4_000
"""Rows of the logistic regression."""

DIM = 5
"""Coefficients of the logistic regression."""

N_COMPARED = 20_000
"""Draws of a fit that are compared with those of NUTS on all data."""

N_NUTS = 20_000
"""Draws of NUTS on all data."""

N_NUTS_SHARD = 16_000
"""Draws of NUTS on a shard: the errors of eight fits add up where their product lies."""


def run(cell: Row, folder: Path) -> list[Row]:
    """Run one way of one part, in a process of its own, so that its memory is its own."""
    way = WAYS[cell["way"]]
    return [run_in_own_process(way, cell["n"], cell["seed"])]


def _draws_in_shards(n: int, seed: int) -> Row:
    shards = list(_banana(n, seed).split(-(-n // N_SHARDS)))
    return _score(partial(amfvi.fit_shards, shards, pool=PROCESSES, seed=seed), seed)


def _draws_at_once(n: int, seed: int) -> Row:
    x = _banana(n, seed)
    return _score(partial(amfvi.fit, x, test_fraction=0.0, seed=seed), seed)


def _banana(n: int, seed: int) -> Tensor:
    target = targets.get("banana")
    assert isinstance(target, targets.ExactTarget)
    return target.sample(n, generator_for(seed, "shards"))


def _score(fit: Callable[[], amfvi.Mixture], seed: int) -> Row:
    """KL divergence on fresh draws, seconds and memory of a fit to the banana."""
    started = time.monotonic()
    mixture = fit()
    seconds = time.monotonic() - started
    target = targets.get("banana")
    assert isinstance(target, targets.ExactTarget)
    x = draw_test_points(target, N_TEST, seed)
    difference = target.log_prob(x) - mixture.log_prob(x)
    of_children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "kl": float(difference.mean()),
        "kl_se": float(difference.std()) / N_TEST**0.5,
        "seconds": seconds,
        "gib": max(own, of_children) / 2**20,
    }


def _data_in_shards(n: int, seed: int) -> Row:
    x, y = _regression(n, seed)
    parts = []
    for shard in range(N_SHARDS):
        rows = slice(shard, None, N_SHARDS)
        draws = _sample(_log_posterior(x[rows], y[rows], 1 / N_SHARDS), N_NUTS_SHARD, seed + shard)
        parts.append(amfvi.fit(draws, test_fraction=0.0, seed=seed))
    return _compare(amfvi.product(parts), x, y, seed)


def _densities_in_shards(n: int, seed: int) -> Row:
    x, y = _regression(n, seed)
    parts = [
        _torch_log_posterior(x[shard::N_SHARDS], y[shard::N_SHARDS], 1 / N_SHARDS)
        for shard in range(N_SHARDS)
    ]
    density = amfvi.LogDensity(lambda b: torch.stack([part(b) for part in parts]).sum(dim=0), DIM)
    return _compare(density, x, y, seed)


def _compare(density: amfvi.LogDensity, x: Array, y: Array, seed: int) -> Row:
    """Fit a density; errors of its draws against NUTS on all data."""
    reference = _sample(_log_posterior(x, y, 1.0), N_NUTS, seed + 1000)
    started = time.monotonic()
    posterior = amfvi.fit(density, seed=seed)
    seconds = time.monotonic() - started
    draws = posterior.sample((N_COMPARED,), generator_for(seed, "compare")).numpy()
    mean, sd = reference.mean(axis=0), reference.std(axis=0)
    return {
        "mean_error": float(np.abs((draws.mean(axis=0) - mean) / sd).max()),
        "sd_error": float(np.abs(draws.std(axis=0) / sd - 1).max()),
        "verdict": str(posterior.diagnostics.verdict) if posterior.diagnostics else "",
        "evaluations": density.n_evaluations,
        "seconds": seconds,
    }


def _regression(n: int, seed: int) -> tuple[Array, Array]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, DIM))
    logits = x @ random.normal(size=DIM)
    return x, (random.random(n) < 1 / (1 + np.exp(-logits))).astype(np.float64)


def _sample(log_posterior: Callable[[Any], Any], n: int, seed: int) -> Array:
    """Draws of NumPyro's NUTS, (n, d), four chains."""
    import jax
    from numpyro.infer import MCMC, NUTS

    with jax.enable_x64(True):
        kernel = NUTS(potential_fn=lambda b: -log_posterior(b))
        mcmc = MCMC(kernel, num_warmup=500, num_samples=n // 4, num_chains=4,
                    chain_method="vectorized", progress_bar=False)  # fmt: skip
        mcmc.run(jax.random.PRNGKey(seed), init_params=jax.numpy.zeros((4, DIM)))
        return np.array(mcmc.get_samples(), dtype=np.float64)


def _log_posterior(x: Array, y: Array, share: float) -> Callable[[Any], Any]:
    """The log posterior of coefficients as a function of JAX, with a share of a prior N(0, 4)."""
    import jax.numpy as jnp

    def log_posterior(b: Any) -> Any:
        logits = jnp.asarray(x) @ jnp.asarray(b)
        fits = jnp.asarray(y) * logits - jnp.logaddexp(0.0, logits)
        return fits.sum() - share * (jnp.asarray(b) ** 2).sum() / 8

    return log_posterior


def _torch_log_posterior(x: Array, y: Array, share: float) -> Callable[[Tensor], Tensor]:
    """The same of a batch of coefficients (n, d), in torch."""
    rows, of_rows = torch.from_numpy(x), torch.from_numpy(y)

    def log_posterior(b: Tensor) -> Tensor:
        logits = b @ rows.T
        fits = of_rows * logits - torch.nn.functional.softplus(logits)
        return fits.sum(dim=1) - share * b.square().sum(dim=1) / 8

    return log_posterior


WAYS: dict[str, Callable[[int, int], Row]] = {
    "draws in shards": _draws_in_shards,
    "draws at once": _draws_at_once,
    "data in shards, product of fits": _data_in_shards,
    "data in shards, sum of log densities": _densities_in_shards,
}
"""What is run, by name."""


def page(rows: list[Row], command: str, made_with: str) -> str:
    """The page of the benchmark."""
    of_draws = [row for row in rows if "kl" in row]
    of_data = [row for row in rows if "mean_error" in row]
    return "\n".join([
        "# Posteriors in pieces", "", f"`{command}`", "",
        f"{N_SHARDS} shards. Draws of the banana, default experts, {PROCESSES} processes: "
        f"KL divergence on {N_TEST:,} fresh draws, nats; memory of the largest process. "
        f"Logistic regression, {N_DATA:,} rows, {DIM} coefficients: largest errors against NUTS on "
        "all data, of a mean in sds and of an sd. " + made_with, "",
        *markdown_table(
            ["draws", "n", "seed", "KL ± SE", "seconds", "GiB"],
            [[row["way"], f"{row['n']:,}", row["seed"], f"{row['kl']:.5f} ± {row['kl_se']:.5f}",
              f"{row['seconds']:.0f}", f"{row['gib']:.2f}"] for row in of_draws],
        ), "",
        *markdown_table(
            ["data", "seed", "error of a mean", "of an sd", "verdict", "evaluations", "seconds"],
            [[row["way"], row["seed"], f"{row['mean_error']:.3f}", f"{row['sd_error']:.1%}",
              row["verdict"], row["evaluations"], f"{row['seconds']:.0f}"] for row in of_data],
        ), "",
    ])  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = benchmark_parser(__doc__, "shards")
    parser.set_defaults(seeds=1)
    parser.add_argument("--n-draws", type=int, default=1_000_000)
    parser.add_argument("--n-data", type=int, default=N_DATA)
    options = parser.parse_args(arguments)
    cells = [
        {"way": way, "n": options.n_draws if way.startswith("draws") else options.n_data,
         "seed": seed}
        for way in WAYS
        for seed in range(options.seeds)
    ]  # fmt: skip
    store = CellStore(folder=options.folder, experiment="shards")
    provenance = Provenance.current(AMFVI, (*PACKAGES, "numpyro", "jax"))
    finished = store.run_all(cells, run, provenance)
    rows = [row for cell in finished for row in cell.full_rows]
    command = (
        f"python -m experiments.benchmarks.shards --seeds {options.seeds} "
        f"--n-draws {options.n_draws}"
    )
    write_page(options.results, "shards", page(rows, command, describe_all(finished)), rows)


if __name__ == "__main__":
    main()
