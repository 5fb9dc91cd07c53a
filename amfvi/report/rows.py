"""Rows of the tables of a run, as strings: for a terminal and for a page alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amfvi.decimals import DASH, number, plus_minus

__all__ = [
    "REFERENCE",
    "TRUTH",
    "evidence_rows",
    "parameter_rows",
    "score_rows",
    "value_of",
]

TRUTH = "truth"
"""Name of the row of what two samples of the truth score."""

REFERENCE = "reference"
"""The same, of two samples of the draws that stand for a truth that is not known."""


def score_rows(
    mixture: Mapping[str, Any],
    experts: Mapping[str, Mapping[str, Any]],
    floor: Mapping[str, Any] | None,
    entropy: float | None,
) -> tuple[list[str], list[list[str]]]:
    """Scores of the experts and the mixture, and what the truth itself scores.

    Returns:
        The heads of the columns and the rows; if there is a floor, the last row is that of the
        truth, or of the draws that stand for it where that is not known.

    Examples:
        >>> scores = dict.fromkeys(["nll", "nll_se", "w2", "w2_sd", "mmd2", "mmd_p"], 1.5)
        >>> columns, rows = score_rows(scores, {}, None, None)
        >>> columns, rows[0][:2]
        (['', 'NLL', 'W2', 'MMD²', 'p'], ['mixture', '1.500 ± 1.500'])
    """
    any_kl = mixture.get("kl") is not None
    weighted = any("weight" in scores for scores in experts.values())
    columns = ["", *["weight"] * weighted, "NLL", *["KL"] * any_kl, "W2", "MMD²", "p"]
    rows = []
    for name, scores in {**experts, "mixture": mixture}.items():
        row = [name, *[number(scores.get("weight"), 3)] * weighted]
        row.append(plus_minus(scores["nll"], scores["nll_se"], 3))
        if any_kl:
            row.append(plus_minus(scores["kl"], scores["kl_se"], 4))
        row += [
            plus_minus(scores["w2"], scores["w2_sd"], 3),
            number(scores["mmd2"], 4),
            number(scores["mmd_p"], 2),
        ]
        rows.append(row)
    if floor is not None:
        row = [
            TRUTH if any_kl else REFERENCE,
            *[""] * weighted,
            number(entropy, 3),
            *["0"] * any_kl,
        ]
        rows.append(
            [*row, plus_minus(floor["w2"], floor["w2_sd"], 3), number(floor["mmd2"], 4), ""]
        )
    return columns, rows


def parameter_rows(
    parameters: Mapping[str, Mapping[str, float]],
) -> tuple[list[str], list[list[str]]]:
    """Statistics of each parameter.

    Returns:
        The heads of the columns and the rows.

    Examples:
        >>> parameter_rows({"mu": {"mean": 0.5, "sd": 1.0}})
        (['', 'mean', 'sd'], [['mu', '0.5', '1']])
    """
    columns = list(next(iter(parameters.values()), {}))
    rows = [
        [name, *(f"{values[column]:.4g}" for column in columns)]
        for name, values in parameters.items()
    ]
    return ["", *columns], rows


def evidence_rows(density: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The numbers of the diagnostics against a log density: name, value, what it is.

    Examples:
        >>> fields = {"log_z": 1.0, "log_z_se": 0.1, "ess": 50.0, "n_draws": 100, "khat": 0.2,
        ...           "khat_threshold": 0.7, "elbo": 0.9, "elbo_se": 0.1, "n_evaluations": 500}
        >>> evidence_rows(fields)[0]
        ('log Z', '1.0000 ± 0.1000', 'log evidence in nats, by importance weights of the mixture')
    """
    origin = "the given draws and the mixture, by bridge sampling"
    if density.get("start") != "the given draws":
        origin = "the sampler, independently of the mixture"
    named = (
        ("log Z", "log_z", "log evidence in nats, by importance weights of the mixture"),
        ("log Z, second estimate", "log_z_sampler", f"by {origin}"),
        ("log Z, refinement", "log_z_refinement", "by the sampler when it started from a mixture"),
        ("ELBO", "elbo", "lower bound of log Z; it falls short by KL(q‖p)"),
        ("EUBO", "eubo", "upper bound of log Z; it exceeds it by KL(p‖q)"),
    )
    rows = [
        (name, plus_minus(density[key], density.get(f"{key}_se"), 4), what)
        for name, key, what in named
        if density.get(key) is not None
    ]
    khat, threshold = density["khat"], density.get("khat_threshold")
    limit = "" if threshold is None else f"; the weights are reliable below {threshold:.2f}"
    share = density["ess"] / density["n_draws"]
    rows.append(("k̂", number(khat, 2), f"tail of the importance weights{limit}"))
    rows.append((
        "effective draws", f"{share:.0%}",
        f"{density['ess']:.0f} of {density['n_draws']} weighted draws of the mixture",
    ))  # fmt: skip
    rows.append(("evaluations", f"{density['n_evaluations']}", "of the log density, in all"))
    return rows


def value_of(value: Any) -> str:
    """A setting as one short text.

    Examples:
        >>> value_of(None), value_of(True), value_of(["a", "b"]), value_of({"p": [0, 1]})
        ('–', 'yes', 'a, b', 'p: 0, 1')
    """
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {value_of(each)}" for key, each in value.items()) or DASH
    if isinstance(value, list | tuple):
        return ", ".join(map(value_of, value)) or DASH
    return f"{value:.6g}" if isinstance(value, float) else str(value)
