"""One run of a fit to pairs: fit, calibrate, and write the run directory."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amfvi.conditional.posterior import ConditionalPosterior
from amfvi.device import resolve_device
from amfvi.diagnostics.calibration import measure_calibration
from amfvi.diagnostics.calibration_report import Calibration
from amfvi.errors import InputError, MissingFileError
from amfvi.files import check_directory, file_hash, new_directory, write_json
from amfvi.fitting import fit
from amfvi.reporting import Reporter
from amfvi.runs.log import RunLog
from amfvi.runs.record import describe_environment
from amfvi.sealed_json import write_sealed_json
from amfvi.two_stage.options import FitOptions

__all__ = ["ConditionalRun", "calibrate_run", "run_conditional"]

CONFIG = "config.json"
METRICS = "metrics.json"

PAIRS = "held_back.npz"
"""The file of pairs that nothing was fitted to."""


@dataclass(frozen=True, kw_only=True)
class ConditionalRun:
    """A run: pairs, options and the directory.

    Attributes:
        data: the path of a file of pairs, or the name of a conditional target.
        given: the names of a file's columns that are conditions; None for a target.
        constraints: on the columns of a file that are parameters, by name.
        options: how to fit.
        out: the run directory; ``runs/<name>-<seed>`` if None.
        force: whether a run directory that is already there may be replaced.
        figures: whether to draw figures.

    Examples:
        >>> ConditionalRun(data="pairs.csv", given=("c",)).directory.as_posix()
        'runs/pairs-0'
    """

    data: str
    given: tuple[str, ...] | None
    constraints: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    options: FitOptions = field(default_factory=FitOptions)
    out: str | None = None
    force: bool = False
    figures: bool = True

    @property
    def directory(self) -> Path:
        """The run directory."""
        name = f"{Path(self.data).stem}-{self.options.seed}"
        return Path(self.out) if self.out else Path("runs") / name

    def to_json(self) -> dict[str, Any]:
        """Describe the run in JSON values."""
        return {
            "data": self.data,
            "given": None if self.given is None else list(self.given),
            "constraints": {name: list(pair) for name, pair in self.constraints.items()},
            **self.options.to_json(),
            "sha256": None if self.given is None else file_hash(self.data),
        }


def run_conditional(
    settings: ConditionalRun, *, reporter: Reporter | None = None
) -> dict[str, Any]:
    """Fit to pairs, measure calibration on those held back, and write the run directory.

    Returns:
        What ``metrics.json`` holds.

    Raises:
        UsageError, InputError, FitError: see ``amfvi.fit``; no run directory is written.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     metrics = run_conditional(ConditionalRun(
        ...         data="sinus", given=None, out=f"{folder}/run", figures=False,
        ...         options=FitOptions(experts="gmm", n_draws=200)))
        >>> metrics["n_fitted"], metrics["n_held_back"]
        (170, 30)
    """
    started = time.monotonic()
    log = RunLog(reporter or Reporter())
    check_directory(settings.directory, overwrite=settings.force, marker=CONFIG)
    with log.catching_warnings():
        posterior: object
        if settings.given is None:
            posterior = fit(settings.data, options=settings.options, reporter=log)
        else:
            posterior = fit(
                Path(settings.data), given=settings.given, options=settings.options, reporter=log,
                constraints=settings.constraints or None,
            )  # fmt: skip
        if not isinstance(posterior, ConditionalPosterior):  # a target without a condition
            raise InputError(f"{settings.data}: no conditional target")
        calibration = None
        if settings.options.test_share > 0:
            calibration = posterior.calibration(seed=settings.options.seed)
    record = _record(settings, posterior, calibration, log, time.monotonic() - started)
    with new_directory(settings.directory, overwrite=settings.force, marker=CONFIG) as directory:
        _write(directory, settings, posterior, calibration, record)
        log.log(f"written to {settings.directory} after {record['seconds']['total']:.1f} s")
        (directory / "log.txt").write_text("\n".join(log.lines) + "\n", encoding="utf-8")
    return record


def calibrate_run(directory: str | Path, *, n_draws: int = 200, seed: int = 0) -> Calibration:
    """Measure the calibration of a saved run on the pairs that it held back.

    Raises:
        InputError: no run of pairs, or one that held nothing back.

    Examples:
        >>> calibrate_run("no-such-run")
        Traceback (most recent call last):
        amfvi.errors.MissingFileError: no-such-run: no such model or run directory
    """
    model = ConditionalPosterior.read(directory)
    file = Path(directory) / PAIRS
    if not file.is_file():
        raise MissingFileError(f"{file}: no such file; the run held no pairs back (test_fraction=)")
    with np.load(file, allow_pickle=False) as saved:
        given, y = torch.from_numpy(saved["given"]), torch.from_numpy(saved["y"])
    return measure_calibration(model, given, y, n_draws=n_draws, seed=seed, names=model.names)


def _record(
    settings: ConditionalRun,
    posterior: ConditionalPosterior,
    calibration: Calibration | None,
    log: RunLog,
    seconds: float,
) -> dict[str, Any]:
    summary = posterior.summary
    if summary is None:
        raise ValueError("a posterior fitted in this process has a summary")
    weights = posterior.weights.tolist()
    return {
        "name": Path(settings.data).stem,
        "names": list(posterior.names),
        "given_names": list(posterior.given_names),
        "n_fitted": len(summary.split.draws),
        "n_held_back": 0 if summary.split.test is None else len(summary.split.test),
        "experts": {
            name: {"weight": weight, "heldout_nll": summary.reports[name].heldout_nll}
            for name, weight in zip(posterior.experts, weights, strict=True)
        },
        "weights": {"n_eff": 1 / sum(weight**2 for weight in weights)},
        "calibration": None if calibration is None else calibration.to_json(),
        "seconds": {**summary.seconds, "total": seconds},
        "warnings": log.warned,
    }


def _write(
    directory: Path,
    settings: ConditionalRun,
    posterior: ConditionalPosterior,
    calibration: Calibration | None,
    record: Mapping[str, Any],
) -> None:
    (directory / "model").mkdir()
    posterior.write(directory / "model")
    split = None if posterior.summary is None else posterior.summary.split
    if split is not None and split.test is not None and split.test_given is not None:
        np.savez_compressed(directory / PAIRS, given=split.test_given.numpy(), y=split.test.numpy())
    if settings.figures and calibration is not None:
        from amfvi.runs.calibration_figures import draw_calibration_figures  # matplotlib is slow

        (directory / "figures").mkdir()
        draw_calibration_figures(calibration, directory / "figures")
    write_json(directory / METRICS, dict(record))
    config = {**settings.to_json(), "metrics_sha256": file_hash(directory / METRICS)}
    write_sealed_json(directory / CONFIG, config)
    device = resolve_device(settings.options.device)
    write_json(directory / "environment.json", describe_environment(device))
