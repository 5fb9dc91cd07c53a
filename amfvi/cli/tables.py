"""Tables and lines that show the record of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table

from amfvi.cli.flags import flags_for_arguments
from amfvi.decimals import number, plus_minus
from amfvi.report.rows import REFERENCE, TRUTH, parameter_rows, score_rows

if TYPE_CHECKING:
    from amfvi.report.comparison import Comparison

__all__ = ["comparison_table", "density_lines", "posterior_table", "score_table", "weights_line"]


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
        f"log Z:   {plus_minus(density['log_z'], density['log_z_se'], 4)} by the mixture, "
        f"{plus_minus(density['log_z_sampler'], density['log_z_sampler_se'], 4)} by {origin}, "
        f"{density['n_evaluations']} evaluations",
        f"bounds:  ELBO {plus_minus(density['elbo'], density['elbo_se'], 4)}, "
        f"EUBO {plus_minus(density['eubo'], density['eubo_se'], 4)}",
        f"weights of its draws: k̂ {number(density['khat'], 2)}, {share:.0%} effective",
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
    columns, rows = score_rows(mixture, experts, floor, entropy)
    table = _table(*columns)
    for row in rows:
        if row[0] in (TRUTH, REFERENCE):
            table.add_section()
        style = {"mixture": "bold", TRUTH: "dim", REFERENCE: "dim"}.get(row[0])
        table.add_row(*row, style=style)
    return table


def posterior_table(rows: Mapping[str, Mapping[str, float]]) -> Table:
    """A row per parameter: mean, sd, quantiles and interval.

    Examples:
        >>> [column.header for column in posterior_table({"mu": {"mean": 0.5, "sd": 1.0}}).columns]
        ['', 'mean', 'sd']
    """
    columns, lines = parameter_rows(rows)
    table = _table(*columns)
    for line in lines:
        table.add_row(*map(escape, line))
    return table


def comparison_table(found: Comparison) -> Table:
    """A column for each run.

    Examples:
        >>> from amfvi.report.comparison import Comparison
        >>> comparison_table(Comparison(columns=("", "a"), rows=(("NLL", "1.5"),))).row_count
        1
    """
    table = _table(*found.columns)
    for row in found.rows:
        table.add_row(*map(escape, row))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place == 0 else "right", no_wrap=True)
    return table
