"""One model from five libraries, beside each library's own NUTS, with and without the gradient.

    python -m experiments.benchmarks.models [--seeds 1] [--only Stan,Pyro]

Eight schools, non-centered, written in PyMC, NumPyro, JAX, Pyro and Stan (``experiments.lab.
eight_schools``). The gradient that the bridge passes is compared with central differences, and
the draws that a user of ``amfvi.fit`` gets with those of NUTS; the fit is made again without
the gradient. Finished cells are not run again. Writes ``experiments/results/models.csv``
and ``.md``.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import amfvi
from amfvi.density.log_density import LogDensity
from amfvi.errors import AmfviWarning
from amfvi.posterior import Posterior
from experiments.lab.cells import CellStore
from experiments.lab.eight_schools import LIBRARIES
from experiments.lab.pages import benchmark_parser, write_page
from experiments.lab.provenance import AMFVI, PACKAGES, Provenance, describe_all
from experiments.lab.tables import Row, markdown_table

__all__ = ["main", "page", "run"]

N_DRAWS = 20_000
"""Draws of a fit that are compared with those of NUTS."""

TAU = 1
"""Column of the scale, compared by its logarithm: its own tail is Cauchy's."""

STEP = 1e-5
"""Of the central differences."""


def run(cell: Row, folder: Path) -> list[Row]:
    """Fit the model of one library with and without its gradient, and run its NUTS."""
    model = LIBRARIES[cell["library"]]
    started = time.monotonic()
    reference = _comparable(model.nuts(cell["seed"]))
    row: Row = {"nuts_seconds": time.monotonic() - started}
    row["gradient_error"] = gradient_error(model.density(), cell["seed"])
    for name, density in (("with", model.density()), ("without", _without(model.density()))):
        started = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AmfviWarning)
            posterior = amfvi.fit(density, seed=cell["seed"])
        row[f"{name}_seconds"] = time.monotonic() - started
        row |= {f"{name}_{key}": value for key, value in _compare(posterior, reference).items()}
    return [row]


def gradient_error(density: LogDensity, seed: int) -> float:
    """Largest difference from central differences at 20 points, relative to 1 + their size."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(20, density.dim, generator=generator, dtype=torch.float64)
    x[:, TAU] = x[:, TAU].exp()
    at = x.clone().requires_grad_()
    (exact,) = torch.autograd.grad(density.log_prob(at).sum(), at)
    steps = STEP * torch.eye(density.dim, dtype=torch.float64)
    ahead = torch.stack([density.log_prob(x + step) for step in steps], dim=1)
    behind = torch.stack([density.log_prob(x - step) for step in steps], dim=1)
    numerical = (ahead - behind) / (2 * STEP)
    return float(((exact - numerical).abs() / (1 + numerical.abs())).max())


def _without(density: LogDensity) -> LogDensity:
    return LogDensity(
        lambda x: density.log_prob(x).detach(), density.dim, names=density.names,
        constraints=density.constraints,
    )  # fmt: skip


def _comparable(draws: NDArray[np.float64]) -> NDArray[np.float64]:
    draws = draws.copy()
    draws[:, TAU] = np.log(draws[:, TAU])
    return draws


def _compare(posterior: Posterior, reference: NDArray[np.float64]) -> Row:
    diagnostics = posterior.diagnostics
    if diagnostics is None:
        raise TypeError("a fit to a log density without diagnostics")
    ours = _comparable(posterior.corrected_draws(N_DRAWS, seed=0).numpy())
    spread = reference.std(axis=0)
    return {
        "verdict": str(diagnostics.verdict),
        "mean_error": float(np.abs((ours.mean(axis=0) - reference.mean(axis=0)) / spread).max()),
        "sd_error": float(np.abs(ours.std(axis=0) / spread - 1).max()),
        "efficiency": diagnostics.ess / diagnostics.n_draws,
        "log_z": diagnostics.log_z,
        "log_z_se": diagnostics.log_z_se,
        "calls": diagnostics.n_evaluations,
    }


def page(rows: list[Row], command: str, made_with: str) -> str:
    """Write the page."""
    lines = [
        [row["library"], row["seed"], f"{row['gradient_error']:.0e}", gradient,
         row[f"{gradient}_verdict"], f"{row[f'{gradient}_mean_error']:.3f}",
         f"{row[f'{gradient}_sd_error']:.1%}", f"{row[f'{gradient}_efficiency']:.0%}",
         f"{row[f'{gradient}_log_z']:.3f} ± {row[f'{gradient}_log_z_se']:.3f}",
         row[f"{gradient}_calls"], f"{row[f'{gradient}_seconds']:.0f}",
         f"{row['nuts_seconds']:.0f}"]
        for row in rows
        for gradient in ("with", "without")
    ]  # fmt: skip
    return "\n".join([
        "# One model from five libraries", "",
        f"`{command}`", "",
        "Eight schools, non-centered, against 20,000 draws of each library's own NUTS (Pyro:",
        "5,000). Largest error over the ten parameters of a mean in standard deviations and of a",
        "standard deviation, log τ for τ; NUTS has errors of its own of some .02. Gradient: the",
        "largest relative difference from central differences. Constants of the density differ",
        "between libraries: JAX's leaves them out.",
        made_with, "",
        *markdown_table(
            ["library", "seed", "gradient", "fit with or without it", "verdict", "mean", "sd",
             "effective", "log Z", "evaluations", "s", "s of NUTS"],
            lines,
        ), "",
    ])  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = benchmark_parser(__doc__, "models")
    parser.set_defaults(seeds=1)
    parser.add_argument("--only", default=",".join(LIBRARIES), help="names of libraries")
    options = parser.parse_args(arguments)
    cells = [
        {"library": name, "seed": seed}
        for name in options.only.split(",")
        for seed in range(options.seeds)
    ]
    store = CellStore(folder=options.folder, experiment="models")
    provenance = Provenance.current(AMFVI, (*PACKAGES, "pymc", "numpyro", "jax", "pyro-ppl",
                                            "pystan"))  # fmt: skip
    finished = store.run_all(cells, run, provenance)
    rows = [row for cell in finished for row in cell.full_rows]
    command = f"python -m experiments.benchmarks.models --seeds {options.seeds}"
    write_page(options.results, "models", page(rows, command, describe_all(finished)), rows)


if __name__ == "__main__":
    main()
