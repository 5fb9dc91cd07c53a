"""One run of a fit to pairs: simulate, fit, calibrate, and write the run directory."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from amfvi.conditional.posterior import ConditionalPosterior
from amfvi.device import resolve_device
from amfvi.diagnostics.calibration_report import Calibration
from amfvi.errors import InputError, UsageError
from amfvi.files import check_directory, file_hash, new_directory
from amfvi.fitting import fit
from amfvi.json_files import write_json
from amfvi.reporting import Reporter
from amfvi.runs.conditional_saved import HELD_BACK
from amfvi.runs.log import RunLog
from amfvi.runs.record import CONFIG, METRICS, describe_environment
from amfvi.runs.simulations import SimulatorSettings, make_simulations, write_simulations
from amfvi.sealed_json import write_sealed_json
from amfvi.simulation.simulations import Simulations
from amfvi.two_stage.options import FitOptions, InputKind

__all__ = ["ConditionalRun", "run_conditional"]


@dataclass(frozen=True, kw_only=True)
class ConditionalRun:
    """A run: pairs, options and the directory.

    Attributes:
        data: the path of a file of pairs, or the name of a conditional target; None for a
            simulator.
        given: the names of a file's columns that are conditions; None otherwise.
        simulator: what simulates the pairs; None otherwise.
        constraints: on the columns of a file that are parameters, by name.
        options: how to fit.
        out: the run directory; ``runs/<name>-<seed>`` if None.
        force: whether a run directory that is already there may be replaced.
        figures: whether to draw figures.

    Examples:
        >>> ConditionalRun(data="pairs.csv", given=("c",)).directory.as_posix()
        'runs/pairs-0'
    """

    data: str | None = None
    given: tuple[str, ...] | None = None
    simulator: SimulatorSettings | None = None
    constraints: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    options: FitOptions = field(default_factory=FitOptions)
    out: str | None = None
    force: bool = False
    figures: bool = True

    def __post_init__(self) -> None:
        if (self.data is None) == (self.simulator is None):
            raise UsageError("give draws=, target= or simulator=, one of them")
        kind = InputKind.PAIRS if self.given is not None else InputKind.SIMULATOR
        self.options.check_for(kind)

    @property
    def name(self) -> str:
        """The file's name without its ending, the target's, or the simulator's."""
        return self.simulator.name if self.simulator else Path(str(self.data)).stem

    @property
    def directory(self) -> Path:
        """The run directory."""
        return Path(self.out) if self.out else Path("runs") / f"{self.name}-{self.options.seed}"

    @property
    def checkpoint(self) -> Path:
        """The directory in which simulations are kept until the run is written, beside it."""
        return self.directory.parent / f".{self.directory.name}.simulations"

    def to_json(self) -> dict[str, Any]:
        """Describe the run in JSON values."""
        if self.simulator is not None:
            return {**self.options.to_json(), **self.simulator.to_json()}
        return {
            "data": self.data,
            "given": None if self.given is None else list(self.given),
            "constraints": {name: list(pair) for name, pair in self.constraints.items()},
            **self.options.to_json(),
            "sha256": None if self.given is None else file_hash(str(self.data)),
        }


def run_conditional(
    settings: ConditionalRun, *, reporter: Reporter | None = None
) -> dict[str, Any]:
    """Fit to pairs, measure calibration on those held back, and write the run directory.

    Simulations are kept beside the run directory until it is written. When a run is
    interrupted or fails, the same settings go on with them; the exception has a note.

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
    out, kept = settings.directory.absolute(), settings.checkpoint.absolute()
    config = settings.to_json()  # of files as they are before anything is computed
    try:
        with log.catching_warnings():
            simulations = _simulate(settings, kept, log)
            posterior = _fit(settings, simulations, log)
            calibration = None
            if settings.options.test_share > 0:
                calibration = posterior.calibration(seed=settings.options.seed)
        record = _record(settings, posterior, calibration, log, time.monotonic() - started)
        if simulations is not None:
            record |= {"n_simulated": simulations.n_simulated, "n_failed": simulations.n_failed}
        with new_directory(out, overwrite=settings.force, marker=CONFIG) as directory:
            if simulations is not None:
                write_simulations(simulations, directory)
            _write(directory, settings, config, posterior, calibration, record)
            log.log(f"written to {settings.directory} after {record['seconds']['total']:.1f} s")
            (directory / "log.txt").write_text("\n".join(log.lines) + "\n", encoding="utf-8")
    except BaseException as error:
        if not isinstance(error, Exception):  # an interrupt
            error.add_note("no run was written")
        if kept.is_dir():
            error.add_note(
                f"simulations are kept in {settings.checkpoint}; the same command goes on from them"
            )
        raise
    shutil.rmtree(kept, ignore_errors=True)
    return record


def _simulate(settings: ConditionalRun, kept: Path, log: RunLog) -> Simulations | None:
    if settings.simulator is None:
        return None
    options = settings.options
    return make_simulations(settings.simulator, options.draws_wanted, options.seed, kept, log)


def _fit(
    settings: ConditionalRun, simulations: Simulations | None, log: RunLog
) -> ConditionalPosterior:
    posterior: object
    if simulations is not None:
        options = replace(settings.options, n_draws=None)  # which are made already
        return fit(simulations, options=options, reporter=log)
    if settings.given is not None:
        return fit(
            Path(str(settings.data)), given=settings.given, options=settings.options, reporter=log,
            constraints=settings.constraints or None,
        )  # fmt: skip
    posterior = fit(str(settings.data), options=settings.options, reporter=log)
    if not isinstance(posterior, ConditionalPosterior):  # a target without a condition
        raise InputError(f"{settings.data}: no conditional target")
    return posterior


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
        "name": settings.name,
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
    config: Mapping[str, Any],
    posterior: ConditionalPosterior,
    calibration: Calibration | None,
    record: Mapping[str, Any],
) -> None:
    (directory / "model").mkdir()
    posterior.write(directory / "model")
    split = None if posterior.summary is None else posterior.summary.split
    if split is not None and split.test is not None and split.test_given is not None:
        np.savez_compressed(
            directory / HELD_BACK, given=split.test_given.numpy(), y=split.test.numpy()
        )
        if settings.figures and calibration is not None:
            from amfvi.runs.conditional_figures import draw_pairs_figures  # matplotlib is slow

            draw_pairs_figures(
                posterior, calibration, split.test_given, split.test, directory / "figures",
                seed=settings.options.seed,
            )  # fmt: skip
    write_json(directory / METRICS, dict(record))
    sealed = {**config, "metrics_sha256": file_hash(directory / METRICS)}
    write_sealed_json(directory / CONFIG, sealed)
    device = resolve_device(settings.options.device)
    write_json(directory / "environment.json", describe_environment(device))
