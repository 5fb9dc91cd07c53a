"""Stage one: fit every expert alone, on the same draws, and freeze it."""

from __future__ import annotations

import time
from collections.abc import Mapping
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
    becomes does not depend on which others are fitted. ``time_limit``, in seconds,
    is for all of them: each gets an equal part of what is left when its turn comes.

    Raises:
        FitError: an expert could not be fitted; the message names it.
    """
    started = time.monotonic()
    fitted: dict[str, FittedExpert] = {}
    for name, config in configs.items():
        share = None
        if time_limit is not None:
            left = max(time_limit - (time.monotonic() - started), 0.0)
            share = left / (len(configs) - len(fitted))
        expert, report = config.fit(
            train,
            heldout,
            generator=stream(seed, "expert", name),
            device=device,
            progress=_named(progress, name),
            time_limit=share,
        )
        if progress is not None:
            progress(name, 1.0, report.heldout_nll)
        fitted[name] = FittedExpert(expert, report)
    return fitted


def _named(progress: StageOneProgress | None, name: str) -> Progress | None:
    if progress is None:
        return None
    return lambda fraction, heldout_nll: progress(name, fraction, heldout_nll)
