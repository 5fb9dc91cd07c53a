"""Neural flows: a whitening and a flow of equal layers, trained, then frozen."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from amfvi.errors import unknown_name
from amfvi.experts.checks import count_members
from amfvi.experts.config import ExpertConfig
from amfvi.experts.flows.bijection import BijectiveExpert
from amfvi.experts.flows.elementwise import Elementwise
from amfvi.experts.flows.flow import ACTIVATIONS, Flow, Parameters
from amfvi.experts.flows.frozen import FrozenFlow
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

__all__ = ["NeuralFlow", "NeuralFlowConfig"]

MAX_ROWS = 1_000_000
"""Most draws, by folds, that a flow is trained on; more than its steps take."""

MAX_SCORED = 100_000
"""Most held-out rows of all members that a check of the training takes, which comes every few
steps: their mean is known to a few thousandths of a nat."""


class NeuralFlow(LearnedExpert, BijectiveExpert):
    """A trained flow, with a frozen copy for each precision it is evaluated in.

    Attributes:
        flow: the architecture.

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
        self.flow = config.build(whitening.dim, whitening.given)
        self.parameters = parameters
        self._frozen: dict[torch.dtype, FrozenFlow] = {}

    def frozen(self, dtype: torch.dtype) -> FrozenFlow:
        """The flow in whitened space, computing in ``dtype``."""
        if dtype not in self._frozen:
            self._frozen[dtype] = FrozenFlow(self.flow, self._learned(dtype))
        return self._frozen[dtype]

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

    Examples:
        >>> from amfvi.experts import RealNVP
        >>> issubclass(RealNVP, NeuralFlowConfig), RealNVP(layers=8).layers
        (True, 8)
    """

    layers: int = 5
    hidden_features: int = 32
    hidden_layers: int = 2
    activation: str = "silu"

    def __post_init__(self) -> None:
        self._require_positive("layers", "hidden_features", "hidden_layers", *POSITIVE)
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
    ) -> tuple[NeuralFlow, FitReport]:
        """Whiten, train and freeze; see :meth:`ExpertConfig.fit_folds`."""
        folds.require_fittable(self.kind)
        folds = folds.at_most(MAX_ROWS)
        flow = self.build(folds.dim, folds.given)
        whitening, learned, report = train_whitened(
            self, self.kind, folds, flow,
            nll=flow.nll,
            frozen_nll=lambda parameters, z: FrozenFlow(flow, parameters).nll(z),
            masks=flow.masks,
            generator=generator, device=device, progress=progress, timeout=timeout,
            max_scored=MAX_SCORED,
        )  # fmt: skip
        expert = NeuralFlow(self, whitening, learned)
        expert.verify(folds)
        return expert, report

    def restore(self, dim: int, tensors: Mapping[str, Tensor], given: int = 0) -> NeuralFlow:
        """Rebuild the flow whose :meth:`NeuralFlow.tensors` these are."""
        shapes = self.build(dim, given).shapes(count_members(tensors))
        whitening, learned = restore_learned(
            self.kind, NeuralFlow.prefix, shapes, tensors, columns=given + dim, given=given
        )
        return NeuralFlow(self, whitening, learned).widened(saved_spread(tensors))

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
        )
