"""Maximum-likelihood training of a neural flow on draws, with early stopping."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from amfvi.experts.base import Checkpoint, FitReport, Progress
from torch import Tensor, nn

from amfvi.errors import AmfviWarning, FitError

__all__ = ["Training", "train"]


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a flow is trained.

    AdamW steps on shuffled minibatches; an exponential moving average of the
    parameters is what is scored on the held-out draws and kept. When that score
    has not improved for ``patience`` checks, training goes on from the best state
    at a third of the learning rate, ``annealings`` times, then stops.

    Attributes:
        learning_rate, weight_decay: of AdamW.
        batch_size: rows a step; at most a third of the training draws.
        max_steps: most steps.
        check_every: steps between two looks at the held-out draws.
        patience: looks without improvement before annealing or stopping.
        annealings: how often the learning rate is cut.
        clip_norm: largest norm of a gradient.
        averaging: decay a step of the parameter average, in [0, 1).
    """

    learning_rate: float = 5e-3
    batch_size: int = 512
    max_steps: int = 5000
    check_every: int = 25
    patience: int = 6
    annealings: int = 2
    weight_decay: float = 1e-4
    clip_norm: float = 5.0
    averaging: float = 0.99


def train(
    name: str,
    flow: nn.Module,
    nll: Callable[[nn.Module, Tensor], Tensor],
    train_draws: Tensor,
    heldout_draws: Tensor,
    settings: Training,
    *,
    generator: torch.Generator,
    offset: float = 0.0,
    progress: Progress | None = None,
    time_limit: float | None = None,
) -> FitReport:
    """Train ``flow`` in place and leave it in its best state.

    Args:
        name: the expert's, for messages.
        nll: per-point negative log density of a flow at whitened points, nats.
        train_draws, heldout_draws: whitened, (n, d), on the device of ``flow``.
        offset: added to every reported NLL, so that curves are in the units of
            the unwhitened draws.

    Raises:
        FitError: the starting state already has no finite held-out density.
    """
    started = time.monotonic()
    n = len(train_draws)
    batch = min(settings.batch_size, max(n // 3, 64), n)  # small samples: a few steps an epoch
    parameters = [p for p in flow.parameters() if p.requires_grad]
    weights: list[Tensor] = list(parameters)
    averaged_flow = copy.deepcopy(flow).requires_grad_(False)
    averaged: list[Tensor] = list(averaged_flow.parameters())
    best_state = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def score(points: Tensor) -> float:
        return float(nll(averaged_flow, points).double().mean()) + offset

    best_nll = score(heldout_draws)
    if not math.isfinite(best_nll):
        raise FitError(f"{name}: no finite held-out density at the start (NLL {best_nll})")
    best_step = 0
    # As many as held out, spread over all, for a curve of equal noise and cost.
    sample_for_curve = train_draws[:: max(1, n // len(heldout_draws))]
    history = [Checkpoint(step=0, train_nll=score(sample_for_curve), heldout_nll=best_nll)]
    if not parameters:
        return FitReport(
            history=tuple(history),
            best_step=0,
            converged=True,
            stopped_by="nothing to train",
            seconds=time.monotonic() - started,
        )
    rate = settings.learning_rate

    def new_optimizer() -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            parameters, lr=rate, weight_decay=settings.weight_decay, fused=True
        )

    optimizer = new_optimizer()
    stale = annealed = step = 0
    # Read once a check, not once a step: reading would stall an accelerator.
    losses = torch.zeros(settings.check_every, device=train_draws.device)
    order, position = torch.empty(0, dtype=torch.long), 0
    stopped_by, converged = "max_steps", False

    while step < settings.max_steps:
        for slot in range(settings.check_every):
            if position + batch > len(order):
                order = torch.randperm(n, generator=generator).to(train_draws.device)
                position = 0
            points = train_draws[order[position : position + batch]]
            position += batch
            loss = nll(flow, points).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
            optimizer.step()
            losses[slot] = loss.detach()
            step += 1
            # At the start, where parameters still move fast, the last third of the steps.
            decay = min(settings.averaging, step / (step + 3))
            with torch.no_grad():
                torch._foreach_lerp_(averaged, weights, 1 - decay)
        bad = (~torch.isfinite(losses)).nonzero()
        if len(bad):
            bad_step = step - settings.check_every + int(bad[0]) + 1
            stopped_by = f"non-finite loss at step {bad_step}"
            warnings.warn(
                f"{name}: {stopped_by}; training stopped, the state of step {best_step} is kept",
                AmfviWarning,
                stacklevel=2,
            )
            break
        heldout_nll = score(heldout_draws)
        history.append(
            Checkpoint(step=step, train_nll=score(sample_for_curve), heldout_nll=heldout_nll)
        )
        if heldout_nll < best_nll:  # false for NaN
            best_nll, best_step, stale = heldout_nll, step, 0
            best_state = [p.clone() for p in averaged]
        else:
            stale += 1
        if progress is not None:
            progress(step / settings.max_steps, best_nll)
        if time_limit is not None and time.monotonic() - started > time_limit:
            stopped_by = "timeout"
            break
        if stale >= settings.patience:
            if annealed == settings.annealings:
                stopped_by, converged = "no further improvement on held-out draws", True
                break
            annealed, stale, rate = annealed + 1, 0, rate / 3
            _assign(weights, best_state)
            _assign(averaged, best_state)
            optimizer = new_optimizer()

    _assign(weights, best_state)
    return FitReport(
        history=tuple(history),
        best_step=best_step,
        converged=converged,
        stopped_by=stopped_by,
        seconds=time.monotonic() - started,
    )


@torch.no_grad()
def _assign(parameters: list[Tensor], values: list[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)
