"""Maximum-likelihood training of an ensemble of flows, with early stopping."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable

import torch
from amfvi.experts.base import Checkpoint, FitReport, Progress
from amfvi.experts.flow import Parameters
from amfvi.experts.folds import Folds
from amfvi.experts.steps import Loss, Steps
from amfvi.experts.training_settings import Training
from torch import Tensor

from amfvi.errors import AmfviWarning, FitError

__all__ = ["train"]

WARMUP = 20  # steps over which the learning rates rise


def train(
    name: str,
    nll: Loss,
    frozen_nll: Loss,
    initial: Parameters,
    masks: Parameters,
    draws: Tensor,
    folds: Folds,
    settings: Training,
    *,
    generator: torch.Generator,
    offset: Tensor | float = 0.0,
    progress: Progress | None = None,
    time_limit: float | None = None,
) -> tuple[Parameters, FitReport]:
    """The best parameters met, and how they were found.

    Args:
        name: the expert's, for messages.
        nll: from parameters and points (members, d, n) to negative log densities
            (members, n), nats.
        frozen_nll: the same, quicker and without gradients.
        initial: parameters by name, each (members, …), on the device of ``draws``.
        masks: for each, 1 where it may change.
        draws: all draws as each member sees them, (members, d, n).
        offset: (members,), added to every reported NLL, so that curves are in the
            units of the unwhitened draws.

    Raises:
        FitError: the starting state already has no finite held-out density.
    """
    started = time.monotonic()
    score = _heldout_score(frozen_nll, draws, folds, offset)
    steps = Steps(nll, initial, masks, draws, folds, settings, generator)
    best_nll, best_step = score(steps.averaged), 0
    if not math.isfinite(best_nll):
        raise FitError(f"{name}: no finite held-out density at the start (NLL {best_nll})")
    best = _copy(steps.averaged)
    level = float(torch.as_tensor(offset).mean())
    history = [Checkpoint(step=0, train_nll=best_nll, heldout_nll=best_nll)]
    step = stale = 0
    decay_from, decay_over = None, 1
    most = settings.max_steps + settings.decay_steps(settings.max_steps)
    stopped_by, converged = "max_steps", False

    while True:
        for _ in range(settings.check_every):
            step += 1
            left = 1.0 if decay_from is None else 1 - (step - decay_from - 1) / decay_over
            steps.take(min(1.0, step / WARMUP) * left, min(settings.averaging, step / (step + 3)))
        train_nll, heldout_nll = steps.mean_loss() + level, score(steps.averaged)
        if not math.isfinite(train_nll):
            stopped_by = f"non-finite loss by step {step}"
            warnings.warn(
                f"{name}: {stopped_by}; training stopped, the state of step {best_step} is kept",
                AmfviWarning,
                stacklevel=2,
            )
            break
        history.append(Checkpoint(step=step, train_nll=train_nll, heldout_nll=heldout_nll))
        if heldout_nll < best_nll:  # false for NaN
            best_nll, best_step, best, stale = heldout_nll, step, _copy(steps.averaged), 0
        else:
            stale += 1
        if progress is not None:
            progress(min(step / most, 1.0), best_nll)
        if time_limit is not None and time.monotonic() - started > time_limit:
            stopped_by = "timeout"
            break
        if decay_from is None:
            if stale >= settings.patience or step >= settings.max_steps:
                converged = stale >= settings.patience
                decay_from, decay_over, stale = step, settings.decay_steps(best_step), 0
                steps.restart(best)
        elif step - decay_from >= decay_over or stale >= 2 * settings.patience:
            # An end in the last phase is an end by design, unless the first was cut short.
            if converged:
                stopped_by = "no further improvement on held-out draws"
            break

    return best, FitReport(
        history=tuple(history),
        best_step=best_step,
        converged=converged and stopped_by.startswith("no further"),
        stopped_by=stopped_by,
        seconds=time.monotonic() - started,
    )


def _heldout_score(
    nll: Loss, draws: Tensor, folds: Folds, offset: Tensor | float
) -> Callable[[Parameters], float]:
    """Mean over all held-out draws of the NLL of the member blind to each."""
    rows = [r.to(draws.device) for r in folds.heldout_rows]
    longest = max(len(r) for r in rows)
    index = torch.stack([torch.cat([r, r[:1].expand(longest - len(r))]) for r in rows])
    points = draws.gather(2, index[:, None].expand(-1, draws.shape[1], -1))
    counts = torch.tensor([len(r) for r in rows], device=draws.device)
    real = torch.arange(longest, device=draws.device) < counts[:, None]
    weights = None if folds.weight is None else folds.weights.to(draws.device)[index][real]
    shift = torch.as_tensor(offset, dtype=torch.float64, device=draws.device).expand(len(rows))

    @torch.no_grad()
    def score(parameters: Parameters) -> float:
        each = nll(parameters, points).double() + shift[:, None]
        if weights is None:
            return float(each[real].mean())
        return float((each[real] * weights).sum() / weights.sum())

    return score


def _copy(parameters: Parameters) -> Parameters:
    return {name: value.detach().clone() for name, value in parameters.items()}
