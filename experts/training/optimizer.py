"""Optimizer of all members of an ensemble at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.optim.adam import adam

from amfvi.experts.flows.flow import HIDDEN, MIXING, Parameters
from amfvi.experts.folds import Folds
from amfvi.experts.training.muon import Muon
from amfvi.experts.training.problem import TrainingProblem
from amfvi.experts.training.settings import Training

__all__ = ["EnsembleOptimizer"]

GRAPH_WARMUP_STEPS = 3
"""Eager steps before an accelerator's graph is captured."""

LARGE = 40
"""Mixed coordinates from which their maps are not updated in every step."""

STEPS_BETWEEN_LARGE = 4
"""Steps from one update of large maps to the next: at d = 100 RealNVP trains in three quarters of
the time, to the same density. Of 8 the first updates are too large to recover from."""


class EnsembleOptimizer:
    """Parameters, their moving average and their optimizers; on CUDA a step is one graph.

    Small networks spend their time in calls, not in arithmetic: all parameters but the
    square weights (of hidden layers and mixing) are one flat tensor, so that clipping,
    masking, Adam and averaging are a few calls per step.

    Examples:
        >>> def nll(parameters, z):
        ...     return 0.5 * (z[:, 0] - parameters["mean"]).square()
        >>> draws = torch.tensor([[1.0], [1.0], [1.0]])
        >>> problem = TrainingProblem(
        ...     name="shift", nll=nll, frozen_nll=nll,
        ...     initial={"mean": torch.zeros(1, 1)}, masks={"mean": torch.ones(1)},
        ...     draws=draws.T[None], folds=Folds.holdout(draws[:2], draws[2:]))
        >>> optimizer = EnsembleOptimizer(problem, Training(), torch.Generator())
        >>> optimizer.step(rate=1.0, ema_decay=0.0)
        >>> optimizer.mean_loss(), bool(optimizer.averaged["mean"] > 0)
        (0.5, True)
    """

    def __init__(
        self, problem: TrainingProblem, settings: Training, generator: torch.Generator
    ) -> None:
        draws, folds, initial = problem.draws, problem.folds, problem.initial
        self._nll, self._draws, self._settings = problem.nll, draws, settings
        self._noise, self._augment = problem.noise, problem.augment
        self._generator = generator
        self._rows = folds.train_rows
        self._epoch_rows = min(len(rows) for rows in self._rows)
        self._batch_size = settings.batch_size_for(self._epoch_rows)
        self._position = self._epoch_rows
        self._shuffled = draws[:, :, :0]
        self._weights = None if folds.sample_weight is None else _member_weights(folds).to(draws)
        self._shapes = {name: value.shape for name, value in initial.items()}
        self._square = [n for n in (HIDDEN, MIXING) if n in initial and initial[n].numel()]
        self._leaves = [leaf.clone().requires_grad_() for leaf in self._pack(initial)]
        self._averages = self._pack(initial)
        masks = {
            name: problem.masks[name].to(draws.device).expand(shape)
            for name, shape in self._shapes.items()
        }
        self._masks = self._pack(masks)
        # Everything that changes from step to step is in these, so that a graph can be replayed.
        self._points: Tensor | None = None
        self._point_weights = draws.new_ones(len(self._rows), self._batch_size)
        self._rate, self._ema_update = draws.new_ones(()), draws.new_zeros(())
        self._loss_sum = draws.new_zeros(())
        self._eager_steps = self._steps_since_read = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._is_capturable = draws.device.type == "cuda"
        self._reset_optimizers()

    @property
    def averaged(self) -> Parameters:
        """Views of the averaged parameters by name."""
        return self._unpack(self._averages)

    def step(self, rate: float, ema_decay: float) -> None:
        """Take one step.

        Args:
            rate: multiple of the learning rates.
            ema_decay: share of the parameter average that is kept.
        """
        if self._position + self._batch_size > self._epoch_rows:
            self._shuffle()
        columns = slice(self._position, self._position + self._batch_size)
        batch = self._shuffled[:, :, columns]
        if self._noise:
            noise = torch.randn(batch.shape, generator=self._generator, dtype=torch.float32)
            batch = batch + self._noise * noise.to(batch)
        if self._augment is not None:
            batch = self._augment(batch, self._generator)
        if self._weights is not None:
            self._point_weights.copy_(self._weights.gather(1, self._order[:, columns]))
        self._position += self._batch_size
        self._rate.fill_(rate)
        self._ema_update.fill_(1 - ema_decay)
        self._steps_since_read += 1
        if not self._is_capturable:
            self._update(batch)
            return
        if self._points is None:
            self._points = torch.empty_like(batch)
        self._points.copy_(batch)
        if self._graph is not None:
            self._graph.replay()
        else:
            self._warm_up_or_capture(self._points)

    def mean_loss(self) -> float:
        """Mean loss since the last call; the only read of a device between two checks."""
        value = float(self._loss_sum) / max(self._steps_since_read, 1)
        self._loss_sum.zero_()
        self._steps_since_read = 0
        return value

    @torch.no_grad()
    def reset_to(self, state: Parameters) -> None:
        """Continue from ``state`` with fresh momenta."""
        for leaf, average, value in zip(
            self._leaves, self._averages, self._pack(state), strict=True
        ):
            leaf.copy_(value)
            average.copy_(value)
        self._graph, self._eager_steps = None, 0
        self._reset_optimizers()

    def _pack(self, parameters: Parameters) -> list[Tensor]:
        """A flat tensor (members, …) of all but the square weights, and these."""
        rest = [v.flatten(1) for name, v in parameters.items() if name not in self._square]
        return [torch.cat(rest, dim=1), *(parameters[name].clone() for name in self._square)]

    def _unpack(self, tensors: list[Tensor]) -> Parameters:
        """Views by name of tensors laid out by :meth:`_pack`."""
        flat = {name: shape for name, shape in self._shapes.items() if name not in self._square}
        parts = tensors[0].split([math.prod(shape[1:]) for shape in flat.values()], dim=1)
        views = {n: part.view(shape) for (n, shape), part in zip(flat.items(), parts, strict=True)}
        return views | dict(zip(self._square, tensors[1:], strict=True))

    def _shuffle(self) -> None:
        """Order each member's training rows at random for the next epoch."""
        orders = [
            rows[torch.randperm(len(rows), generator=self._generator)[: self._epoch_rows]]
            for rows in self._rows
        ]
        self._order = torch.stack(orders).to(self._draws.device)
        index = self._order[:, None].expand(-1, self._draws.shape[1], -1)
        self._shuffled = self._draws.gather(2, index)
        self._position = 0

    def _reset_optimizers(self) -> None:
        """Optimizers without momenta."""
        self._adam_rate = self._draws.new_zeros(())
        self._adam_steps = self._draws.new_zeros(())
        self._adam_moments = [torch.zeros_like(self._leaves[0], requires_grad=False)
                              for _ in range(2)]  # fmt: skip
        self._muons = [
            Muon(leaf, mask, every=self._steps_between_updates(name, leaf))
            for name, leaf, mask in zip(
                self._square, self._leaves[1:], self._masks[1:], strict=True
            )
        ]

    def _steps_between_updates(self, name: str, matrices: Tensor) -> int:
        """One but for large maps: orthogonalizing them would be most of every step."""
        is_costly = name == MIXING and matrices.shape[-1] >= LARGE and not self._is_capturable
        return STEPS_BETWEEN_LARGE if is_costly else 1

    def _update(self, points: Tensor) -> None:
        """Update parameters and averages; no number is read back from the device."""
        settings = self._settings
        loss = self._nll(self._unpack(self._leaves), points)
        if self._weights is not None:
            loss = loss * self._point_weights
        loss = loss.mean(dim=1)
        gradients = torch.autograd.grad(loss.sum(), self._leaves)
        with torch.no_grad():
            # The square weights' gradients too: a spike would stay in their momentum for long.
            norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)
            shrink = (settings.clip_norm / (norms + 1e-6)).clamp_(max=1.0)
            for g in gradients:
                g.mul_(shrink.view(-1, *[1] * (g.ndim - 1)))
            torch.mul(self._rate, settings.learning_rate, out=self._adam_rate)
            self._step_adam(gradients[0].mul_(self._masks[0]))
            for muon, gradient in zip(self._muons, gradients[1:], strict=True):
                muon.step(gradient, self._rate * settings.hidden_learning_rate)
            for average, leaf in zip(self._averages, self._leaves, strict=True):
                average.lerp_(leaf, self._ema_update)
            self._loss_sum.add_(loss.detach().mean())

    def _step_adam(self, gradient: Tensor) -> None:
        """Move all but the square weights.

        The function and not ``torch.optim.Adam``, whose constructor imports torch's compiler:
        two seconds in each process.
        """
        first, second = self._adam_moments
        adam(
            [self._leaves[0]], [gradient], [first], [second], [], [self._adam_steps],
            fused=True, capturable=gradient.device.type == "cuda", amsgrad=False,
            beta1=0.9, beta2=0.999, lr=self._adam_rate, weight_decay=0.0, eps=1e-8,
            maximize=False,
        )  # fmt: skip

    def _warm_up_or_capture(self, points: Tensor) -> None:
        """Take a few eager steps beside the main stream, then capture one to replay."""
        self._eager_steps += 1
        with torch.cuda.device(points.device):
            if self._eager_steps <= GRAPH_WARMUP_STEPS:
                side_stream = torch.cuda.Stream()
                side_stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side_stream):
                    self._update(points)
                torch.cuda.current_stream().wait_stream(side_stream)
                return
            try:
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                    self._update(points)
            except RuntimeError:  # some kernel cannot be captured: each step is launched anew
                self._is_capturable = False
                self._update(points)
                return
            self._graph = graph
            graph.replay()  # capturing records the step without taking it


def _member_weights(folds: Folds) -> Tensor:
    """Weights (members, n), 1 on average over the rows that each member trains on."""
    means = torch.stack([folds.normalized_weights[rows].mean() for rows in folds.train_rows])
    return folds.normalized_weights / means[:, None]
