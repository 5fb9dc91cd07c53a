"""Every posterior of posteriordb that has reference draws, from its Stan program.

    python -m experiments.benchmarks.posteriordb FOLDER [--seeds 3] [--only NAMES]
        [--methods NAMES] [--any-version] [--only-finished]

FOLDER is a clone of stan-dev/posteriordb, or a part of it in the same layout. Each posterior
is fitted from its log density with gradients, by the default and by the robust experts, and
from its reference draws with the density; the draws that a user gets (plain where the verdict
is trust, else weighted) are compared with the reference. Beside it Stan's own NUTS, and
Pathfinder and ADVI by BlackJAX where it is installed. Finished cells are not run again. Writes
``experiments/results/posteriordb.csv`` and ``.md``.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import amfvi
from amfvi.errors import AmfviError, AmfviWarning
from amfvi.statistics import resample
from experiments.lab.cells import Cell, CellStore
from experiments.lab.pages import benchmark_parser, write_page
from experiments.lab.posteriordb import (
    ReferencePosterior,
    by_entry,
    compare_with_reference,
    list_posteriors,
    read_posterior,
)
from experiments.lab.posteriordb_peers import VARIATIONAL, run_stan_nuts, run_variational
from experiments.lab.provenance import AMFVI, PACKAGES, Provenance, describe_all
from experiments.lab.tables import Row, distinct, markdown_table
from experiments.lab.variational import missing_module

__all__ = ["main", "page", "run"]

N_DRAWS = 10_000
"""Draws that are compared with the reference."""

METHODS = ("default", "robust", "given draws", "nuts", "pathfinder", "advi")
"""Ways to each posterior: two sets of experts, the reference draws with the density, and peers."""

JUDGED = ("default", "robust", "given draws")
"""Methods that come with a verdict."""

MAX_MEAN_ERROR = 0.1
"""Largest error of a mean that is right, in standard deviations."""

MAX_SD_ERROR = 0.1
"""Largest relative error of a standard deviation that is right."""

LABELS = {
    "default": "default experts", "robust": "`robust`", "given draws": "given draws",
    "nuts": "NUTS", "pathfinder": "Pathfinder",
    "advi mean-field": "ADVI, mean-field", "advi full-rank": "ADVI, full-rank",
}  # fmt: skip
"""How the page calls each."""


def run(cell: Row, database: Path) -> list[Row]:
    """Approach one posterior of a database in one way."""
    posterior = read_posterior(database, cell["posterior"])
    if cell["method"] == "nuts":
        return [run_stan_nuts(posterior, cell["seed"])]
    if cell["method"] in VARIATIONAL:
        return run_variational(posterior, cell["method"], N_DRAWS, cell["seed"])
    return [_run_amfvi(posterior, cell["method"], cell["seed"])]


def _run_amfvi(posterior: ReferencePosterior, method: str, seed: int) -> Row:
    density = amfvi.from_stan(posterior.code, data=dict(posterior.data))
    started, cpu = time.monotonic(), time.process_time()
    row: Row = {"dim": density.dim}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AmfviWarning)
        try:
            fitted = _fit(posterior, density, method, seed)
        except AmfviError as error:
            return row | {"verdict": "refused", "reason": str(error)}
    if fitted is None:
        return row | {"verdict": "none", "reason": "the reference lacks a parameter"}
    row |= {"seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - cpu}
    diagnostics = fitted.diagnostics
    if diagnostics is None:
        raise TypeError("a fit to a log density without diagnostics")
    x = _draws_of_a_user(fitted, seed)
    arrays = fitted.variables.split(x) | dict(density.transformed(x))
    return row | {
        "verdict": str(diagnostics.verdict),
        "reason": diagnostics.reasons[0],
        "log_z": diagnostics.log_z,
        "log_z_se": diagnostics.log_z_se,
        "efficiency": diagnostics.ess / diagnostics.n_draws,
        "khat": diagnostics.khat,
        "calls": density.n_evaluations,
        "ess": diagnostics.ess / diagnostics.n_draws * N_DRAWS,
        **compare_with_reference(by_entry(arrays), posterior.draws),
    }


def _fit(
    posterior: ReferencePosterior, density: amfvi.LogDensity, method: str, seed: int
) -> amfvi.Posterior | None:
    """A fit; None where the reference lacks a parameter of the program."""
    if method != "given draws":
        chosen: Any = {} if method == "default" else {"experts": method}
        return amfvi.fit(density, seed=seed, **chosen)
    if any(name not in posterior.chains for name in density.names):
        return None
    chains = np.stack([posterior.chains[name] for name in density.names], axis=2)
    return amfvi.fit(chains, density=density, chains=True, seed=seed)


def _draws_of_a_user(fitted: amfvi.Posterior, seed: int) -> NDArray[np.float64]:
    """Plain draws where the verdict is trust, else draws by their importance weights."""
    generator = torch.Generator().manual_seed(seed)
    diagnostics = fitted.diagnostics
    if diagnostics is not None and diagnostics.verdict == amfvi.Verdict.TRUST:
        return fitted.sample((N_DRAWS,), generator).numpy()
    weighted = fitted.weighted_draws()
    return weighted.x[resample(weighted.weights, N_DRAWS, generator)].numpy()


def is_right(row: Row) -> bool:
    """Whether means and standard deviations are near enough to the reference."""
    return bool(row["mean_error"] <= MAX_MEAN_ERROR and row["sd_error"] <= MAX_SD_ERROR)


def page(rows: list[Row], command: str, made_with: str) -> str:
    """Write the page: counts by method, then every run."""
    return "\n".join([
        "# The posteriors of posteriordb, from their Stan programs", "",
        f"`{command}`", "",
        "Largest errors over all parameters against posteriordb's reference draws: of a mean in",
        "standard deviations, of a standard deviation, of the 5 to 95% quantiles in standard",
        f"deviations. Right: a mean within {MAX_MEAN_ERROR} and an sd within {MAX_SD_ERROR:.0%}.",
        "Draws are those that the verdict tells a user to take. Calls are evaluations of the",
        "density, gradients included; for NUTS leapfrog steps, warm-up included. ESS: of",
        f"{N_DRAWS:,} draws by importance weights; for NUTS the smallest of all parameters.",
        "NUTS, Pathfinder and ADVI give no verdict: their draws are right or not. Pathfinder is",
        "multi-path, resampled by importance weights, with BlackJAX's mean corrected; ADVI fits a",
        "normal over unconstrained parameters, of diagonal (mean-field) or full covariance, at",
        "four learning rates of which the best by its ELBO is kept, the full covariance from where",
        "the diagonal one ended. Their seconds include JAX's compilation, not Stan's.",
        "", made_with, "",
        *_counts(rows), "", "## Every run", "", *_runs(rows), "",
    ])  # fmt: skip


def _counts(rows: list[Row]) -> list[str]:
    lines = []
    for method in distinct(rows, "method"):
        chosen = [row for row in rows if row["method"] == method and "mean_error" in row]
        trusted = [row for row in chosen if row["verdict"] in ("trust", amfvi.Verdict(
            "use with importance weights"))]  # fmt: skip
        right = sum(is_right(row) for row in trusted)
        lines.append([
            LABELS[method], len(distinct(chosen, "posterior")), len(chosen),
            *((len(trusted), right, len(trusted) - right) if method in JUDGED else ("", "", "")),
            sum(is_right(row) for row in chosen),
        ])  # fmt: skip
    return markdown_table(
        ["method", "posteriors", "runs", "trusted", "trusted and right", "trusted and wrong",
         "right"],
        lines,
    )  # fmt: skip


def _runs(rows: list[Row]) -> list[str]:
    def number(row: Row, key: str, form: str) -> str:
        return "" if row.get(key) is None else format(row[key], form)

    lines = [
        [row["posterior"], row["dim"], LABELS[row["method"]], row["seed"], row["verdict"],
         number(row, "mean_error", ".3f"), number(row, "sd_error", ".1%"),
         number(row, "quantile_error", ".3f"), number(row, "log_z", ".3f"),
         number(row, "log_z_se", ".3f"), number(row, "calls", "d"), number(row, "ess", ".0f"),
         number(row, "cpu_seconds", ".0f"), number(row, "seconds", ".0f")]
        for row in rows
    ]  # fmt: skip
    return markdown_table(
        ["posterior", "d", "method", "seed", "verdict", "mean", "sd", "quantiles", "log Z", "±",
         "calls", "ESS", "CPU s", "s"],
        lines,
    )  # fmt: skip


def provenance_of(cell: Row) -> Provenance:
    """What a cell depends on: amfvi, and how a peer is called."""
    if cell["method"] in VARIATIONAL:
        modules = (*AMFVI, "experiments.lab.variational", "experiments.lab.jax_density")
        return Provenance.current(modules, (*PACKAGES, "pystan", "blackjax"))
    return Provenance.current(AMFVI, (*PACKAGES, "pystan"))


def describe_by_method(cells: Sequence[Cell]) -> str:
    """Say what the cells of each method were made with, together where that is the same."""
    labels: dict[str, list[str]] = {}
    for method in dict.fromkeys(cell.parameters["method"] for cell in cells):
        chosen = [cell for cell in cells if cell.parameters["method"] == method]
        labels.setdefault(describe_all(chosen), []).append(LABELS.get(method, "ADVI"))
    if len(labels) == 1:
        return next(iter(labels))
    return "\n\n".join(f"{', '.join(names)}: {text}" for text, names in labels.items())


def installed_methods(names: str) -> list[str]:
    """List the methods named, without those whose library is not installed."""
    methods = []
    for name in names.split(","):
        if name not in METHODS:
            raise SystemExit(f"--methods: no {name!r}, expected some of {', '.join(METHODS)}")
        if name in VARIATIONAL and (module := missing_module()) is not None:
            print(f"{name} is skipped: {module} is not installed", file=sys.stderr)
        else:
            methods.append(name)
    return methods


def command_of(options: argparse.Namespace) -> str:
    """The command that makes the page, with the options that it was given."""
    parts = ["python -m experiments.benchmarks.posteriordb FOLDER", f"--seeds {options.seeds}"]
    if options.only:
        parts.append(f"--only {shlex.quote(options.only)}")
    if options.methods != ",".join(METHODS):
        parts.append(f"--methods {shlex.quote(options.methods)}")
    parts += ["--any-version"] * options.any_version
    return " ".join(parts + ["--only-finished"] * options.only_finished)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = benchmark_parser(__doc__, "posteriordb")
    parser.set_defaults(seeds=3)
    parser.add_argument("database", type=Path, metavar="FOLDER", help="of posteriordb")
    parser.add_argument("--only", help="names of posteriors; all that have reference draws")
    parser.add_argument("--methods", default=",".join(METHODS), help="of " + ", ".join(METHODS))
    parser.add_argument("--any-version", action="store_true",
                        help="take cells that another version of the code finished")  # fmt: skip
    parser.add_argument("--only-finished", action="store_true",
                        help="run nothing, and make the page of what is finished")  # fmt: skip
    options = parser.parse_args(arguments)
    methods = installed_methods(options.methods)
    names = options.only.split(",") if options.only else list_posteriors(options.database)
    cells = [
        {"posterior": name, "method": method, "seed": seed}
        for seed in range(options.seeds)
        for name in names
        for method in methods
    ]
    store = CellStore(
        folder=options.folder, experiment="posteriordb", any_version=options.any_version
    )
    if options.only_finished:
        finished = [cell for row in cells if (cell := store.read(row, provenance_of(row)))]
    else:
        finished = store.run_all(
            cells, lambda cell, _: run(cell, options.database), provenance_of, skip_failures=True
        )
    rows = [row for cell in finished for row in cell.full_rows]
    text = page(rows, command_of(options), describe_by_method(finished))
    write_page(options.results, "posteriordb", text, rows)


if __name__ == "__main__":
    main()
