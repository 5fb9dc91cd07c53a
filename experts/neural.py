"""Neural flows: a whitening and a flow of equal layers, trained, then frozen."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from amfvi.experts.base import ExpertConfig, FitReport, Progress, match_tensors, members_of
from amfvi.experts.bijection import BijectiveExpert
from amfvi.experts.elementwise import Elementwise
from amfvi.experts.flow import ACTIVATIONS, Flow, Parameters
from amfvi.experts.folds import Folds
from amfvi.experts.frozen import FrozenFlow
from amfvi.experts.training import train
from amfvi.experts.training_settings import Training
from amfvi.experts.whitening import Whitening
from torch import Tensor

from amfvi.errors import UsageError, unknown_name

__all__ = ["NeuralFlow", "NeuralFlowConfig"]


class NeuralFlow(BijectiveExpert):
    """A trained flow. It keeps a frozen copy for each precision it is asked in."""

    def __init__(
        self, config: NeuralFlowConfig, whitening: Whitening, parameters: Parameters
    ) -> None:
        super().__init__(config, whitening)
        self.flow = config.build(whitening.dim)
        self.parameters = parameters
        self._frozen: dict[torch.dtype, FrozenFlow] = {}

    def frozen(self, dtype: torch.dtype) -> FrozenFlow:
        """The flow in whitened space, computing in ``dtype``."""
        if dtype not in self._frozen:
            learned = {name: value.to(dtype) for name, value in self.parameters.items()}
            self._frozen[dtype] = FrozenFlow(self.flow, learned)
        return self._frozen[dtype]

    def _flow(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.frozen(z.dtype).forward(z)

    def _unflow(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return self.frozen(u.dtype).inverse(u)

    def tensors(self) -> dict[str, Tensor]:
        learned = {
            f"flow.{name}": value.cpu().contiguous() for name, value in self.parameters.items()
        }
        return {"mean": self.whitening.mean.cpu(), "factor": self.whitening.factor.cpu(), **learned}

    def to(self, device: torch.device | str) -> Self:
        moved = {name: value.to(device) for name, value in self.parameters.items()}
        return type(self)(self.config, self.whitening.to(device), moved)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class NeuralFlowConfig(Training, ExpertConfig):
    """Architecture and training of a flow of equal layers.

    Attributes:
        layers: number of transforms in the composition.
        hidden_features: width of each conditioner network.
        hidden_layers: hidden layers of each conditioner network.
        activation: of the hidden units, "leaky_relu" (slope 0.1 below zero) or "silu".
    """

    layers: int = 5
    hidden_features: int = 32
    hidden_layers: int = 2
    activation: str = "silu"

    def __post_init__(self) -> None:
        self._require_positive(
            "layers", "hidden_features", "hidden_layers", "learning_rate", "hidden_learning_rate",
            "batch_size", "epoch_steps", "largest_batch_size", "max_steps", "check_every",
            "patience", "clip_norm",
        )  # fmt: skip
        if self.activation not in ACTIVATIONS:
            raise unknown_name(f"activation of {self.kind}", self.activation, ACTIVATIONS)
        if not self.decay >= 0:
            raise UsageError(f"{self.kind}: decay cannot be negative, found {self.decay!r}")
        if not 0 <= self.averaging < 1:
            raise UsageError(f"{self.kind}: averaging must be in [0, 1), found {self.averaging!r}")

    @abstractmethod
    def build(self, dim: int) -> Flow:
        """The architecture in ``dim`` dimensions."""

    def _flow(self, dim: int, elementwise: Elementwise, *, autoregressive: bool) -> Flow:
        return Flow(
            dim,
            self.layers,
            self.hidden_features,
            self.hidden_layers,
            autoregressive,
            elementwise,
            self.activation,
        )

    def fit(
        self,
        folds: Folds,
        *,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
        time_limit: float | None = None,
    ) -> tuple[NeuralFlow, FitReport]:
        folds.require_fittable(self.kind)
        whitening = Whitening.fit(folds)
        flow = self.build(folds.dim)
        initial = flow.initial(folds.members, generator)
        whitened = whitening.forward(folds.draws.expand(folds.members, -1, -1))
        learned, report = train(
            self.kind,
            flow.nll,
            lambda parameters, z: FrozenFlow(flow, parameters).nll(z),
            {name: value.to(device) for name, value in initial.items()},
            flow.masks,
            whitened.float().to(device),
            folds,
            self,
            generator=generator,
            offset=-whitening.log_det,
            progress=progress,
            time_limit=time_limit,
        )
        expert = NeuralFlow(self, whitening.to(device), learned)
        expert.verify(folds)
        return expert, report

    def restore(self, dim: int, tensors: Mapping[str, Tensor]) -> NeuralFlow:
        members = members_of(tensors)
        shapes = self.build(dim).shapes(members)
        expected = {"mean": torch.Size([members, dim]), "factor": torch.Size([members, dim, dim])}
        expected |= {f"flow.{name}": shape for name, shape in shapes.items()}
        match_tensors(self.kind, expected, tensors)
        learned = {name: tensors[f"flow.{name}"].float() for name in shapes}
        return NeuralFlow(self, Whitening.of(tensors["mean"], tensors["factor"]), learned)
