"""Flow matching (Lipman et al. 2023, arXiv:2210.02747): a velocity field learned without an ODE.

A network learns the velocity of points that travel on straight lines from a standard normal
to the data; densities and draws integrate it. Needs torchdiffeq, the extra ``fm``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from amfvi.experts.checks import count_members
from amfvi.experts.config import ExpertConfig
from amfvi.experts.flows.bijection import BijectiveExpert, normal_nll
from amfvi.experts.flows.flow import Parameters
from amfvi.experts.flows.velocity import Velocity, integrate
from amfvi.experts.folds import Folds
from amfvi.experts.learned import (
    LearnedExpert,
    restore_learned,
    saved_spread,
    train_whitened,
)
from amfvi.experts.reports import FitReport, Progress
from amfvi.experts.training.settings import POSITIVE, Training
from amfvi.experts.whitening import Whitening

__all__ = ["FlowMatching", "MatchedFlow"]

PATHS = 4
"""Straight lines per draw and step, each from its own normal point at its own time."""

MAX_SCORED = 1000
"""Most held-out rows of all members that a check of the training integrates."""

SCORING_STEPS = 10
"""Most Runge–Kutta steps of such a check; 0.001 nats off on average."""

ROWS = 2**11
"""Rows of all members per chunk on a CPU, so that a layer's results stay in cache: three times
the rate of chunks of 2**14."""

TOLERANCE = 1e-2
"""Largest error of the round trip, in whitened units and in nats, that fixed steps may leave."""


class MatchedFlow(LearnedExpert, BijectiveExpert):
    """A continuous-time flow that was fitted by flow matching.

    Attributes:
        velocity: the architecture.

    Examples:
        >>> c = torch.randn(200, 1, generator=torch.Generator().manual_seed(0)).double()
        >>> config = FlowMatching(hidden_features=8, max_steps=50)
        >>> expert = config.fit(torch.cat([c, -c], dim=1), given=1, folds=2)
        >>> expert.dim, expert.given, expert.sample_given(c[:5]).shape
        (1, 1, torch.Size([5, 1]))
    """

    prefix = "velocity"

    def __init__(self, config: FlowMatching, whitening: Whitening, parameters: Parameters) -> None:
        BijectiveExpert.__init__(self, config, whitening)
        self.velocity = config.build(whitening.dim, whitening.given)
        self.parameters = parameters
        self._steps = config.integration_steps

    @property
    def chunk_rows(self) -> int:
        return ROWS if self.device.type == "cpu" else super().chunk_rows

    def _to_normal(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return _integrate(self.velocity, self._learned(z.dtype), z, self._steps, backwards=True)

    def _from_normal(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return _integrate(self.velocity, self._learned(u.dtype), u, self._steps, backwards=False)


@dataclass(frozen=True, kw_only=True)
class FlowMatching(Training, ExpertConfig):
    """Settings of flow matching along straight paths, with or without a condition.

    The loss is the mean square error of the velocity; early stopping is by the density.

    Attributes:
        hidden_features: hidden units of each layer of the velocity.
        hidden_layers: hidden layers.
        integration_steps: Runge–Kutta steps of densities and draws.

    Examples:
        >>> FlowMatching().hidden_features, FlowMatching.kind
        (96, 'fm')
    """

    kind: ClassVar[str] = "fm"

    hidden_features: int = 96
    hidden_layers: int = 3
    integration_steps: int = 20
    learning_rate: float = 4e-3
    ema_decay: float = 0.995
    check_every: int = 50
    patience: int = 4

    def __post_init__(self) -> None:
        self._require_positive("hidden_features", "hidden_layers", "integration_steps", *POSITIVE)
        self.require_valid(self.kind)

    def build(self, dim: int, given: int = 0) -> Velocity:
        """The velocity field in ``dim`` dimensions, given a condition of ``given``."""
        return Velocity(dim=dim, given=given, width=self.hidden_features, depth=self.hidden_layers)

    def fit_folds(
        self,
        folds: Folds,
        *,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> tuple[MatchedFlow, FitReport]:
        """Whiten and train; see :meth:`ExpertConfig.fit_folds`.

        Raises:
            UsageError: torchdiffeq is not installed.
        """
        folds.require_fittable(self.kind)
        velocity = self.build(folds.dim, folds.given)
        whitening, learned, report = train_whitened(
            self, self.kind, folds, velocity,
            nll=_matching_loss(velocity), frozen_nll=self._nll(velocity),
            masks={name: torch.ones(()) for name in velocity.shapes(1)},
            generator=generator, device=device, progress=progress, timeout=timeout,
            augment=_append_paths(folds.dim), max_scored=MAX_SCORED,
        )  # fmt: skip
        expert = MatchedFlow(self, whitening, learned)
        expert.verify(folds, TOLERANCE)
        return expert, report

    def restore(self, dim: int, tensors: Mapping[str, Tensor], given: int = 0) -> MatchedFlow:
        """Rebuild the flow whose :meth:`MatchedFlow.tensors` these are."""
        shapes = self.build(dim, given).shapes(count_members(tensors))
        whitening, learned = restore_learned(
            self.kind, MatchedFlow.prefix, shapes, tensors, columns=given + dim, given=given
        )
        return MatchedFlow(self, whitening, learned).widened(saved_spread(tensors))

    def _nll(self, velocity: Velocity) -> Callable[[Parameters, Tensor], Tensor]:
        steps = min(self.integration_steps, SCORING_STEPS)

        def of_chunk(parameters: Parameters, z: Tensor) -> Tensor:
            return normal_nll(*_integrate(velocity, parameters, z, steps, backwards=True))

        def nll(parameters: Parameters, z: Tensor) -> Tensor:
            chunks = z.split(max(ROWS // len(z), 1), dim=2)
            return torch.cat([of_chunk(parameters, chunk) for chunk in chunks], dim=1)

        return nll


def _append_paths(dim: int) -> Callable[[Tensor, torch.Generator], Tensor]:
    """The function that appends ``PATHS`` normal points and times to rows (members, …, n)."""

    def append(points: Tensor, generator: torch.Generator) -> Tensor:
        members, _, n = points.shape
        normal = torch.randn(members, PATHS * dim, n, generator=generator, dtype=torch.float32)
        time = torch.rand(members, PATHS, n, generator=generator, dtype=torch.float32)
        return torch.cat([points, normal.to(points), time.to(points)], dim=1)

    return append


def _matching_loss(velocity: Velocity) -> Callable[[Parameters, Tensor], Tensor]:
    """The square error of the velocity (members, n), at rows that have their paths appended."""

    def loss(parameters: Parameters, rows: Tensor) -> Tensor:
        d, given = velocity.dim, velocity.given
        condition, y, normal, time = rows.split([given, d, PATHS * d, PATHS], dim=1)
        members, _, n = rows.shape
        # Paths side by side: (members, …, PATHS · n).
        start = normal.view(members, PATHS, d, n).transpose(1, 2).reshape(members, d, -1)
        t = time.reshape(members, 1, -1)
        end = y.repeat(1, 1, PATHS)
        at = torch.lerp(start, end, t)
        found = velocity.at(parameters, condition.repeat(1, 1, PATHS), at, t)
        error = (found - (end - start)).square().sum(dim=1)
        return error.view(members, PATHS, n).mean(dim=1)

    return loss


def _integrate(
    velocity: Velocity, parameters: Parameters, rows: Tensor, steps: int, *, backwards: bool
) -> tuple[Tensor, Tensor]:
    """Move the points behind the conditions of ``rows`` (members, given + d, n)."""
    condition, y = rows[:, : velocity.given], rows[:, velocity.given :]

    def derivative(y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return velocity.with_divergence(parameters, condition, y, t)

    return integrate(derivative, y, steps=steps, backwards=backwards)
