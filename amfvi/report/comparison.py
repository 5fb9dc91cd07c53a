"""Runs beside each other: verdicts, evidence, scores, costs, and means of shared parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from amfvi.decimals import DASH, number, plus_minus
from amfvi.report.contents import RunContents
from amfvi.report.page import render_template

__all__ = ["Comparison", "compare"]

DENSITY_KEYS = ("log_z", "log_z_se", "khat", "ess", "n_draws", "n_evaluations")
"""Numbers of the diagnostics against a log density that are compared."""

MAX_SHARED = 20
"""Most parameters whose differences are rows; of more, those that differ most."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A table with a column for each run.

    Attributes:
        columns: names of the runs, after an empty head for the first column.
        rows: a quantity and its value in each run.
        notes: what has to be known to read the table.
        records: the numbers of each run, as JSON values.

    Examples:
        >>> table = Comparison(columns=("", "a"), rows=(("verdict", "trust"),))
        >>> "verdict</th><td>trust</td>" in table.to_html()
        True
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    records: tuple[dict[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The numbers of all runs, and the notes."""
        return {"runs": list(self.records), "notes": list(self.notes)}

    def to_html(self) -> str:
        """The table as one page that loads nothing."""
        return render_template(
            "comparison.html.j2", columns=self.columns, rows=self.rows, notes=self.notes
        )


def compare(runs: Sequence[RunContents]) -> Comparison:
    """Put runs beside each other.

    Bayes factors and differences are from the first run. A Bayes factor means something only
    for two models of the same data, which no run directory can show. Differences of means are
    in standard deviations of the first run, for parameters that have the same name.

    Examples:
        >>> metrics = {"experts": {}, "density": None, "mixture": {"nll": 1.5, "nll_se": 0.1}}
        >>> runs = [RunContents(path=path, config={}, metrics=metrics) for path in ("a", "b")]
        >>> compare(runs).rows[1]
        ('NLL', '1.500 ± 0.100', '1.500 ± 0.100')
    """
    rows = [(name, *map(value, runs)) for name, value in QUANTITIES.items()]
    kept = [row for row in rows if any(cell != DASH for cell in row[1:])]
    notes = []
    factors = _bayes_factors(runs)
    if factors is not None:
        kept += factors
        notes.append(
            "A Bayes factor compares two models of the same data, each with its normalized prior; "
            "whether the data are the same is not checked."
        )
        doubtful = [run.path for run in runs if run.verdict == "do not trust"]
        if doubtful:
            notes.append(f"Not to be trusted, with its evidence: {', '.join(doubtful)}.")
    kept += _differences(runs, notes)
    return Comparison(
        columns=("", *(run.path for run in runs)),
        rows=tuple(kept),
        notes=tuple(notes),
        records=tuple(_record(run, runs[0]) for run in runs),
    )


def _record(run: RunContents, first: RunContents) -> dict[str, Any]:
    """The numbers of a run; differences are from the first run."""
    density, own = run.density or {}, (first.density or {}).get("log_z")
    log_z = density.get("log_z")
    return {
        "run": run.path,
        "fitted_to": run.kind,
        "verdict": run.verdict,
        **{key: density.get(key) for key in DENSITY_KEYS},
        "log_bayes_factor": None if log_z is None or own is None else log_z - own,
        "mixture": run.metrics.get("mixture"),
        "n_test": run.metrics.get("n_test"),
        "seconds": (run.metrics.get("seconds") or {}).get("total"),
        "mean_shift_in_sd": {
            name: shift
            for name in first.parameters
            if (shift := _shift(first, run, name)) is not None
        },
    }


def _shift(first: RunContents, run: RunContents, name: str) -> float | None:
    """The difference of a mean in standard deviations of the first run, if both have it."""
    own, theirs = first.parameters[name], run.parameters.get(name)
    if theirs is None or not own["sd"] > 0:
        return None
    return (theirs["mean"] - own["mean"]) / own["sd"]


def _score(key: str, noise: str | None, digits: int) -> Callable[[RunContents], str]:
    def value(run: RunContents) -> str:
        scores = run.metrics.get("mixture") or {}
        return plus_minus(scores.get(key), scores.get(noise) if noise else None, digits)

    return value


def _density(key: str, digits: int, noise: str | None = None) -> Callable[[RunContents], str]:
    def value(run: RunContents) -> str:
        found = run.density or {}
        return plus_minus(found.get(key), found.get(noise) if noise else None, digits)

    return value


def _effective(run: RunContents) -> str:
    if run.density is None or run.density.get("ess") is None:
        return DASH
    return f"{run.density['ess'] / run.density['n_draws']:.0%}"


def _heldout_log_density(run: RunContents) -> str:
    found = (run.metrics.get("calibration") or {}).get("log_density") or {}
    return plus_minus(found.get("mean"), found.get("se"), 3)


QUANTITIES: dict[str, Callable[[RunContents], str]] = {
    "fitted to": lambda run: run.kind,
    "verdict": lambda run: run.verdict or DASH,
    "log Z": _density("log_z", 4, "log_z_se"),
    "k̂": _density("khat", 2),
    "effective draws": _effective,
    "held-out log density": _heldout_log_density,
    "NLL": _score("nll", "nll_se", 3),
    "KL": _score("kl", "kl_se", 4),
    "W2": _score("w2", "w2_sd", 3),
    "MMD²": _score("mmd2", None, 4),
    "p of MMD²": _score("mmd_p", None, 2),
    "test draws": lambda run: f"{run.metrics.get('n_test') or DASH}",
    "seconds": lambda run: number((run.metrics.get("seconds") or {}).get("total"), 1),
    "evaluations": _density("n_evaluations", 0),
}
"""The value of each quantity in a run."""


def _bayes_factors(runs: Sequence[RunContents]) -> list[tuple[str, ...]] | None:
    """Rows of log Bayes factors against the first run, if it and another have an evidence."""
    found = [(run.density or {}).get("log_z") for run in runs]
    if found[0] is None or sum(log_z is not None for log_z in found) < 2:
        return None
    errors = [(run.density or {}).get("log_z_se") or 0.0 for run in runs]
    differences, factors = ["0"], ["1"]
    for log_z, se in zip(found[1:], errors[1:], strict=True):
        if log_z is None:
            differences.append(DASH)
            factors.append(DASH)
            continue
        difference = log_z - found[0]
        differences.append(plus_minus(difference, math.hypot(se, errors[0]), 3))
        factors.append(f"{math.exp(difference):.3g}" if abs(difference) < 700 else "beyond 1e300")
    return [("log Bayes factor", *differences), ("Bayes factor", *factors)]


def _differences(runs: Sequence[RunContents], notes: list[str]) -> list[tuple[str, ...]]:
    """Rows of differences of means, for parameters that the first run shares with another."""
    first, *others = runs
    rows = []
    for name in first.parameters:
        shifts = [_shift(first, run, name) for run in others]
        known = [abs(shift) for shift in shifts if shift is not None]
        if known:
            cells = (DASH if shift is None else f"{shift:+.3f}" for shift in shifts)
            rows.append((max(known), (f"mean of {name}, in sd", "0", *cells)))
    if rows:
        notes.append("Parameters are matched by their names alone.")
    if len(rows) > MAX_SHARED:
        threshold = sorted((largest for largest, _ in rows), reverse=True)[MAX_SHARED - 1]
        notes.append(f"{MAX_SHARED} of {len(rows)} shared parameters: those that differ most.")
        rows = [row for row in rows if row[0] >= threshold][:MAX_SHARED]
    return [row for _, row in rows]
