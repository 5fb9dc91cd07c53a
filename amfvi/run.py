"""One run: from a target or a file of draws to a directory that holds everything."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amfvi import targets
from amfvi.checkpoint import write_model
from amfvi.draws import Draws
from amfvi.errors import UsageError
from amfvi.experts import ExpertConfig
from amfvi.fitting import (
    FOLDS,
    TEST_FRACTION,
    FitSummary,
    check_options,
    fit_split,
    resolve_device,
    split_data,
)
from amfvi.metrics.evaluation import Evaluation, evaluate_on_split, evaluate_on_target
from amfvi.mixture import Mixture
from amfvi.outputs import check_directory, new_directory
from amfvi.randomness import stream
from amfvi.readers import read_draws
from amfvi.run_log import RunLog
from amfvi.split import Split
from amfvi.stage_one import StageOneProgress
from amfvi.targets import Target

__all__ = ["CONFIG", "METRICS", "RunSettings", "run"]

SCHEMA = 1
CONFIG = "config.json"
METRICS = "metrics.json"
N_SAVED_DRAWS = 10_000
PACKAGES = ("amfvi", "torch", "nflows", "numpy", "scipy", "scikit-learn", "POT", "safetensors")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What to fit, how, and where to; exactly one of ``target`` and ``draws``.

    Attributes:
        draws: path of a file of draws.
        bounds: (lower, upper) by parameter name.
        timeout: seconds from the start of the run after which training stops.
        out: the run directory; ``runs/<name>-<seed>`` if None.
    """

    experts: Mapping[str, ExpertConfig]
    target: str | None = None
    draws: str | None = None
    weights: str = "ema"
    beta: float | None = None
    n_draws: int | None = None
    n_fresh: int = 0
    folds: int = FOLDS
    test_fraction: float | None = None
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    chains: bool = False
    nonfinite: str | None = None
    seed: int = 0
    device: str = "auto"
    timeout: float | None = None
    out: str | None = None
    force: bool = False
    figures: bool = True

    @property
    def name(self) -> str:
        """The target's name, or the file's without its ending."""
        return self.target if self.target is not None else Path(str(self.draws)).stem

    @property
    def directory(self) -> Path:
        return Path(self.out) if self.out else Path("runs") / f"{self.name}-{self.seed}"


def run(
    settings: RunSettings,
    *,
    progress: StageOneProgress | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Fit, score, draw and write the run directory, whole or not at all.

    Args:
        progress: told how far each expert is.
        say: called with each line of the log as it is written.

    Returns:
        What ``metrics.json`` holds.

    Raises:
        UsageError, InputError, FitError: see ``amfvi.fit``; nothing is written then.
    """
    started = time.monotonic()
    log = RunLog(say)
    beta = check_options(
        settings.weights, settings.beta, settings.seed, settings.timeout, settings.folds
    )
    device = resolve_device(settings.device)
    target, draws = _input(settings, log)
    check_directory(settings.directory, overwrite=settings.force, ours=CONFIG)
    split = split_data(
        target or draws,
        n_draws=settings.n_draws,
        n_fresh=settings.n_fresh,
        folds=settings.folds,
        test_fraction=settings.test_fraction,
        seed=settings.seed,
        **({"chains": settings.chains, "nonfinite": settings.nonfinite} if target else {}),
    )
    log(
        f"{settings.name}: {split.dim} parameters, {len(split.draws)} draws in {settings.folds} "
        f"fold{'s' * (settings.folds > 1)} ({split.n_train} to train a member, {split.n_heldout} "
        f"held out), {0 if split.test is None else len(split.test)} to test; device {device}"
    )
    left = None
    if settings.timeout is not None:
        left = max(settings.timeout - (time.monotonic() - started), 1e-3)
    with log.catching_warnings():
        mixture, summary = fit_split(
            split,
            settings.experts,
            rule=settings.weights,
            beta=beta,
            seed=settings.seed,
            device=device,
            time_limit=left,
            progress=progress,
        )
    _log_fit(log, mixture, summary)
    scoring = time.monotonic()
    with log.catching_warnings():
        evaluation = _evaluate(mixture, split, target, settings.seed)
    seconds = {**summary.seconds, "evaluate": time.monotonic() - scoring}
    saved = mixture.sample((N_SAVED_DRAWS,), stream(settings.seed, "saved draws"))
    with new_directory(settings.directory, overwrite=settings.force, ours=CONFIG) as directory:
        (directory / "model").mkdir()
        write_model(mixture, directory / "model")
        np.savez_compressed(
            directory / "draws.npz", draws=saved.numpy(), names=np.array(mixture.names)
        )
        if settings.figures:
            from amfvi.figures import draw_figures  # matplotlib imports slowly

            (directory / "figures").mkdir()
            draw_figures(mixture, summary, saved, target, directory / "figures")
        seconds["total"] = time.monotonic() - started
        metrics = _metrics(settings, summary, evaluation, seconds, log.warned, draws)
        _write_json(directory / METRICS, metrics)
        _write_json(directory / CONFIG, _config(settings, summary, draws))
        _write_json(directory / "environment.json", _environment(device))
        log(f"written to {settings.directory} after {seconds['total']:.1f} s")
        (directory / "log.txt").write_text("\n".join(log.lines) + "\n", encoding="utf-8")
    return metrics


def _input(settings: RunSettings, log: RunLog) -> tuple[Target | None, Draws | None]:
    if (settings.target is None) == (settings.draws is None):
        raise UsageError("give exactly one of --target NAME and --draws FILE")
    if settings.target is not None:
        if settings.bounds:
            raise UsageError("--positive and --bounds go with --draws; a target knows its own")
        return targets.get(settings.target), None
    with log.catching_warnings():
        draws = read_draws(
            str(settings.draws),
            nonfinite=settings.nonfinite or "error",
            support=settings.bounds or None,
            chains=settings.chains,
        )
    if draws.n_dropped:
        log(f"left out {draws.n_dropped} rows with NaN or infinity")
    return None, draws


def _evaluate(
    mixture: Mixture, split: Split, target: Target | None, seed: int
) -> Evaluation | None:
    if split.test is None:
        return None
    if target is not None:
        return evaluate_on_target(mixture, target, seed=seed, test=split.test)
    return evaluate_on_split(mixture, split, seed=seed)


def _log_fit(log: RunLog, mixture: Mixture, summary: FitSummary) -> None:
    for name, report in summary.reports.items():
        log(
            f"{name}: held-out NLL {report.heldout_nll:.5f} at step {report.best_step}, "
            f"{report.seconds:.1f} s, stopped by: {report.stopped_by}"
        )
    found = summary.weights
    shown = ", ".join(
        f"{name} {weight:.4f}"
        for name, weight in zip(mixture.experts, found.weights.tolist(), strict=True)
    )
    if found.n_ignored:
        log(f"warning: no expert has any density at {found.n_ignored} of {found.n} held-out draws")
    log(f"weights ({found.rule}, {found.steps} steps, gap {found.gap:.2g}): {shown}")
    if found.given_up > 0:
        log(f"leaving out experts that do not earn their place cost {found.given_up:.2g} nats")


def _metrics(
    settings: RunSettings,
    summary: FitSummary,
    evaluation: Evaluation | None,
    seconds: Mapping[str, float],
    warned: list[str],
    draws: Draws | None,
) -> dict[str, Any]:
    split, found = summary.split, summary.weights
    unscored = dict.fromkeys(("nll", "nll_se", "kl", "kl_se", "w2", "w2_sd", "mmd2", "mmd_p"))
    scores = evaluation.to_json() if evaluation is not None else None
    experts = {}
    for (name, report), weight in zip(summary.reports.items(), found.weights, strict=True):
        experts[name] = {
            **(scores["experts"][name] if scores else unscored),
            "weight": float(weight),
            "seconds": report.seconds,
            "converged": report.converged,
            "stopped_by": report.stopped_by,
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
        "n_test": 0 if split.test is None else len(split.test),
        "n_w2": evaluation.n_w2 if evaluation else 0,
        "n_dropped": draws.n_dropped if draws is not None else 0,
        "entropy": evaluation.entropy if evaluation else None,
        "mixture": scores["mixture"] if scores else unscored,
        "experts": experts,
        "weights": {
            "rule": found.rule,
            "beta": found.beta,
            "n_eff": found.n_eff,
            "steps": found.steps,
            "gap": found.gap,
            "given_up": found.given_up,
            "converged": found.converged,
        },
        "advantage": scores["advantage"] if scores else None,
        "floor": scores["floor"] if scores else None,
        "seconds": dict(seconds),
        "warnings": list(warned),
    }


def _config(settings: RunSettings, summary: FitSummary, draws: Draws | None) -> dict[str, Any]:
    fields = asdict(settings)
    fields["experts"] = {name: config.to_json() for name, config in settings.experts.items()}
    fields["bounds"] = {name: list(pair) for name, pair in settings.bounds.items()}
    fields["sha256"] = file_hash(str(settings.draws)) if draws is not None else None
    if draws is None:
        fields["n_draws"] = len(summary.split.draws)
    else:
        fields["test_fraction"] = (
            TEST_FRACTION if settings.test_fraction is None else settings.test_fraction
        )
    return {"schema": SCHEMA, "name": settings.name, **fields}


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _environment(device: torch.device) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: version(name) for name in PACKAGES},
        "device": str(device),
        "accelerator": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
    }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(
        json.dumps(without_nonfinite(value), indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )


def without_nonfinite(value: Any) -> Any:
    """The same with null for NaN and infinity, which JSON cannot hold."""
    if isinstance(value, dict):
        return {key: without_nonfinite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nonfinite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
