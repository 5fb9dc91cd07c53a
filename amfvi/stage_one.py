"""Stage one: fit every expert alone, on the same draws, and freeze it."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from queue import Queue
from typing import Any, Protocol

import torch

from amfvi.errors import AmfviWarning
from amfvi.experts import Expert, ExpertConfig, FitReport, Folds, Progress
from amfvi.randomness import stream
from amfvi.worker import WORTH_A_PROCESS, Worker, WorkerError, end_early, take
from amfvi.worker_process import fit_on_one_thread

__all__ = ["FittedExpert", "StageOneProgress", "fit_experts"]


class StageOneProgress(Protocol):
    """Told how far each expert is; ``fraction`` of its longest possible fit."""

    def __call__(self, expert: str, fraction: float, heldout_nll: float) -> None: ...


@dataclass(frozen=True)
class FittedExpert:
    """An expert with the report of its fit."""

    expert: Expert
    report: FitReport


def fit_experts(
    configs: Mapping[str, ExpertConfig],
    folds: Folds,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    progress: StageOneProgress | None = None,
    time_limit: float | None = None,
) -> dict[str, FittedExpert]:
    """Fit each expert to the same folds.

    Each expert has a random stream of its own, named after it, so that what one
    becomes depends neither on which others are fitted nor on which runs first. On a
    CPU they are fitted side by side, a few thousand draws at least in processes of
    their own. ``time_limit``, in seconds, is for all of them: each gets a fair part of
    what is left when its turn comes.

    Raises:
        FitError: an expert could not be fitted; the message names it.
    """
    started = time.monotonic()
    cancelled = threading.Event()
    on_cpu = torch.device(device).type == "cpu"
    # Small networks leave a second core idle; an accelerator takes them in turn.
    workers = min(len(configs), os.cpu_count() or 1) if on_cpu else 1
    helpers: Queue[Worker | None] = Queue()
    helpers.put(None)  # this process

    def fit_one(position: int, name: str, config: ExpertConfig) -> FittedExpert:
        share = None
        if time_limit is not None:
            left = max(time_limit - (time.monotonic() - started), 0.0)
            share = left * min(1.0, workers / (len(configs) - position))
        options: dict[str, Any] = {"progress": watch(name), "time_limit": share}
        helper = helpers.get()
        try:
            expert, report = _fit(helper, config, folds, name, seed, device, options)
        finally:
            helpers.put(helper)
        if progress is not None:
            progress(name, 1.0, report.heldout_nll)
        return FittedExpert(expert, report)

    def watch(name: str) -> Progress:
        def tell(fraction: float, heldout_nll: float) -> None:
            if cancelled.is_set():
                raise _CancelledError
            if progress is not None:
                progress(name, fraction, heldout_nll)

        return tell

    with ExitStack() as stack, ThreadPoolExecutor(workers) as pool:
        own_processes = len(folds) * folds.members >= WORTH_A_PROCESS
        for _ in range(workers - 1):
            helpers.put(_started_worker(stack) if own_processes else None)
        end_early()
        jobs = {
            name: pool.submit(fit_one, position, name, config)
            for position, (name, config) in enumerate(configs.items())
        }
        try:
            wait(jobs.values(), return_when=FIRST_EXCEPTION)
            for job in jobs.values():
                if job.done():
                    job.result()  # raises what it raised, before anything waits for the rest
            return {name: job.result() for name, job in jobs.items()}
        except BaseException:  # an expert failed, or somebody pressed Ctrl-C: stop the others
            cancelled.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _started_worker(stack: ExitStack) -> Worker | None:
    try:
        return stack.enter_context(take())
    except WorkerError:  # then this process does the work in one more thread
        return None


def _fit(
    helper: Worker | None,
    config: ExpertConfig,
    folds: Folds,
    name: str,
    seed: int,
    device: torch.device | str,
    options: Mapping[str, Any],
) -> tuple[Expert, FitReport]:
    # A family defined in the caller's own script means nothing to another process.
    if helper is not None and type(config).__module__.startswith("amfvi."):
        try:
            return helper.fit(config, folds, generator=stream(seed, "expert", name), **options)
        except WorkerError as error:
            warnings.warn(f"{name}: {error}; fitting here", AmfviWarning, stacklevel=2)
    return fit_on_one_thread(
        config, folds, generator=stream(seed, "expert", name), device=device, **options
    )


class _CancelledError(Exception):
    """Ends the fit of an expert that nobody waits for any more."""
