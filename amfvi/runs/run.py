"""One run: a fit, its scores and its files, in a directory written whole or not at all."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amfvi.density.log_density import LogDensity
from amfvi.device import resolve_device
from amfvi.files import check_directory, file_hash, new_directory
from amfvi.fitting import fit_source
from amfvi.inference.checkpoint import describe_values
from amfvi.json_files import write_json
from amfvi.metrics.evaluation import Evaluation, evaluate_on_split, evaluate_on_target
from amfvi.posterior import Posterior
from amfvi.randomness import generator_for
from amfvi.reporting import Reporter
from amfvi.runs.input import RunInput, load_input
from amfvi.runs.log import RunLog
from amfvi.runs.record import (
    CONFIG,
    METRICS,
    describe_config,
    describe_environment,
    describe_metrics,
)
from amfvi.runs.settings import RunSettings
from amfvi.sampler.checkpoint import SamplerCheckpoint
from amfvi.sampler.integrability import NotIntegrableError
from amfvi.saving import write_model
from amfvi.sealed_json import write_sealed_json
from amfvi.two_stage.fit import FitSummary
from amfvi.two_stage.weights import WeightFit

__all__ = ["SAMPLE", "run"]

SAMPLE = "sample.npz"
"""File of the sampler's draws in the directory of a run by log density."""

N_SAVED_DRAWS = 10_000
"""Draws of the mixture that are saved."""


def run(
    settings: RunSettings, *, reporter: Reporter | None = None, floor_cache: Path | None = None
) -> dict[str, Any]:
    """Fit, score, draw and write the run directory, whole or not at all.

    When a run by log density is interrupted, the state of its sampler stays beside the run
    directory, and the same settings resume it; the exception has a note that says so.

    Args:
        reporter: receives log lines and progress.
        floor_cache: file that keeps floors of targets between runs.

    Returns:
        What ``metrics.json`` holds.

    Raises:
        UsageError, InputError, FitError: see ``amfvi.fit``; no run directory is written.

    Examples:
        >>> import tempfile
        >>> from amfvi.runs.settings import FitOptions, InputSettings
        >>> draws = torch.randn(200, 1, generator=torch.Generator().manual_seed(0)).numpy()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/draws.npy", draws)
        ...     metrics = run(RunSettings(
        ...         input=InputSettings(draws=f"{folder}/draws.npy"), out=f"{folder}/run",
        ...         options=FitOptions(experts="gmm"), figures=False))
        >>> metrics["name"], metrics["n_test"]
        ('draws', 30)
    """
    task = _Task(
        settings=settings,
        log=RunLog(reporter or Reporter()),
        floor_cache=floor_cache,
        directory=settings.directory.absolute(),
        device=resolve_device(settings.options.device),
    )
    check_directory(settings.directory, overwrite=settings.force, marker=CONFIG)
    checkpoint_path = settings.checkpoint.absolute()
    checkpoint = None
    try:
        run_input = load_input(settings.input, task.log)
        with task.log.catching_warnings():
            if isinstance(run_input.source, LogDensity):
                checkpoint = SamplerCheckpoint(checkpoint_path, _fingerprint(settings, run_input))
            posterior = fit_source(
                run_input.source, settings.options, reporter=task.log, checkpoint=checkpoint
            )
        record = _write(task, run_input, posterior)
    except BaseException as error:
        _note_what_is_kept(error, checkpoint, settings)
        raise
    if checkpoint is not None:
        checkpoint.clear()
    return record


def _note_what_is_kept(
    error: BaseException, checkpoint: SamplerCheckpoint | None, settings: RunSettings
) -> None:
    """Add to an error what a run that it ended leaves behind."""
    if not isinstance(error, Exception):  # an interrupt
        error.add_note("no run was written")
    if checkpoint is None:
        return
    if isinstance(error, NotIntegrableError):
        checkpoint.clear()  # the same command would only fail again
    elif checkpoint.path.exists():
        error.add_note(
            f"the sampler's state is kept in {settings.checkpoint}; the same command resumes it"
        )


@dataclass(frozen=True, kw_only=True)
class _Task:
    """A run in progress.

    Attributes:
        directory: the run directory, absolute since a user's module may change the working
            directory.
        started: by the monotonic clock, seconds.
    """

    settings: RunSettings
    log: RunLog
    floor_cache: Path | None
    directory: Path
    device: torch.device
    started: float = field(default_factory=time.monotonic)


def _write(task: _Task, run_input: RunInput, posterior: Posterior) -> dict[str, Any]:
    """Score the posterior and write everything; the record of ``metrics.json``."""
    settings, log = task.settings, task.log
    summary = _require_summary(posterior)
    _log_fit(log, posterior, summary)
    with new_directory(task.directory, overwrite=settings.force, marker=CONFIG) as directory:
        # Optimal transport lets other threads run, and figures take as long.
        with log.catching_warnings(), ThreadPoolExecutor(max_workers=1) as beside:
            scoring = beside.submit(_evaluate, task, run_input, posterior)
            _write_posterior(directory, task, run_input, posterior, summary)
            evaluation, scoring_seconds = scoring.result()
        total = time.monotonic() - task.started
        seconds = {**summary.seconds, "evaluate": scoring_seconds, "total": total}
        record = describe_metrics(
            settings, posterior, evaluation, seconds, log.warned, run_input.n_dropped
        )
        write_json(directory / METRICS, record)
        config = describe_config(settings, summary, run_input.file)
        config["metrics_sha256"] = file_hash(directory / METRICS)
        write_sealed_json(directory / CONFIG, config)
        write_json(directory / "environment.json", describe_environment(task.device))
        if posterior.diagnostics is not None:
            log.log(f"verdict: {posterior.diagnostics}")
        log.log(f"written to {settings.directory} after {total:.1f} s")
        (directory / "log.txt").write_text("\n".join(log.lines) + "\n", encoding="utf-8")
    return record


def _write_posterior(
    directory: Path,
    task: _Task,
    run_input: RunInput,
    posterior: Posterior,
    summary: FitSummary,
) -> None:
    """Write model, draws and figures, which need no scores."""
    settings = task.settings
    generator = generator_for(settings.options.seed, "saved draws")
    saved = posterior.sample((N_SAVED_DRAWS,), generator)
    names = np.array(posterior.names)
    (directory / "model").mkdir()
    write_model(posterior, directory / "model", metadata=posterior.metadata())
    np.savez_compressed(directory / "draws.npz", draws=saved.numpy(), names=names)
    if posterior.diagnostics is not None:
        _write_sample(directory, posterior, summary, names)
    if settings.figures:
        from amfvi.runs.figures import draw_figures  # matplotlib imports slowly

        (directory / "figures").mkdir()
        draw_figures(
            posterior, summary, saved, run_input.exact, directory / "figures",
            seed=settings.options.seed, paths=task.log.sampler_paths,
        )  # fmt: skip


def _require_summary(posterior: Posterior) -> FitSummary:
    if posterior.summary is None:
        raise ValueError("a posterior fitted in this process has a summary")
    return posterior.summary


def _fingerprint(settings: RunSettings, run_input: RunInput) -> str:
    """All that the sampler's numbers depend on, in words.

    The values at a few points stand for files that the user's function reads.
    """
    density = run_input.source
    values = describe_values(density) if isinstance(density, LogDensity) else []
    source = file_hash(run_input.file) if run_input.file is not None else ""
    described = {
        key: value
        for key, value in settings.to_json().items()
        if key not in ("out", "force", "figures", "jobs", "cluster")
    }
    return repr((described, source, values))


def _evaluate(
    task: _Task, run_input: RunInput, posterior: Posterior
) -> tuple[Evaluation | None, float]:
    """The scores, where there is something to score on, and the seconds that they took."""
    started = time.monotonic()
    evaluation = _score(task, run_input, posterior)
    return evaluation, time.monotonic() - started


def _score(task: _Task, run_input: RunInput, posterior: Posterior) -> Evaluation | None:
    summary, seed = _require_summary(posterior), task.settings.options.seed
    test = summary.split.test
    if run_input.exact is not None:
        # The test draws of a sampler are not exact; fresh ones are.
        exact_test = None if posterior.diagnostics is not None else test
        return evaluate_on_target(
            posterior, run_input.exact, seed=seed, test=exact_test, floor_cache=task.floor_cache
        )
    return None if test is None else evaluate_on_split(posterior, summary.split, seed=seed)


def _write_sample(
    directory: Path, posterior: Posterior, summary: FitSummary, names: np.ndarray[Any, Any]
) -> None:
    """Write the sampler's draws, and weighted draws of the mixture."""
    split = summary.split
    parts = [
        (split.draws, split.sample_weight, False),
        (split.test, split.test_sample_weight, True),
    ]
    kept = [(x, w, is_test) for x, w, is_test in parts if x is not None]
    np.savez_compressed(
        directory / SAMPLE,
        draws=torch.cat([x for x, _, _ in kept]).numpy(),
        weight=torch.cat([torch.ones(len(x)) if w is None else w for x, w, _ in kept]).numpy(),
        test=np.concatenate([np.full(len(x), is_test) for x, _, is_test in kept]),
        names=names,
    )
    weighted = posterior.weighted_draws()
    np.savez_compressed(
        directory / "weighted_draws.npz",
        draws=weighted.x.numpy(),
        log_weight=weighted.log_weights.numpy(),
        names=names,
    )


def _log_fit(log: RunLog, posterior: Posterior, summary: FitSummary) -> None:
    for name, report in summary.reports.items():
        step_name = posterior.experts[name].config.step_name
        log.log(
            f"{name}: held-out NLL {report.heldout_nll:.5f} at {step_name} {report.best_step}, "
            f"{report.seconds:.1f} s, stopped by: {report.stopped_by}"
        )
    weights = summary.weights
    shown = ", ".join(
        f"{name} {weight:.4f}"
        for name, weight in zip(posterior.experts, posterior.weights.tolist(), strict=True)
    )
    if weights.n_ignored:
        log.warn(f"no expert has any density at {weights.n_ignored} of {weights.n} held-out draws")
    log.log(
        f"weights ({weights.weight_rule}, {weights.steps} steps{_of_newton(weights)}, "
        f"gap {weights.gap:.2g}): {shown}"
    )
    if weights.left_out:
        names = list(posterior.experts)
        log.log(
            f"left out, at a price of {weights.price:.2g} nats: "
            + ", ".join(names[k] for k in weights.left_out)
        )


def _of_newton(weights: WeightFit) -> str:
    return f", the last {weights.newton_steps} Newton's" if weights.newton_steps else ""
