"""When may a verdict be believed?"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments.lab.densities import KnownDensity, all_densities, curved_family
from experiments.lab.judged_fit import OUTCOMES, fit_and_judge
from experiments.lab.nuts import run_nuts
from experiments.lab.samplers import SAMPLERS
from experiments.lab.study import Report, Size, Study
from experiments.lab.tables import Row, distinct, markdown_table

CURVED = ("curved", "rosenbrock")
"""Families on which NUTS is run beside the fit, at equal gradients."""

SAMPLER_FACTOR = 3
"""Evaluations that other samplers may take where a fit was wrongly trusted, per one of its own."""

TINY = ("gaussian-d1", "forgotten-minus-d1")
"""Densities of a test."""

QUICK = (
    "gaussian-d1", "quadratic-d3-bend0.5-width0.5-scale2", "forgotten-minus-d1", "noise0.5-d2",
)  # fmt: skip
"""Densities of a quick run."""

TRUSTED = ("right", "right by weights", "false trust")
"""Outcomes of verdicts that trust plain or weighted draws."""

COLORS = dict(zip(OUTCOMES, ("#00798c", "#5b8c5a", "0.75", "#edae49", "#d1495b"), strict=True))
"""Colors of the outcomes."""


def known_densities() -> dict[str, KnownDensity]:
    """List all densities, and the curved family, by name."""
    return all_densities() | {density.name: density for density in curved_family()}


def cells(size: Size) -> list[Row]:
    names = size.choose(tuple(known_densities()), QUICK, TINY)
    return [{"density": name, "seed": seed} for seed in range(size.seeds) for name in names]


def run(cell: Row, folder: Path) -> list[Row]:
    density = known_densities()[cell["density"]]
    settings: Row = {"experts": "gmm", "n_draws": 1000} if cell["density"] in TINY else {}
    row = fit_and_judge(density, cell["seed"], **settings)
    if density.family in CURVED and density.jax_log_density is not None:
        row |= _beside_nuts(density, row, cell["seed"])
    if row["outcome"] == "false trust":
        row |= _beside_samplers(density, row, cell["seed"])
    return [row]


def _beside_nuts(density: KnownDensity, row: Row, seed: int) -> Row:
    """Errors of NUTS with as many gradients as the fit took evaluations."""
    nuts = run_nuts(density, budget=row["n_evaluations"], seed=seed)
    return {
        "nuts_gradients": nuts.n_gradients,
        "nuts_mean_error": nuts.mean_error,
        "nuts_sd_error": nuts.sd_error,
    }


def _beside_samplers(density: KnownDensity, row: Row, seed: int) -> Row:
    """Errors of samplers that are given the box of nearly all mass; none where there is none."""
    if density.natural_box is None or density.log_z is None:
        return {}
    found: Row = {}
    for name, sample in SAMPLERS.items():
        limit = SAMPLER_FACTOR * row["n_evaluations"]
        result = sample(density, density.natural_box, seed, limit)
        mean_error, sd_error = density.moment_errors(result.draws) or (None, None)
        found |= {
            f"{name}_evaluations": result.n_evaluations,
            f"{name}_log_z_error": result.log_z - density.log_z,
            f"{name}_mean_error": mean_error,
            f"{name}_sd_error": sd_error,
            f"{name}_quantile_error": density.quantile_error(result.draws),
        }
    return found


def report(rows: list[Row]) -> Report:
    body = ["Outcomes by family:", "", *_by_family(rows), ""]
    for outcome in ("false trust", "false alarm"):
        body += [f"Every {outcome}:", "", *_list_cases(rows, outcome), ""]
    body += [
        "The same densities by samplers that are told a box with nearly all of the mass, with "
        f"up to {SAMPLER_FACTOR} times the evaluations:", "", *_samplers_table(rows), "",
    ]  # fmt: skip
    body += ["Curved posteriors beside NUTS at equal gradients:", "", *_nuts_table(rows), ""]
    return Report(brief=_brief(rows), answer=_answer(rows), body=body, figure=_figure(rows))


def _count(rows: list[Row]) -> Counter[str]:
    return Counter(row["outcome"] for row in rows)


def _rms_z(rows: list[Row]) -> float:
    """Root mean square of errors of log Z in claimed standard errors, of trusted fits."""
    z = [
        row["log_z_error"] / row["log_z_se"]
        for row in rows
        if row["outcome"] in TRUSTED and row.get("log_z_error") is not None
    ]
    return math.sqrt(sum(x * x for x in z) / len(z)) if z else math.nan


def _format_rms(rows: list[Row]) -> str:
    rms = _rms_z(rows)
    return "" if math.isnan(rms) else f"{rms:.2f}"


def _by_family(rows: list[Row]) -> list[str]:
    lines: list[list[Any]] = []
    for family in (*distinct(rows, "family"), None):
        chosen = [row for row in rows if family in (None, row["family"])]
        count = _count(chosen)
        lines.append([
            family or "**all**", len(distinct(chosen, "density")), len(chosen),
            *(count[outcome] or "" for outcome in OUTCOMES), _format_rms(chosen),
            f"{statistics.median(row['n_evaluations'] for row in chosen):.0f}",
            f"{statistics.median(row['seconds'] for row in chosen):.0f}",
        ])  # fmt: skip
    return markdown_table(
        ["family", "densities", "fits", *OUTCOMES, "rms z of log Z", "evaluations", "seconds"],
        lines,
    )


def _list_cases(rows: list[Row], outcome: str) -> list[str]:
    cases = [row for row in rows if row["outcome"] == outcome]
    if not cases:
        return ["none"]

    return markdown_table(
        ["density", "seed", "verdict", "log Z error", "claimed SE", "mean error", "sd error",
         "quantile error", "first reason"],
        [
            [row["density"], row["seed"], row["verdict"], _number(row, "log_z_error"),
             _number(row, "log_z_se"),
             *(_number(row, f"{_kind(row)}_{what}_error") for what in ("mean", "sd", "quantile")),
             row.get("reason", row.get("refused"))]
            for row in cases
        ],
    )  # fmt: skip


def _samplers_table(rows: list[Row]) -> list[str]:
    columns = ("log_z_error", "mean_error", "sd_error", "quantile_error")
    lines = [
        [row["density"], row["seed"], name, row[f"{name}_evaluations"],
         *(_number(row, f"{name}_{column}") for column in columns)]
        for row in rows
        for name in SAMPLERS
        if row.get(f"{name}_evaluations") is not None
    ]  # fmt: skip
    if not lines:
        return ["none"]
    return markdown_table(
        ["density", "seed", "sampler", "evaluations", "log Z error", "mean error", "sd error",
         "quantile error"],
        lines,
    )  # fmt: skip


def _number(row: Row, key: str) -> str:
    value = row.get(key)
    return "" if value is None else f"{value:.3f}"


def _kind(row: Row) -> str:
    """The draws that the verdict speaks of."""
    return "plain" if row["verdict"] == "trust" else "weighted"


def _compared(rows: list[Row]) -> list[Row]:
    """Fits of curved posteriors that stand beside NUTS."""
    return [
        row
        for row in rows
        if row.get("nuts_mean_error") is not None and row.get("plain_mean_error") is not None
    ]


def _worst(row: Row, kind: str) -> float:
    """The larger of the errors of a mean and of a standard deviation."""
    return max(float(row[f"{kind}_mean_error"]), float(row[f"{kind}_sd_error"]))


def _nuts_table(rows: list[Row]) -> list[str]:
    compared = _compared(rows)
    if not compared:
        return ["none in this run"]
    lines = []
    for name in distinct(compared, "density"):
        runs = [row for row in compared if row["density"] == name]
        nearer = sum(_worst(row, "weighted") < _worst(row, "nuts") for row in runs)
        lines.append([
            name, ", ".join(f"{outcome} ({n})" for outcome, n in _count(runs).items()),
            f"{statistics.median(row['n_evaluations'] for row in runs):.0f}",
            *(f"{statistics.median(row[f'{kind}_{what}_error'] for row in runs):.2f}"
              for kind in ("weighted", "nuts") for what in ("mean", "sd")),
            f"{nearer} of {len(runs)}",
        ])  # fmt: skip
    return markdown_table(
        ["density", "outcomes", "evaluations", "error of a mean", "of an sd",
         "of a mean by NUTS", "of an sd by NUTS", "nearer than NUTS"],
        lines,
    )  # fmt: skip


def _brief(rows: list[Row]) -> str:
    count = _count(rows)
    trusted = sum(count[outcome] for outcome in TRUSTED)
    return (
        f"Of {len(rows)} fits to {len(distinct(rows, 'density'))} log densities with known answers "
        f"{trusted} were trusted and {count['false trust']} of these were wrong; "
        f"{count['false alarm']} were doubted though right."
    )


def _answer(rows: list[Row]) -> str:
    compared = _compared(rows)
    nearer = sum(_worst(row, "weighted") < _worst(row, "nuts") for row in compared)
    rms = _format_rms(rows)
    text = f"Errors of log Z of trusted fits are {rms} claimed SEs (rms). " if rms else ""
    if compared:
        text += (
            f"On curved posteriors {nearer} of {len(compared)} fits are nearer to the truth "
            "(worst mean and sd of weighted draws) than NUTS with as many gradients. "
        )
    return text + (
        "Right means: every mean within .1 sd, every sd within 10%, every distribution function "
        "within .05, log Z within 4 claimed SEs."
    )


def _figure(rows: list[Row]) -> Figure:
    families = distinct(rows, "family")
    figure = Figure(figsize=(8, 0.32 * len(families) + 1.2), layout="constrained")
    ax = figure.subplots()
    left = [0.0] * len(families)
    for outcome in OUTCOMES:
        shares = [
            _count(chosen)[outcome] / len(chosen)
            for family in families
            if (chosen := [row for row in rows if row["family"] == family])
        ]
        ax.barh(families, shares, left=left, color=COLORS[outcome], label=outcome, height=0.7)
        left = [a + b for a, b in zip(left, shares, strict=True)]
    ax.invert_yaxis()
    ax.set_xlim(0, 1)
    ax.set_xlabel("share of fits", fontsize=9)
    ax.tick_params(labelsize=8, length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.legend(
        ncols=len(OUTCOMES), fontsize=7, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1)
    )
    return figure


STUDY = Study(
    name="verdicts",
    question="When may a verdict be believed?",
    method=(
        "`amfvi.fit` with its defaults, given the log density alone (and its constraints), on "
        "densities whose evidence and draws are known: `experiments/lab/densities`. An improper or "
        "random density has no right answer: it is to be refused or doubted. Plain draws are "
        "judged where the verdict is trust, weighted ones where it is to use them. NUTS is "
        "NumPyro's, four chains, warm-up counted."
    ),
    cells=cells,
    run=run,
    report=report,
)
