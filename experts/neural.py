"""Neural flows: a whitening and a flow of equal layers, trained, then frozen."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import torch
from torch import Tensor

from amfvi.errors import unknown_name
from amfvi.experts.base import Expert
from amfvi.experts.bent_axes import find_bent_axes
from amfvi.experts.checks import count_members
from amfvi.experts.config import ExpertConfig
from amfvi.experts.flows.bijection import BijectiveExpert, normal_nll
from amfvi.experts.flows.elementwise import Elementwise
from amfvi.experts.flows.flow import ACTIVATIONS, MIXING, Flow, Parameters
from amfvi.experts.flows.frozen import FrozenFlow
from amfvi.experts.flows.reach import draw_within, find_reach
from amfvi.experts.folds import Folds
from amfvi.experts.learned import (
    REACH,
    LearnedExpert,
    restore_learned,
    saved_reach,
    saved_spread,
    train_whitened,
)
from amfvi.experts.reports import FitReport, Progress
from amfvi.experts.training.problem import evenly_spaced
from amfvi.experts.training.settings import POSITIVE, Training
from amfvi.experts.whitening import Whitening

__all__ = ["NeuralFlow", "NeuralFlowConfig"]

MANY_MIXED = 25
"""Mixed coordinates above which a flow has more patience."""

TURNED = range(8, 129)
"""Numbers of mixed coordinates for which the first map starts at the axes along which draws are
bent; to find them among more takes minutes."""

MAX_TURNED_ROWS = 20_000
"""Most training draws of a member by which they are found."""

MAX_ROWS = 1_000_000
"""Most draws, by folds, that a flow is trained on; more than its steps take."""

MAX_SCORED = 100_000
"""Most held-out rows of all members that a check of the training takes, which comes every few
steps: their mean is known to a few thousandths of a nat."""


LAST_GAIN = 0.005
"""Nats per dimension that falling learning rates may still gain at the end of a training."""

BaseNLL = Callable[[Tensor, Tensor], Tensor]
"""Negative log densities of images and log-determinants, as of :func:`normal_nll`."""


class NeuralFlow(LearnedExpert, BijectiveExpert):
    """A trained flow, with a frozen copy for each precision it is evaluated in.

    Attributes:
        flow: the architecture.
        reach: sizes of whitened coordinates beyond which draws are drawn again, (members, d);
            None where there is no limit.

    Examples:
        >>> from amfvi.experts import MAF
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> expert = MAF(layers=2, max_steps=25).fit(x, folds=2)
        >>> expert.flow.layers, expert.parameters["input.bias"].shape
        (2, torch.Size([2, 2, 32, 1]))
    """

    prefix = "flow"

    def __init__(
        self, config: NeuralFlowConfig, whitening: Whitening, parameters: Parameters
    ) -> None:
        BijectiveExpert.__init__(self, config, whitening)
        flow = config.build(whitening.dim, whitening.given)
        self.flow = replace(flow, mixes=MIXING in parameters)
        self.parameters = parameters
        self.reach: Tensor | None = None
        self._frozen: dict[torch.dtype, FrozenFlow] = {}

    def tensors(self) -> dict[str, Tensor]:
        """Whitening, learned parameters and reach by name, on the CPU."""
        named = super().tensors()
        return named if self.reach is None else {**named, REACH: self.reach.cpu()}

    def to(self, device: torch.device | str) -> Self:
        """The same expert with its numbers on ``device``."""
        moved = super().to(device)
        moved.reach = None if self.reach is None else self.reach.to(device)
        return moved

    def draw_images(self, draw: Callable[[int], Tensor], n: int) -> Tensor:
        """Draws (members, n, d) from draws of the base, none of them beyond reach.

        Args:
            draw: from a number to as many points of the base for every member.
        """

        def images(n: int) -> Tensor:
            return self.inverse(draw(n))[0]

        if self.reach is None:
            return images(n)
        return draw_within(images, n, self.whitening, self.reach)

    def frozen(self, dtype: torch.dtype) -> FrozenFlow:
        """The flow in whitened space, computing in ``dtype``."""
        if dtype not in self._frozen:
            self._frozen[dtype] = FrozenFlow(self.flow, self._learned(dtype))
        return self._frozen[dtype]

    def _keep_first_member(self) -> None:
        super()._keep_first_member()
        self.reach = None if self.reach is None else self.reach[:1]
        self._frozen = {}

    def _to_normal(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.frozen(z.dtype).forward(z)

    def _from_normal(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return self.frozen(u.dtype).inverse(u)


@dataclass(frozen=True, kw_only=True)
class NeuralFlowConfig(Training, ExpertConfig):
    """Architecture and training of a flow of equal layers.

    Attributes:
        layers: number of transforms in the composition.
        hidden_features: width of each conditioner network.
        hidden_layers: hidden layers of each conditioner network.
        activation: of the hidden units, "leaky_relu" (slope 0.1 below zero) or "silu".
        mix_from: fewest parameters d from which a learned linear map of all of them stands
            before each layer; not given a condition. In 8 to 128 dimensions the first map starts
            at the axes along which the draws are bent
            (:func:`amfvi.experts.bent_axes.find_bent_axes`). In more than 25 such a flow has
            d/25 times the patience: its maps have far to go, and the held-out density gets
            worse before it gets better.

    Examples:
        >>> from amfvi.experts import RealNVP
        >>> issubclass(RealNVP, NeuralFlowConfig), RealNVP(layers=8).layers
        (True, 8)
    """

    layers: int = 5
    hidden_features: int = 32
    hidden_layers: int = 2
    activation: str = "silu"
    mix_from: int = 3

    def __post_init__(self) -> None:
        self._require_positive("layers", "hidden_features", "hidden_layers", "mix_from", *POSITIVE)
        self.require_valid(self.kind)
        if self.activation not in ACTIVATIONS:
            raise unknown_name(f"activation of {self.kind}", self.activation, ACTIVATIONS)

    @abstractmethod
    def build(self, dim: int, given: int = 0) -> Flow:
        """The architecture in ``dim`` dimensions, given a condition of ``given``."""

    def fit_folds(
        self,
        folds: Folds,
        *,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> tuple[Expert, FitReport]:
        """Whiten, train and freeze; see :meth:`ExpertConfig.fit_folds`."""
        return self.fit_flow(
            folds, generator=generator, device=device, progress=progress, timeout=timeout
        )

    def fit_flow(
        self,
        folds: Folds,
        *,
        generator: torch.Generator,
        base_nll: BaseNLL = normal_nll,
        rival_nll: float | None = None,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> tuple[NeuralFlow, FitReport]:
        """Train one flow to a base density, by default the standard normal.

        Args:
            base_nll: negative log density (members, n) of the points whose images (members,
                d, n) and log-determinants (members, n) it is given.
            rival_nll: held-out NLL of another fit, at which training ends early if it cannot
                reach it.
        """
        folds.require_fittable(self.kind)
        folds = folds.at_most(MAX_ROWS)
        flow = self.build(folds.dim, folds.given)
        # To another base than the normal, which looks the same from all sides, the identity is
        # the best start.
        starts_anywhere = flow.mixes and base_nll is normal_nll
        turns = starts_anywhere and flow.dim in TURNED
        whitening, learned, report = train_whitened(
            self._more_patient(flow.dim) if starts_anywhere else self, self.kind, folds, flow,
            nll=lambda parameters, z: base_nll(*flow.forward(parameters, z)),
            frozen_nll=lambda parameters, z: base_nll(*FrozenFlow(flow, parameters).forward(z)),
            masks=flow.masks,
            generator=generator, device=device, progress=progress, timeout=timeout,
            prepare=partial(_turn, folds) if turns else None,
            max_scored=MAX_SCORED,
            rival_nll=None if rival_nll is None else rival_nll + LAST_GAIN * folds.dim,
        )  # fmt: skip
        expert = NeuralFlow(self, whitening, learned)
        if not folds.given:
            expert.reach = find_reach(whitening.to("cpu"), folds).to(device)
        expert.verify(folds)
        return expert, report

    def restore(self, dim: int, tensors: Mapping[str, Tensor], given: int = 0) -> Expert:
        """Rebuild the expert whose :meth:`Expert.tensors` these are."""
        return self.restore_flow(dim, tensors, given)

    def restore_flow(self, dim: int, tensors: Mapping[str, Tensor], given: int = 0) -> NeuralFlow:
        """Rebuild the flow whose :meth:`NeuralFlow.tensors` these are."""
        # Whether a flow mixes is what its tensors say: it may have been fitted without maps.
        is_mixing = f"{NeuralFlow.prefix}.{MIXING}" in tensors
        flow = replace(self.build(dim, given), mixes=is_mixing)
        shapes = flow.shapes(count_members(tensors))
        whitening, learned = restore_learned(
            self.kind, NeuralFlow.prefix, shapes, tensors, columns=given + dim, given=given
        )
        expert = NeuralFlow(self, whitening, learned)
        expert.reach = saved_reach(tensors)
        return expert.widened(saved_spread(tensors))

    def _more_patient(self, dim: int) -> Self:
        """The same settings, with more patience where many coordinates are mixed."""
        growth = max(dim / MANY_MIXED, 1.0)
        return replace(self, patience=round(self.patience * growth))

    def _build_flow(
        self, dim: int, given: int, elementwise: Elementwise, *, autoregressive: bool
    ) -> Flow:
        return Flow(
            dim=dim,
            given=given,
            layers=self.layers,
            width=self.hidden_features,
            depth=self.hidden_layers,
            autoregressive=autoregressive,
            elementwise=elementwise,
            activation=self.activation,
            mixes=not given and dim >= self.mix_from,
        )


def _turn(folds: Folds, initial: Parameters, whitened: Tensor) -> None:
    """Start the first map of each member at axes found in its own training draws."""
    axes = None
    for member, rows in enumerate(folds.train_rows):
        axes = find_bent_axes(whitened[member][:, evenly_spaced(rows, MAX_TURNED_ROWS)], axes)
        initial[MIXING][member, 0] = axes
