"""A fit to a log density with a known answer, and whether its verdict was right."""

from __future__ import annotations

import time
import warnings
from typing import Any

import torch
from torch import Tensor

import amfvi
from amfvi.errors import AmfviError, AmfviWarning
from amfvi.statistics import resample
from experiments.lab.densities.known import KnownDensity
from experiments.lab.tables import Row

__all__ = ["OUTCOMES", "fit_and_judge"]

N_DRAWS = 100_000
"""Draws of the mixture that are compared with the right answer: so many that the standard
deviation of a cubed normal variable is known to one percent."""

MAX_MEAN_ERROR = 0.1
"""Largest error of a mean that is right, in standard deviations."""

MAX_SD_ERROR = 0.1
"""Largest relative error of a standard deviation that is right."""

MAX_QUANTILE_ERROR = 0.05
"""Largest error of a distribution function that is right."""

MAX_LOG_Z_ERROR = 4.0
"""Largest error of log Z that is right, in claimed standard errors."""

OUTCOMES = ("right", "right by weights", "doubted", "false alarm", "false trust")
"""Trusted and right, by plain or by weighted draws; not trusted or refused, and wrong or without
an answer; not trusted though right; trusted though wrong."""


def fit_and_judge(density: KnownDensity, seed: int, **settings: Any) -> Row:
    """Fit by the log density alone, and compare the result with the right answer."""
    started = time.monotonic()
    handed = density.make()
    row: Row = {"family": density.family, "dim": density.dim, "refused": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AmfviWarning)
        try:
            posterior = amfvi.fit(handed, seed=seed, **settings)
        except AmfviError as error:
            row |= {"verdict": "refused", "refused": f"{type(error).__name__}: {error}"}
    row |= {"n_evaluations": handed.n_evaluations, "seconds": time.monotonic() - started}
    if row["verdict" if "verdict" in row else "refused"] is None:
        row |= _compare(density, posterior, seed)
    row["outcome"] = _outcome(density, row)
    return row


def _compare(density: KnownDensity, posterior: amfvi.Posterior, seed: int) -> Row:
    """Errors of the evidence and of plain and weighted draws."""
    diagnostics = posterior.diagnostics
    assert diagnostics is not None
    generator = torch.Generator().manual_seed(seed)
    plain = posterior.sample((N_DRAWS,), generator)
    weighted = posterior.weighted_draws()
    weights = weighted.smoothed_log_weights.exp()
    rows = resample(weights, N_DRAWS, generator)
    return {
        "verdict": str(diagnostics.verdict),
        "reason": diagnostics.reasons[0],
        "log_z_error": None if density.log_z is None else diagnostics.log_z - density.log_z,
        "log_z_se": diagnostics.log_z_se,
        "efficiency": diagnostics.ess / diagnostics.n_draws,
        "khat": diagnostics.khat,
        **_errors(density, plain, "plain"),
        **_errors(density, weighted.x[rows], "weighted"),
    }


def _errors(density: KnownDensity, draws: Tensor, kind: str) -> Row:
    mean_error, sd_error = density.moment_errors(draws) or (None, None)
    return {
        f"{kind}_mean_error": mean_error,
        f"{kind}_sd_error": sd_error,
        f"{kind}_quantile_error": density.quantile_error(draws),
    }


def _outcome(density: KnownDensity, row: Row) -> str:
    """One of ``OUTCOMES``."""
    by_plain, by_weights = _is_right(density, row, "plain"), _is_right(density, row, "weighted")
    if row["verdict"] == "trust":
        return "right" if by_plain else "false trust"
    if row["verdict"] == "use with importance weights":
        return "right by weights" if by_weights else "false trust"
    return "false alarm" if by_plain or by_weights else "doubted"


def _is_right(density: KnownDensity, row: Row, kind: str) -> bool:
    """Whether evidence and draws are near enough to the right answer."""
    if density.log_z is None or row.get("log_z_error") is None:
        return False
    if abs(row["log_z_error"]) > MAX_LOG_Z_ERROR * row["log_z_se"]:
        return False
    mean, sd, quantile = (row[f"{kind}_{what}_error"] for what in ("mean", "sd", "quantile"))
    if mean is not None and (mean > MAX_MEAN_ERROR or sd > MAX_SD_ERROR):
        return False
    return quantile is None or quantile <= MAX_QUANTILE_ERROR
