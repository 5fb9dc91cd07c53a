"""Stage one: fit every expert alone, on the same draws, and freeze it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from amfvi.experts import Expert, ExpertConfig, FitReport, Progress
from amfvi.randomness import stream

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
    train: Tensor,
    heldout: Tensor,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    progress: StageOneProgress | None = None,
    time_limit: float | None = None,
) -> dict[str, FittedExpert]:
    """Fit each expert to ``train`` (n, d), choosing its best state on ``heldout``.

    Each expert has a random stream of its own, named after it, so that what one
    becomes depends neither on which others are fitted nor on which runs first. On a
    CPU they are fitted side by side in threads. ``time_limit``, in seconds, is for all
    of them: each gets a fair part of what is left when its turn comes.

    Raises:
        FitError: an expert could not be fitted; the message names it.
    """
    started = time.monotonic()
    cancelled = threading.Event()
    # Small networks leave a second core idle; an accelerator takes them in turn.
    workers = min(len(configs), os.cpu_count() or 1) if str(device) == "cpu" else 1

    def fit_one(position: int, name: str, config: ExpertConfig) -> FittedExpert:
        share = None
        if time_limit is not None:
            left = max(time_limit - (time.monotonic() - started), 0.0)
            share = left * min(1.0, workers / (len(configs) - position))
        expert, report = config.fit(
            train,
            heldout,
            generator=stream(seed, "expert", name),
            device=device,
            progress=watch(name),
            time_limit=share,
        )
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

    with ThreadPoolExecutor(workers) as pool:
        jobs = {
            name: pool.submit(fit_one, position, name, config)
            for position, (name, config) in enumerate(configs.items())
        }
        try:
            return {name: job.result() for name, job in jobs.items()}
        except BaseException:  # an expert failed, or somebody pressed Ctrl-C: stop the others
            cancelled.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


class _CancelledError(Exception):
    """Ends the fit of an expert that nobody waits for any more."""
