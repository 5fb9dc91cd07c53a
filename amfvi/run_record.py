"""What a run writes down beside its model: settings, scores, environment."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from amfvi.draws import Draws
from amfvi.metrics.evaluation import Evaluation
from amfvi.mixture import Mixture
from amfvi.outputs import without_nonfinite
from amfvi.run_settings import RunSettings
from amfvi.two_stages import TEST_FRACTION, FitSummary

__all__ = [
    "CONFIG",
    "METRICS",
    "SCHEMA",
    "config",
    "environment",
    "file_hash",
    "metrics",
    "write_json",
]

SCHEMA = 1
CONFIG = "config.json"
METRICS = "metrics.json"
PACKAGES = ("amfvi", "torch", "nflows", "numpy", "scipy", "scikit-learn", "POT", "safetensors")


def metrics(
    settings: RunSettings,
    mixture: Mixture,
    summary: FitSummary,
    evaluation: Evaluation | None,
    seconds: Mapping[str, float],
    warned: list[str],
    draws: Draws | None,
) -> dict[str, Any]:
    """What ``metrics.json`` holds, of a mixture fitted in this process."""
    split, found = summary.split, summary.weights
    unscored = dict.fromkeys(("nll", "nll_se", "kl", "kl_se", "w2", "w2_sd", "mmd2", "mmd_p"))
    scores = evaluation.to_json() if evaluation is not None else None
    experts = {}
    for name, weight in zip(mixture.experts, mixture.weights.tolist(), strict=True):
        report = summary.reports.get(name)  # a guard is not trained
        experts[name] = {
            **(scores["experts"][name] if scores else unscored),
            "weight": weight,
            "seconds": report.seconds if report else 0.0,
            "converged": report.converged if report else True,
            "stopped_by": report.stopped_by if report else "nothing to train",
        }
    return {
        "schema": SCHEMA,
        "name": settings.name,
        "dim": split.dim,
        "seed": settings.seed,
        "folds": settings.folds,
        "n_train": split.n_train,
        "n_heldout": split.n_heldout,
        "n_weight": split.n_weight,
        "n_test": evaluation.n_test if evaluation else 0,
        "n_w2": evaluation.n_w2 if evaluation else 0,
        "n_dropped": draws.n_dropped if draws is not None else 0,
        "entropy": evaluation.entropy if evaluation else None,
        "mixture": scores["mixture"] if scores else unscored,
        "experts": experts,
        "weights": {
            "rule": found.rule,
            "beta": found.beta,
            "n_eff": mixture.n_eff,
            "steps": found.steps,
            "gap": found.gap,
            "converged": found.converged,
        },
        "advantage": scores["advantage"] if scores else None,
        "floor": scores["floor"] if scores else None,
        "density": mixture.diagnostics.to_json() if mixture.diagnostics is not None else None,
        "seconds": dict(seconds),
        "warnings": list(warned),
    }


def config(settings: RunSettings, summary: FitSummary, source: str | Path | None) -> dict[str, Any]:
    """What ``config.json`` holds; ``source`` is the file of draws or of the log density."""
    fields = asdict(settings)
    fields["experts"] = {name: config.to_json() for name, config in settings.experts.items()}
    fields["bounds"] = {name: list(pair) for name, pair in settings.bounds.items()}
    fields["sha256"] = file_hash(source) if source is not None else None
    if settings.draws is None:
        fields["n_draws"] = len(summary.split.draws)
    if settings.target is None:
        fields["test_fraction"] = (
            TEST_FRACTION if settings.test_fraction is None else settings.test_fraction
        )
    return {"schema": SCHEMA, "name": settings.name, **fields}


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def environment(device: torch.device) -> dict[str, Any]:
    """What ``environment.json`` holds."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: version(name) for name in PACKAGES},
        "device": str(device),
        "accelerator": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
    }


def write_json(path: Path, value: Any) -> None:
    """Write JSON, with null for what it cannot hold."""
    path.write_text(
        json.dumps(without_nonfinite(value), indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )
