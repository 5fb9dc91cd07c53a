"""Maximum-likelihood training of an ensemble of flows, with early stopping."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from amfvi.experts.base import Checkpoint, FitReport, Progress
from amfvi.experts.flow import HIDDEN, Parameters
from amfvi.experts.folds import Folds
from amfvi.experts.muon import Muon
from torch import Tensor

from amfvi.errors import AmfviWarning, FitError

__all__ = ["Training", "train"]

WARMUP = 20  # steps over which the learning rates rise
GRAPH_WARMUP = 3  # eager steps before an accelerator's graph is captured

Loss = Callable[[Parameters, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Training:
    """How an ensemble of flows is trained, all members in the same steps.

    Shuffled minibatches; Muon for the hidden weights, Adam for the rest. An
    exponential moving average of the parameters is what is scored, each member on
    the draws it does not train on. When the mean score has not improved for
    ``patience`` checks, or after ``max_steps``, training goes on from the best state
    with learning rates that fall to zero over ``decay`` of the steps it took.

    Attributes:
        learning_rate: of Adam.
        hidden_learning_rate: of Muon.
        batch_size: rows a step and member; at most a third of the training draws.
        max_steps: most steps at full learning rates.
        check_every: steps between two looks at the held-out draws.
        patience: looks without improvement before the rates fall.
        decay: length of the last phase in steps to the best state; at least 150 steps.
        clip_norm: largest norm of a member's gradient.
        averaging: decay a step of the parameter average, in [0, 1).
    """

    learning_rate: float = 1e-2
    hidden_learning_rate: float = 2e-2
    batch_size: int = 128
    max_steps: int = 1300
    check_every: int = 25
    patience: int = 6
    decay: float = 0.4
    clip_norm: float = 5.0
    averaging: float = 0.99

    def decay_steps(self, best_step: int) -> int:
        """Length of the last phase, a whole number of checks."""
        checks = max(150, self.decay * best_step) / self.check_every
        return math.ceil(checks) * self.check_every


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
    steps = _Steps(nll, initial, masks, draws, folds, settings, generator)
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


class _Steps:
    """Parameters, their average and their optimisers; on CUDA a step is one graph.

    Small networks spend their time in calls, not in arithmetic: all parameters but
    the hidden weights are one flat tensor, so that clipping, masking, Adam and
    averaging are a few calls a step.
    """

    def __init__(
        self,
        nll: Loss,
        initial: Parameters,
        masks: Parameters,
        draws: Tensor,
        folds: Folds,
        settings: Training,
        generator: torch.Generator,
    ) -> None:
        self._nll, self._draws, self._settings = nll, draws, settings
        self._generator = generator
        self._rows = folds.train_rows
        self._epoch = min(len(rows) for rows in self._rows)
        # In small samples still a few steps an epoch.
        self._batch = min(settings.batch_size, max(self._epoch // 3, 64), self._epoch)
        self._position = self._epoch
        self._shuffled = draws[:, :, :0]
        self._weights = None if folds.weight is None else _member_weights(folds).to(draws)
        device = draws.device
        self._shapes = {name: value.shape for name, value in initial.items()}
        self._muon_name = HIDDEN if HIDDEN in initial and initial[HIDDEN].numel() else None
        self._leaves = [leaf.clone().requires_grad_() for leaf in self._packed(initial)]
        self._averages = self._packed(initial)
        every = {name: masks[name].to(device).expand(shape) for name, shape in self._shapes.items()}
        self._masks = self._packed(every)
        # All that changes from step to step lives in these, so that a graph can be replayed.
        self._points = draws.new_zeros(len(self._rows), draws.shape[1], self._batch)
        self._point_weights = draws.new_ones(len(self._rows), self._batch)
        self._rate, self._fresh = draws.new_ones(()), draws.new_zeros(())
        self._loss = draws.new_zeros(())
        self._taken = self._since_read = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._new_optimizers()

    @property
    def averaged(self) -> Parameters:
        """The averaged parameters by name, as they are now."""
        return self._unpacked(self._averages)

    def take(self, rate: float, keep: float) -> None:
        """One step at ``rate`` times the learning rates; the average keeps ``keep``."""
        if self._position + self._batch > self._epoch:
            self._shuffle()
        columns = slice(self._position, self._position + self._batch)
        batch = self._shuffled[:, :, columns]
        if self._weights is not None:
            self._point_weights.copy_(self._weights.gather(1, self._order[:, columns]))
        self._position += self._batch
        self._rate.fill_(rate)
        self._fresh.fill_(1 - keep)
        self._since_read += 1
        if self._draws.device.type != "cuda":
            self._step(batch)
            return
        self._points.copy_(batch)
        if self._graph is not None:
            self._graph.replay()
        else:
            self._warm_up_or_capture()

    def mean_loss(self) -> float:
        """Mean loss since last asked: the one read of a device between two checks."""
        value = float(self._loss) / max(self._since_read, 1)
        self._loss.zero_()
        self._since_read = 0
        return value

    @torch.no_grad()
    def restart(self, state: Parameters) -> None:
        """Go on from ``state`` with optimisers that remember nothing."""
        for leaf, average, value in zip(
            self._leaves, self._averages, self._packed(state), strict=True
        ):
            leaf.copy_(value)
            average.copy_(value)
        self._graph, self._taken = None, 0
        self._new_optimizers()

    def _packed(self, parameters: Parameters) -> list[Tensor]:
        """A flat tensor (members, …) of all but the hidden weights, and the hidden weights."""
        rest = [v.flatten(1) for name, v in parameters.items() if name != self._muon_name]
        hidden = [] if self._muon_name is None else [parameters[self._muon_name].clone()]
        return [torch.cat(rest, dim=1), *hidden]

    def _unpacked(self, tensors: list[Tensor]) -> Parameters:
        flat = {name: shape for name, shape in self._shapes.items() if name != self._muon_name}
        parts = tensors[0].split([math.prod(shape[1:]) for shape in flat.values()], dim=1)
        views = {n: part.view(shape) for (n, shape), part in zip(flat.items(), parts, strict=True)}
        if self._muon_name is not None:
            views[self._muon_name] = tensors[1]
        return views

    def _shuffle(self) -> None:
        orders = [
            rows[torch.randperm(len(rows), generator=self._generator)[: self._epoch]]
            for rows in self._rows
        ]
        self._order = torch.stack(orders).to(self._draws.device)
        index = self._order[:, None].expand(-1, self._draws.shape[1], -1)
        self._shuffled = self._draws.gather(2, index)
        self._position = 0

    def _new_optimizers(self) -> None:
        device = self._draws.device
        self._adam_rate = self._draws.new_zeros(())
        self._adam = torch.optim.Adam(
            self._leaves[:1],
            lr=self._adam_rate,
            fused=True,
            capturable=device.type == "cuda",
        )
        self._muon = Muon(self._leaves[1], self._masks[1]) if self._muon_name else None

    def _step(self, points: Tensor) -> None:
        """A step that reads no number back from the device."""
        settings = self._settings
        loss = self._nll(self._unpacked(self._leaves), points)
        if self._weights is not None:
            loss = loss * self._point_weights
        loss = loss.mean(dim=1)
        gradients = torch.autograd.grad(loss.sum(), self._leaves)
        with torch.no_grad():
            # The hidden weights' too: one spike would steer their momentum for long.
            norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)
            shrink = (settings.clip_norm / (norms + 1e-6)).clamp_(max=1.0)
            for g in gradients:
                g.mul_(shrink.view(-1, *[1] * (g.ndim - 1)))
            self._leaves[0].grad = gradients[0].mul_(self._masks[0])
            torch.mul(self._rate, settings.learning_rate, out=self._adam_rate)
            self._adam.step()
            if self._muon is not None:
                self._muon.step(gradients[1], self._rate * settings.hidden_learning_rate)
            for average, leaf in zip(self._averages, self._leaves, strict=True):
                average.lerp_(leaf, self._fresh)
            self._loss.add_(loss.detach().mean())

    def _warm_up_or_capture(self) -> None:
        """A few eager steps beside the main stream, then one capture to replay."""
        self._taken += 1
        if self._taken <= GRAPH_WARMUP:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                self._step(self._points)
            torch.cuda.current_stream().wait_stream(side)
            return
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._step(self._points)
        self._graph.replay()  # capturing records the step without taking it


def _member_weights(folds: Folds) -> Tensor:
    """Weights (members, n), 1 on average over the rows that each member trains on."""
    means = torch.stack([folds.weights[rows].mean() for rows in folds.train_rows])
    return folds.weights / means[:, None]


def _copy(parameters: Parameters) -> Parameters:
    return {name: value.detach().clone() for name, value in parameters.items()}
