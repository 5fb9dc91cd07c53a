"""The metadata of a run: its settings, its scores and its environment."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from amfvi.experts import FitReport
from amfvi.files import file_hash
from amfvi.metrics.evaluation import Evaluation
from amfvi.posterior import Posterior
from amfvi.runs.settings import RunSettings
from amfvi.two_stage.fit import FitSummary
from amfvi.two_stage.options import InputKind
from amfvi.two_stage.weights import WeightFit

__all__ = [
    "CONFIG",
    "METRICS",
    "SCHEMA",
    "describe_config",
    "describe_environment",
    "describe_metrics",
]

SCHEMA = 3
"""Version of ``config.json`` and ``metrics.json``."""

CONFIG = "config.json"
METRICS = "metrics.json"

PACKAGES = ("amfvi", "torch", "nflows", "numpy", "scipy", "scikit-learn", "POT", "safetensors")
"""Packages whose versions are recorded."""

SCORES = ("nll", "nll_se", "kl", "kl_se", "w2", "w2_sd", "mmd2", "mmd_p")
"""Keys of the scores of one density."""


def describe_metrics(
    settings: RunSettings,
    posterior: Posterior,
    evaluation: Evaluation | None,
    seconds: Mapping[str, float],
    warned: list[str],
    n_dropped: int,
) -> dict[str, Any]:
    """What ``metrics.json`` holds, of a posterior fitted in this process.

    Args:
        evaluation: its scores; None where there are no test draws.
        seconds: wall-clock time per phase.
        warned: warnings of the run.
        n_dropped: rows of draws that were left out.

    Raises:
        ValueError: the posterior was loaded, not fitted.

    Examples:
        >>> import amfvi
        >>> from amfvi.runs.settings import InputSettings
        >>> posterior = amfvi.fit("bimodal", experts="gmm", n_draws=200)
        >>> settings = RunSettings(input=InputSettings(target="bimodal"))
        >>> metrics = describe_metrics(settings, posterior, None, {"total": 1.5}, [], 0)
        >>> metrics["name"], metrics["n_test"], metrics["experts"]["gmm"]["weight"]
        ('bimodal', 0, 1.0)
    """
    summary = posterior.summary
    if summary is None:
        raise ValueError("a posterior that was loaded has no record of its fit")
    split = summary.split
    scores = evaluation.to_json() if evaluation is not None else None
    unscored = dict.fromkeys(SCORES)
    diagnostics = posterior.diagnostics
    return {
        "schema": SCHEMA,
        "name": settings.input.name,
        "dim": split.dim,
        "seed": settings.options.seed,
        "folds": settings.options.folds,
        "n_train": split.n_train,
        "n_heldout": split.n_heldout,
        "n_weight": split.n_weight,
        "n_test": evaluation.n_test if evaluation else 0,
        "n_w2": evaluation.n_w2 if evaluation else 0,
        "n_dropped": n_dropped,
        "entropy": evaluation.entropy if evaluation else None,
        "mixture": scores["mixture"] if scores else unscored,
        "experts": _describe_experts(posterior, summary, scores["experts"] if scores else {}),
        "weights": _describe_weights(summary.weights, posterior.n_eff),
        "advantage": scores["advantage"] if scores else None,
        "floor": scores["floor"] if scores else None,
        "density": diagnostics.to_json() if diagnostics is not None else None,
        "seconds": dict(seconds),
        "warnings": list(warned),
    }


def _describe_experts(
    posterior: Posterior, summary: FitSummary, scores: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    unscored = dict.fromkeys(SCORES)
    return {
        name: {
            **scores.get(name, unscored),
            "weight": weight,
            **_describe_training(summary.reports.get(name)),
        }
        for name, weight in zip(posterior.experts, posterior.weights.tolist(), strict=True)
    }


def _describe_weights(weights: WeightFit, n_eff: float) -> dict[str, Any]:
    return {
        "rule": weights.weight_rule,
        "beta": weights.beta,
        "n_eff": n_eff,
        "steps": weights.steps,
        "newton_steps": weights.newton_steps,
        "gap": weights.gap,
        "price": weights.price,
        "converged": weights.converged,
    }


def _describe_training(report: FitReport | None) -> dict[str, Any]:
    """How an expert was trained; a defensive component has no report."""
    return {
        "seconds": report.seconds if report else 0.0,
        "converged": report.converged if report else True,
        "stopped_by": str(report.stopped_by) if report else "nothing to train",
    }


def describe_config(
    settings: RunSettings, summary: FitSummary, file: str | Path | None
) -> dict[str, Any]:
    """What ``config.json`` holds; ``file`` is that of the draws or of the log density.

    Examples:
        >>> import amfvi
        >>> from amfvi.runs.settings import InputSettings
        >>> posterior = amfvi.fit("bimodal", experts="gmm", n_draws=200)
        >>> settings = RunSettings(input=InputSettings(target="bimodal"))
        >>> describe_config(settings, posterior.summary, None)["n_draws"]
        200
    """
    described = settings.to_json()
    kind = settings.input.kind
    described["sha256"] = file_hash(file) if file is not None else None
    if kind is not InputKind.DRAWS:
        described["n_draws_asked"] = described["n_draws"]
        described["n_draws"] = len(summary.split.draws)
    if kind is not InputKind.TARGET:
        described["test_fraction"] = settings.options.test_share
    return {"schema": SCHEMA, "name": settings.input.name, **described}


def describe_environment(device: torch.device) -> dict[str, Any]:
    """What ``environment.json`` holds; null for a package that is not installed.

    Examples:
        >>> describe_environment(torch.device("cpu"))["device"]
        'cpu'
    """
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "device": str(device),
        "accelerator": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
