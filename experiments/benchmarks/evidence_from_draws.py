"""The evidence of ten posteriors from draws of NUTS and the density, without our sampler.

    python -m experiments.benchmarks.evidence_from_draws [--seeds 1] [--sampler] [--harmonic]

NumPyro's NUTS draws 4,000 times from posteriors whose log Z is known, in 2 to 30
dimensions; ``amfvi.fit(draws, density=density)`` makes an evidence of them by importance
and by bridge sampling, of which the surer one is scored. Beside it stand, with ``--harmonic``,
the learned harmonic mean of the library harmonic from the same draws (``pip install
harmonic``), and, with ``--sampler``, the evidence of ``amfvi.fit(density)``, which samples by
itself. Writes ``experiments/results/evidence-from-draws.csv`` and ``.md``.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import amfvi
from amfvi.draws.mixing import assess_mixing
from amfvi.errors import AmfviWarning
from experiments.lab.cells import CellStore
from experiments.lab.densities import all_densities, curved_family
from experiments.lab.densities.known import KnownDensity
from experiments.lab.harmonic_mean import learned_harmonic_mean
from experiments.lab.nuts import run_nuts
from experiments.lab.pages import benchmark_parser, write_page
from experiments.lab.provenance import AMFVI, PACKAGES, Provenance, describe_all
from experiments.lab.tables import Row, markdown_table

__all__ = ["main", "page", "run"]

POSTERIORS = (
    "quadratic-d2-bend0.1-width1-scale3", "rosenbrock-d3-chains1", "wavy-d5-bend0.1-width1-scale3",
    "quadratic-d10-bend0.5-width0.5-scale2", "gaussian-condition10000-d5", "student4-d5",
    "logistic-d5", "agrawal-well-conditioned-d10", "gaussian-d20", "laplace-d30",
)  # fmt: skip
"""Names in the library of densities: curved, ill-conditioned, heavy-tailed, of many parameters."""

GRADIENTS = (200_000, 800_000)
"""Gradients that NUTS may take, and where they do not pay for the draws."""

N_CHAINS = 4
"""Chains of NUTS."""

N_DRAWS = 4_000
"""Draws that are kept, thinned evenly from those of all chains."""

MAX_ERROR = 0.05
"""Largest error of log Z that is right, nats, if it is within three claimed SEs too."""


def _density(name: str) -> KnownDensity:
    known = all_densities() | {density.name: density for density in curved_family()}
    return known[name]


def run(cell: Row, folder: Path) -> list[Row]:
    """Draw by NUTS, then find the evidence with and without these draws."""
    density = _density(cell["posterior"])
    if density.log_z is None:
        raise ValueError(f"log Z of {density.name} is not known")
    chains = _chains_of_nuts(density, cell["seed"])
    flat = chains.flatten(0, 1).numpy()
    mixing = assess_mixing(flat, np.repeat(np.arange(N_CHAINS), chains.shape[1]))
    rows: Row = {"dim": density.dim, "n_draws": len(flat)}
    rows["ess"] = None if mixing is None else float(mixing.ess.min())
    handed = density.make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AmfviWarning)
        started = time.monotonic()
        fitted = amfvi.fit(chains, density=handed, chains=True, seed=cell["seed"])
        rows["seconds"] = time.monotonic() - started
        fits = {"given": (fitted, handed)}
        if cell["sampler"]:
            sampled_from = density.make()
            fits["sampled"] = (amfvi.fit(sampled_from, seed=cell["seed"]), sampled_from)
    for name, (posterior, evaluated) in fits.items():
        diagnostics = posterior.diagnostics
        if diagnostics is None:
            raise TypeError("a fit to a log density without diagnostics")
        rows |= {
            f"{name}_error": diagnostics.log_z - density.log_z,
            f"{name}_se": diagnostics.log_z_se,
            f"{name}_verdict": str(diagnostics.verdict),
            f"{name}_evaluations": evaluated.n_evaluations,
        }
        if name == "given" and diagnostics.log_z_sampler is not None:
            taken = diagnostics.evidence
            rows["taken_error"], rows["taken_se"] = taken.mean - density.log_z, taken.se
            rows["bridge_error"] = diagnostics.log_z_sampler - density.log_z
            rows["bridge_se"] = diagnostics.log_z_sampler_se
    if cell["harmonic"]:
        started = time.monotonic()
        at_draws = density.log_density(chains.flatten(0, 1)).unflatten(0, chains.shape[:2])
        log_z, se = learned_harmonic_mean(chains, at_draws, seed=cell["seed"])
        rows["harmonic_error"], rows["harmonic_se"] = log_z - density.log_z, se
        rows["harmonic_seconds"] = time.monotonic() - started
    return [rows]


def _chains_of_nuts(density: KnownDensity, seed: int) -> Tensor:
    """Draws (4, n, d), n at most 1,000."""
    for budget in GRADIENTS:
        chains = run_nuts(density, budget=budget, seed=seed, chains=N_CHAINS).draws
        chains = chains.reshape(N_CHAINS, -1, density.dim)
        if chains.shape[1] * N_CHAINS >= N_DRAWS:
            break
    n = min(chains.shape[1], N_DRAWS // N_CHAINS)
    return chains[:, torch.linspace(0, chains.shape[1] - 1, n).long()]


def is_right(row: Row, name: str = "taken") -> bool:
    """Whether an evidence from the draws is near enough to the truth."""
    return bool(abs(row[f"{name}_error"]) <= min(MAX_ERROR, 3 * row[f"{name}_se"]))


def page(rows: list[Row], command: str, made_with: str) -> str:
    """Write the page."""

    def evidence(row: Row, name: str) -> str:
        if row.get(f"{name}_error") is None:
            return ""
        return f"{row[f'{name}_error']:+.4f} ± {row[f'{name}_se']:.4f}"

    lines = [
        [row["posterior"], row["dim"], row["seed"], row["n_draws"],
         "" if row["ess"] is None else f"{row['ess']:.0f}",
         evidence(row, "taken"), evidence(row, "given"), evidence(row, "bridge"),
         row["given_verdict"], row["given_evaluations"],
         evidence(row, "harmonic"), evidence(row, "sampled"), row.get("sampled_verdict", ""),
         row.get("sampled_evaluations", ""), f"{row['seconds']:.0f}"]
        for row in rows
    ]  # fmt: skip
    return "\n".join([
        "# Evidence from draws of NUTS and the density", "",
        f"`{command}`", "",
        f"Errors of log Z with claimed standard errors. {sum(map(is_right, rows))} of {len(rows)}",
        f"are within three of these and within {MAX_ERROR} nats. From draws: by importance or by",
        "bridge sampling, as the claimed standard error is smaller (`Diagnostics.evidence`).",
        "ESS: the smallest of all parameters of the draws.", *_of_harmonic(rows),
        made_with, "",
        *markdown_table(
            ["posterior", "d", "seed", "draws", "ESS", "log Z from draws",
             "by importance sampling", "by bridge sampling", "verdict", "evaluations",
             "by harmonic", "by our own sampler", "its verdict", "its evaluations", "s"],
            lines,
        ), "",
    ])  # fmt: skip


def _of_harmonic(rows: list[Row]) -> list[str]:
    beside = [row for row in rows if row.get("harmonic_error") is not None]
    if not beside:
        return []
    right = sum(is_right(row, "harmonic") for row in beside)
    nearer = sum(abs(row["taken_error"]) < abs(row["harmonic_error"]) for row in beside)
    return [
        f"By harmonic, from the same draws: {right} of {len(beside)}; ours is nearer to the truth",
        f"in {nearer}.",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = benchmark_parser(__doc__, "evidence-from-draws")
    parser.set_defaults(seeds=1)
    parser.add_argument("--sampler", action="store_true", help="fit the density alone too")
    parser.add_argument("--harmonic", action="store_true", help="the library harmonic too")
    options = parser.parse_args(arguments)
    cells = [
        {"posterior": name, "seed": seed, "sampler": options.sampler, "harmonic": options.harmonic}
        for seed in range(options.seeds)
        for name in POSTERIORS
    ]
    store = CellStore(folder=options.folder, experiment="evidence-from-draws")
    provenance = Provenance.current(AMFVI, (*PACKAGES, "numpyro"))
    finished = store.run_all(cells, run, provenance)
    rows = [row for cell in finished for row in cell.full_rows]
    command = f"python -m experiments.benchmarks.evidence_from_draws --seeds {options.seeds}"
    command += " --sampler" * options.sampler + " --harmonic" * options.harmonic
    write_page(
        options.results, "evidence-from-draws", page(rows, command, describe_all(finished)), rows
    )


if __name__ == "__main__":
    main()
