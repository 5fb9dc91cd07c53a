"""Log densities of many parameters: a whole fit beside the No-U-Turn sampler.

    python -m experiments.benchmarks.many_parameters [--seeds 1]

A logistic regression with 100 coefficients, whose right means and standard deviations are
those of a long run of NumPyro's NUTS, and a hierarchical model of 59 groups in centered form,
whose answer is known. ``amfvi.fit`` with its defaults, and NUTS within several numbers of
gradients: calls, CPU seconds, and the largest errors of weighted draws. Finished cells are not
run again. Needs the extra ``bench``. Writes ``experiments/results/many-parameters.csv`` and
``.md``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

import amfvi
from amfvi.randomness import generator_for
from experiments.lab.cells import CellStore, run_in_own_process
from experiments.lab.densities.hierarchical import CenteredModel
from experiments.lab.densities.known import KnownDensity, jax_function, torch_function
from experiments.lab.nuts import run_nuts
from experiments.lab.pages import benchmark_parser, write_page
from experiments.lab.provenance import AMFVI, PACKAGES, Provenance, describe_all
from experiments.lab.tables import Row, markdown_table

__all__ = ["DENSITIES", "main", "page", "run", "with_errors"]

N_ROWS, N_COEFFICIENTS, COEFFICIENT_SD = 1_000, 100, 0.15
"""Rows and coefficients of the logistic regression, and the spread of the right ones."""

N_GROUPS = 59
"""Groups of the hierarchical model, which has two parameters more."""

FIT = "amfvi"
"""The method that is a fit."""

BUDGETS = (20_000, 50_000, 150_000)
"""Gradients that NUTS may take."""

REFERENCE_GRADIENTS = 1_500_000
"""The same, of the run whose moments are taken for the right ones."""

REFERENCE_SEED = 1_000
"""Its seed."""


def _logistic() -> KnownDensity:
    generator = generator_for(0, "logistic regression")
    x = torch.randn(N_ROWS, N_COEFFICIENTS, generator=generator, dtype=torch.float64)
    b = COEFFICIENT_SD * torch.randn(N_COEFFICIENTS, generator=generator, dtype=torch.float64)
    uniform = torch.rand(N_ROWS, generator=generator, dtype=torch.float64)
    y = (uniform < torch.sigmoid(x @ b)).double()

    def formula(b: Any, xp: ModuleType) -> Any:
        rows, of_rows = (part if xp is torch else xp.asarray(part.numpy()) for part in (x, y))
        logits = b @ rows.T
        softplus = xp.logaddexp(logits, 0 * logits)
        return (of_rows * logits - softplus).sum(-1) - 0.5 * (b**2).sum(-1)

    return KnownDensity(
        name="logistic regression", family="regression", dim=N_COEFFICIENTS,
        log_density=torch_function(formula), log_z=None, sample=None,
        jax_log_density=jax_function(formula),
    )  # fmt: skip


def _hierarchical() -> KnownDensity:
    generator = generator_for(0, "groups")
    errors = 0.3 + 0.7 * torch.rand(N_GROUPS, generator=generator, dtype=torch.float64)
    noise = torch.randn(2, N_GROUPS, generator=generator, dtype=torch.float64)
    effects = 1.5 + 0.8 * noise[0] + errors * noise[1]
    model = CenteredModel(
        effects=tuple(effects.tolist()), errors=tuple(errors.tolist()), mean_sd=5.0, scale=1.0
    )
    return model.known("hierarchical model", "a centered hierarchical model")


DENSITIES: dict[str, Callable[[], KnownDensity]] = {
    "logistic regression": cache(_logistic),
    "hierarchical model": cache(_hierarchical),
}
"""What is sampled, by name."""


def run(cell: Row, folder: Path) -> list[Row]:
    """Run one cell in a process of its own."""
    return [run_in_own_process(_run, cell)]


def _run(cell: Row) -> Row:
    torch.set_num_threads(1)
    density, seed = DENSITIES[cell["density"]](), cell["seed"]
    started = time.process_time()
    if cell["method"] == FIT:
        return {**_fit(density, seed), "seconds": time.process_time() - started}
    result = run_nuts(density, budget=cell["gradients"], seed=seed)
    return {
        "mean": result.draws.mean(dim=0).tolist(), "sd": result.draws.std(dim=0).tolist(),
        "calls": result.n_gradients, "seconds": time.process_time() - started,
    }  # fmt: skip


def _fit(density: KnownDensity, seed: int) -> Row:
    """A fit by the defaults, and the moments of its weighted draws."""
    handed = density.make()
    posterior = amfvi.fit(handed, seed=seed)
    assert posterior.diagnostics is not None
    weighted = posterior.weighted_draws()
    weights = weighted.weights[:, None]
    mean = (weights * weighted.x).sum(dim=0)
    sd = (weights * (weighted.x - mean).square()).sum(dim=0).sqrt()
    return {
        "mean": mean.tolist(), "sd": sd.tolist(), "calls": handed.n_evaluations,
        "log_z": posterior.diagnostics.log_z, "log_z_se": posterior.diagnostics.log_z_se,
        "verdict": str(posterior.diagnostics.verdict),
    }  # fmt: skip


def with_errors(rows: list[Row]) -> list[Row]:
    """The rows of fits and of short runs, with their largest errors instead of moments.

    Of a mean in standard deviations, and of a standard deviation relative to the right one.
    """
    right = {row["density"]: _moments(row) for row in rows if row["seed"] == REFERENCE_SEED}
    compared = []
    for row in rows:
        density = DENSITIES[row["density"]]()
        mean, sd = density.mean_and_sd or right[row["density"]]
        if row["seed"] == REFERENCE_SEED:
            continue
        found_mean, found_sd = _moments(row)
        off_mean = float(((found_mean - mean).abs() / sd).max())
        off_sd = float((found_sd / sd - 1).abs().max())
        kept = {name: value for name, value in row.items() if name not in ("mean", "sd")}
        known = "log_z" in row and density.log_z is not None
        error = {"log_z_error": row["log_z"] - density.log_z} if known else {}
        compared.append({**kept, "mean_error": off_mean, "sd_error": off_sd, **error})
    return compared


def _moments(row: Row) -> tuple[Tensor, Tensor]:
    """Means and standard deviations (d,) of a row."""
    return tuple(torch.tensor(row[name], dtype=torch.float64) for name in ("mean", "sd"))  # type: ignore[return-value]


def page(rows: list[Row], command: str, made_with: str) -> str:
    """The page of the benchmark."""
    table = []
    for row in rows:
        log_z = "–"
        if "log_z" in row:
            log_z = f"{row['log_z']:.3f} ± {row['log_z_se']:.3f}"
        if row.get("log_z_error") is not None:
            log_z += f" ({row['log_z_error']:+.3f})"
        table.append([
            row["density"], row["method"], row["seed"], f"{row['calls']:,}",
            f"{row['seconds']:.0f}", f"{row['mean_error']:.3f}", f"{row['sd_error']:.1%}", log_z,
            row.get("verdict", "–"),
        ])  # fmt: skip
    columns = ["density", "method", "seed", "calls", "CPU s", "error of a mean", "of an sd",
               "log Z (error)", "verdict"]  # fmt: skip
    return "\n".join([
        "# Many parameters", "", f"`{command}`", "",
        f"A logistic regression with {N_COEFFICIENTS} coefficients and {N_ROWS:,} rows, and a "
        f"hierarchical model of {N_GROUPS} groups in centered form ({N_GROUPS + 2} parameters). "
        "`amfvi` is a whole `amfvi.fit` by its defaults, verdict included, by its weighted draws; "
        "NUTS is NumPyro's, four chains, warm-up included and compilation too. Calls of the "
        "density, most with its gradient; largest errors over all parameters, of a mean in sds. "
        f"Right moments of the regression are those of NUTS with {REFERENCE_GRADIENTS:,} "
        "gradients. One thread. " + made_with, "", *markdown_table(columns, table), "",
    ])  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = benchmark_parser(__doc__, "many-parameters")
    parser.set_defaults(seeds=1)
    options = parser.parse_args(arguments)
    cells: list[Row] = [
        {"density": "logistic regression", "method": "NUTS", "gradients": REFERENCE_GRADIENTS,
         "seed": REFERENCE_SEED},
    ]  # fmt: skip
    for name in DENSITIES:
        for seed in range(options.seeds):
            cells.append({"density": name, "method": FIT, "gradients": 0, "seed": seed})
            cells += [
                {"density": name, "method": "NUTS", "gradients": budget, "seed": seed}
                for budget in BUDGETS
            ]
    store = CellStore(folder=options.folder, experiment="many-parameters")
    provenance = Provenance.current(AMFVI, (*PACKAGES, "numpyro", "jax"))
    finished = store.run_all(cells, run, provenance)
    rows = with_errors([row for cell in finished for row in cell.full_rows])
    command = f"python -m experiments.benchmarks.many_parameters --seeds {options.seeds}"
    text = page(rows, command, describe_all(finished))
    write_page(options.results, "many-parameters", text, rows)


if __name__ == "__main__":
    main()
