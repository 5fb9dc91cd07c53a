"""Tables and lines that show the record of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

from amfvi.cli.options import flags_for_arguments

__all__ = ["density_lines", "posterior_table", "score_table", "weights_line"]


def weights_line(metrics: Mapping[str, Any]) -> str:
    """The weight of each expert, and their effective number.

    Examples:
        >>> weights_line({"experts": {"gmm": {"weight": 1.0}}, "weights": {"n_eff": 1.0}})
        'weights: gmm 1.000  (effective experts 1.00)'
    """
    shown = ", ".join(f"{name} {e['weight']:.3f}" for name, e in metrics["experts"].items())
    return f"weights: {shown}  (effective experts {metrics['weights']['n_eff']:.2f})"


def density_lines(density: Mapping[str, Any] | None) -> list[str]:
    """Diagnostics against a log density, and the verdict with its reasons.

    Examples:
        >>> density_lines(None)
        []
    """
    if density is None:
        return []
    share = density["ess"] / density["n_draws"]
    origin = "the given draws" if density.get("start") == "the given draws" else "the sampler"
    lines = [
        f"log Z:   {_pm(density['log_z'], density['log_z_se'], 4)} by the mixture, "
        f"{_pm(density['log_z_sampler'], density['log_z_sampler_se'], 4)} by {origin}, "
        f"{density['n_evaluations']} evaluations",
        f"bounds:  ELBO {_pm(density['elbo'], density['elbo_se'], 4)}, "
        f"EUBO {_pm(density['eubo'], density['eubo_se'], 4)}",
        f"weights of its draws: k̂ {_number(density['khat'], 2)}, {share:.0%} effective",
        f"verdict: {density['verdict']}",
    ]
    return lines + [f"  - {flags_for_arguments(reason)}" for reason in density["reasons"]]


def score_table(
    mixture: Mapping[str, Any],
    experts: Mapping[str, Mapping[str, Any]],
    floor: Mapping[str, Any] | None,
    entropy: float | None,
) -> Table:
    """Scores of the mixture and its experts above what the truth itself scores.

    Examples:
        >>> scores = dict.fromkeys(["nll", "nll_se", "w2", "w2_sd", "mmd2", "mmd_p"], 1.5)
        >>> score_table(scores, {"maf": scores}, None, None).row_count
        2
    """
    any_kl = mixture.get("kl") is not None
    weighted = any("weight" in scores for scores in experts.values())
    table = _table("", *["weight"] * weighted, "NLL", *["KL"] * any_kl, "W2", "MMD²", "p")
    rows = {**experts, "mixture": mixture}
    for name, scores in rows.items():
        cells = [_pm(scores["nll"], scores["nll_se"], 3)]
        if any_kl:
            cells.append(_pm(scores["kl"], scores["kl_se"], 4))
        cells += [
            _pm(scores["w2"], scores["w2_sd"], 3),
            _number(scores["mmd2"], 4),
            _number(scores["mmd_p"], 2),
        ]
        weight = [_number(scores.get("weight"), 3)] if weighted else []
        table.add_row(name, *weight, *cells, style="bold" if name == "mixture" else None)
    if floor is not None:
        cells = [_number(entropy, 3), *["0"] * any_kl, _pm(floor["w2"], floor["w2_sd"], 3)]
        cells += [_number(floor["mmd2"], 4), ""]
        table.add_section()
        table.add_row("truth", *[""] * weighted, *cells, style="dim")
    return table


def posterior_table(rows: Mapping[str, Mapping[str, float]]) -> Table:
    """A row per parameter: mean, sd, quantiles and interval.

    Examples:
        >>> [column.header for column in posterior_table({"mu": {"mean": 0.5, "sd": 1.0}}).columns]
        ['', 'mean', 'sd']
    """
    columns = list(next(iter(rows.values())))
    table = _table("", *columns)
    for name, values in rows.items():
        table.add_row(name, *(f"{values[column]:.4g}" for column in columns))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=True)
    return table


def _pm(value: float | None, noise: float | None, digits: int) -> str:
    if value is None:
        return "–"
    return f"{value:.{digits}f}" + ("" if noise is None else f" ± {noise:.{digits}f}")


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
