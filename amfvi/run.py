"""One run: from a target, draws or a log density to a directory that holds everything."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amfvi import targets
from amfvi.checkpoint import write_model
from amfvi.draws import Draws
from amfvi.errors import UsageError
from amfvi.inference import Inference, infer
from amfvi.log_density import LogDensity
from amfvi.metrics.evaluation import Evaluation, evaluate_on_split, evaluate_on_target
from amfvi.mixture import Mixture
from amfvi.outputs import check_directory, new_directory
from amfvi.randomness import stream
from amfvi.readers import read_draws
from amfvi.run_log import RunLog
from amfvi.run_record import (
    CONFIG,
    METRICS,
    config,
    environment,
    file_hash,
    metrics,
    write_json,
)
from amfvi.run_settings import RunSettings
from amfvi.sampler.checkpoint import SamplerCheckpoint
from amfvi.sampler.tempering import SamplerProgress
from amfvi.split import N_TEST, Split
from amfvi.stage_one import StageOneProgress
from amfvi.targets import Posterior, Target
from amfvi.two_stages import (
    N_DRAWS,
    TEST_FRACTION,
    FitSummary,
    check_options,
    fit_split,
    resolve_device,
    split_data,
)
from amfvi.user_function import load_object, source_of

__all__ = ["SAMPLE", "run"]

SAMPLE = "sample.npz"
N_SAVED_DRAWS = 10_000


@dataclass(frozen=True)
class _Input:
    """What was asked for, found: exactly one of posterior, draws and density is what is fitted."""

    posterior: Posterior | None = None
    draws: Draws | None = None
    density: LogDensity | None = None
    source: Path | None = None

    @property
    def target(self) -> Target | None:
        return self.posterior if isinstance(self.posterior, Target) else None


def run(
    settings: RunSettings,
    *,
    progress: StageOneProgress | None = None,
    sampler_progress: SamplerProgress | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Fit, score, draw and write the run directory, whole or not at all.

    A sampler that is interrupted has saved how far it was, beside the run directory; the
    same command goes on from there.

    Args:
        progress: told how far each expert is.
        sampler_progress: told how far the sampler is.
        say: called with each line of the log as it is written.

    Returns:
        What ``metrics.json`` holds.

    Raises:
        UsageError, InputError, FitError: see ``amfvi.fit``; nothing is written then.
    """
    started = time.monotonic()
    log = RunLog(say)
    settings.check()
    beta = check_options(
        settings.weights, settings.beta, settings.seed, settings.timeout, settings.folds
    )
    device = resolve_device(settings.device)
    found = _input(settings, log)
    check_directory(settings.directory, overwrite=settings.force, ours=CONFIG)

    def left() -> float | None:
        if settings.timeout is None:
            return None
        return max(settings.timeout - (time.monotonic() - started), 1e-3)

    inferred: Inference | None = None
    if found.density is not None:
        checkpoint = SamplerCheckpoint(settings.checkpoint, _fingerprint(settings, found))
        with log.catching_warnings():
            inferred = infer(
                found.density,
                settings.experts,
                n_draws=N_DRAWS if settings.n_draws is None else settings.n_draws,
                test_fraction=_or(settings.test_fraction, TEST_FRACTION),
                rule=settings.weights,
                beta=beta,
                folds=settings.folds,
                seed=settings.seed,
                device=device,
                time_limit=left(),
                max_calls=settings.max_calls,
                checkpoint=checkpoint,
                progress=progress,
                sampler_progress=sampler_progress,
                say=log,
                rounds=settings.rounds,
            )
        mixture, summary = inferred.mixture, inferred.summary
    else:
        split = _split(settings, found)
        _log_split(log, settings, split, device)
        with log.catching_warnings():
            mixture, summary = fit_split(
                split,
                settings.experts,
                rule=settings.weights,
                beta=beta,
                seed=settings.seed,
                device=device,
                time_limit=left(),
                progress=progress,
            )
    _log_fit(log, mixture, summary)
    scoring = time.monotonic()
    with log.catching_warnings():
        evaluation = _evaluate(mixture, summary.split, found.target, settings.seed)
    seconds = {**(inferred.seconds if inferred else summary.seconds)}
    seconds["evaluate"] = time.monotonic() - scoring
    saved = mixture.sample((N_SAVED_DRAWS,), stream(settings.seed, "saved draws"))
    with new_directory(settings.directory, overwrite=settings.force, ours=CONFIG) as directory:
        (directory / "model").mkdir()
        write_model(mixture, directory / "model")
        names = np.array(mixture.names)
        np.savez_compressed(directory / "draws.npz", draws=saved.numpy(), names=names)
        if inferred is not None:
            _write_sample(directory, inferred, names)
        if settings.figures:
            from amfvi.figures import draw_figures  # matplotlib imports slowly

            (directory / "figures").mkdir()
            draw_figures(mixture, summary, saved, found.target, directory / "figures")
        seconds["total"] = time.monotonic() - started
        record = metrics(settings, mixture, summary, evaluation, seconds, log.warned, found.draws)
        write_json(directory / METRICS, record)
        write_json(directory / CONFIG, config(settings, summary, found.source))
        write_json(directory / "environment.json", environment(device))
        if inferred is not None:
            log(f"verdict: {inferred.diagnostics}")
        log(f"written to {settings.directory} after {seconds['total']:.1f} s")
        (directory / "log.txt").write_text("\n".join(log.lines) + "\n", encoding="utf-8")
    if found.density is not None:
        checkpoint.clear()
    return record


def _input(settings: RunSettings, log: RunLog) -> _Input:
    if settings.target is not None:
        posterior = targets.get(settings.target)
        if settings.by_density:
            return _Input(
                posterior,
                density=LogDensity(
                    posterior.log_density,
                    posterior.dim,
                    names=posterior.names,
                    constraints=posterior.constraints,
                    box=posterior.box,
                ),
            )
        if not isinstance(posterior, Target):
            raise UsageError(f"{settings.target} has no exact draws; add --from density")
        return _Input(posterior)
    if settings.log_density is not None:
        found = load_object(settings.log_density)
        source = source_of(settings.log_density)
        return _Input(density=settings.density_of(found), source=source)
    path = str(settings.draws)
    with log.catching_warnings():
        draws = read_draws(
            path,
            nonfinite=settings.nonfinite or "error",
            support=settings.bounds or None,
            chains=settings.chains,
        )
    if draws.n_dropped:
        log(f"left out {draws.n_dropped} rows with NaN or infinity")
    return _Input(draws=draws, source=Path(path))


def _split(settings: RunSettings, found: _Input) -> Split:
    return split_data(
        found.posterior or found.draws,
        n_draws=settings.n_draws,
        n_fresh=settings.n_fresh,
        folds=settings.folds,
        test_fraction=settings.test_fraction,
        seed=settings.seed,
    )


def _fingerprint(settings: RunSettings, found: _Input) -> str:
    """All that the sampler's numbers depend on, in words."""
    what = settings.log_density or f"target {settings.target}"
    source = file_hash(found.source) if found.source is not None else ""
    shape = (settings.seed, settings.n_draws, settings.test_fraction, settings.max_calls)
    of_function = (settings.dim, settings.names, settings.box, dict(settings.bounds))
    experts = {name: expert.to_json() for name, expert in settings.experts.items()}
    return repr((what, source, shape, of_function, experts, settings.weights, settings.folds))


def _evaluate(
    mixture: Mixture, split: Split, target: Target | None, seed: int
) -> Evaluation | None:
    if target is not None:
        test = split.test
        if split.weight is not None or test is None or len(test) != N_TEST:
            test = target.sample(N_TEST, stream(seed, "test"))
        return evaluate_on_target(mixture, target, seed=seed, test=test)
    return None if split.test is None else evaluate_on_split(mixture, split, seed=seed)


def _write_sample(directory: Path, inferred: Inference, names: Any) -> None:
    """What the sampler returned, and weighted draws of the mixture."""
    split, comparison = inferred.summary.split, inferred.comparison
    parts = [(split.draws, split.weight, False), (split.test, split.test_weight, True)]
    kept = [(x, w, test) for x, w, test in parts if x is not None]
    np.savez_compressed(
        directory / SAMPLE,
        draws=torch.cat([x for x, _, _ in kept]).numpy(),
        weight=torch.cat([torch.ones(len(x)) if w is None else w for x, w, _ in kept]).numpy(),
        test=np.concatenate([np.full(len(x), test) for x, _, test in kept]),
        names=names,
    )
    np.savez_compressed(
        directory / "weighted_draws.npz",
        draws=comparison.x.numpy(),
        log_weight=comparison.log_weights.numpy(),
        names=names,
    )


def _log_split(log: RunLog, settings: RunSettings, split: Split, device: torch.device) -> None:
    log(
        f"{settings.name}: {split.dim} parameters, {len(split.draws)} draws in {settings.folds} "
        f"fold{'s' * (settings.folds > 1)} ({split.n_train} to train a member, {split.n_heldout} "
        f"held out), {0 if split.test is None else len(split.test)} to test; device {device}"
    )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _log_fit(log: RunLog, mixture: Mixture, summary: FitSummary) -> None:
    for name, report in summary.reports.items():
        log(
            f"{name}: held-out NLL {report.heldout_nll:.5f} at step {report.best_step}, "
            f"{report.seconds:.1f} s, stopped by: {report.stopped_by}"
        )
    found = summary.weights
    shown = ", ".join(
        f"{name} {weight:.4f}"
        for name, weight in zip(mixture.experts, mixture.weights.tolist(), strict=True)
    )
    if found.n_ignored:
        log(f"warning: no expert has any density at {found.n_ignored} of {found.n} held-out draws")
    log(f"weights ({found.rule}, {found.steps} steps, gap {found.gap:.2g}): {shown}")
