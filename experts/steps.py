"""The steps of gradient descent, of all members of an ensemble at once."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from amfvi.experts.flow import HIDDEN, Parameters
from amfvi.experts.folds import Folds
from amfvi.experts.muon import Muon
from amfvi.experts.training_settings import Training
from torch import Tensor

__all__ = ["Loss", "Steps"]

GRAPH_WARMUP = 3  # eager steps before an accelerator's graph is captured

Loss = Callable[[Parameters, Tensor], Tensor]


class Steps:
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
        self._batch = settings.rows_a_step(self._epoch)
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
