"""Neural flows: nflows transforms behind a whitening, trained, then frozen."""

from __future__ import annotations

import copy
import threading
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from amfvi.experts.base import (
    ExpertConfig,
    FitReport,
    Progress,
    match_tensors,
    require_finite_draws,
)
from amfvi.experts.bijection import LOG_2PI, BijectiveExpert
from amfvi.experts.training import Training, train
from amfvi.experts.whitening import Whitening
from torch import Tensor, nn

from amfvi.errors import UsageError

__all__ = ["NeuralFlow", "NeuralFlowConfig"]

_GLOBAL_STATE = threading.Lock()


class NeuralFlow(BijectiveExpert):
    """A trained flow. It keeps a copy for each precision it is asked in."""

    def __init__(self, config: NeuralFlowConfig, whitening: Whitening, flow: nn.Module) -> None:
        super().__init__(config, whitening)
        flow = flow.eval().requires_grad_(False)
        self._flows = {torch.float32: flow.float()}

    def _in(self, dtype: torch.dtype) -> nn.Module:
        if dtype not in self._flows:
            self._flows[dtype] = copy.deepcopy(self._flows[torch.float32]).to(dtype)
        return self._flows[dtype]

    def _flow(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self._in(z.dtype)(z)

    def _unflow(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return self._in(u.dtype).inverse(u)  # type: ignore[operator]

    def tensors(self) -> dict[str, Tensor]:
        flow = {
            f"flow.{name}": value.detach().cpu().contiguous()
            for name, value in self._flows[torch.float32].named_parameters()
        }
        return {"mean": self.whitening.mean.cpu(), "factor": self.whitening.factor.cpu(), **flow}

    def to(self, device: torch.device | str) -> Self:
        flow = copy.deepcopy(self._flows[torch.float32]).to(device)
        return type(self)(self.config, self.whitening.to(device), flow)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class NeuralFlowConfig(Training, ExpertConfig):
    """Architecture and training of a flow of ``layers`` equal layers.

    Attributes:
        layers: number of transforms in the composition.
        hidden_features: width of each conditioner network.
        blocks: hidden blocks of each conditioner.
    """

    layers: int = 5
    hidden_features: int = 32
    blocks: int = 2

    def __post_init__(self) -> None:
        self._require_positive(
            "layers", "hidden_features", "blocks", "learning_rate", "batch_size",
            "max_steps", "check_every", "patience", "clip_norm",
        )  # fmt: skip
        if not self.weight_decay >= 0 or not self.annealings >= 0:
            raise UsageError(f"{self.kind}: weight_decay and annealings cannot be negative")
        if not 0 <= self.averaging < 1:
            raise UsageError(f"{self.kind}: averaging must be in [0, 1), found {self.averaging!r}")

    @abstractmethod
    def build(self, dim: int, context_features: int | None = None) -> nn.Module:
        """An untrained transform that is the identity; called under a fixed seed."""

    def fit(
        self,
        train: Tensor,
        heldout: Tensor,
        *,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
        time_limit: float | None = None,
    ) -> tuple[NeuralFlow, FitReport]:
        require_finite_draws(self.kind, train, heldout)
        whitening = Whitening.fit(train)
        flow = self._seeded_build(train.shape[1], generator).to(device)
        report = _train(
            self, flow, whitening, train, heldout,
            generator=generator, device=device, progress=progress, time_limit=time_limit,
        )  # fmt: skip
        expert = NeuralFlow(self, whitening.to(device), flow)
        expert.verify(heldout[:1000].to(device))
        return expert, report

    def restore(self, dim: int, tensors: Mapping[str, Tensor]) -> NeuralFlow:
        flow = self._seeded_build(dim, torch.Generator().manual_seed(0))
        expected = {f"flow.{name}": p.shape for name, p in flow.named_parameters()}
        expected |= {"mean": torch.Size([dim]), "factor": torch.Size([dim, dim])}
        match_tensors(self.kind, expected, tensors)
        with torch.no_grad():
            for name, parameter in flow.named_parameters():
                parameter.copy_(tensors[f"flow.{name}"])
        return NeuralFlow(self, Whitening.of(tensors["mean"], tensors["factor"]), flow)

    def _seeded_build(self, dim: int, generator: torch.Generator) -> nn.Module:
        """Build with initial weights from ``generator``, not from the global state."""
        seed = int(torch.randint(2**62, (1,), generator=generator))
        # nn.Module initialises from the global state: put it back, one thread at a time.
        with _GLOBAL_STATE, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self.build(dim).float()


def _nll(flow: nn.Module, z: Tensor) -> Tensor:
    """Negative log density of a flow to the standard normal at (n, d), nats."""
    u, log_det = flow(z)
    return 0.5 * (u.square().sum(dim=1) + z.shape[1] * LOG_2PI) - log_det


def _train(
    config: NeuralFlowConfig,
    flow: nn.Module,
    whitening: Whitening,
    draws: Tensor,
    heldout: Tensor,
    *,
    generator: torch.Generator,
    device: torch.device | str,
    progress: Progress | None,
    time_limit: float | None,
) -> FitReport:
    return train(
        config.kind,
        flow,
        _nll,
        whitening.forward(draws).float().to(device),
        whitening.forward(heldout).float().to(device),
        config,
        generator=generator,
        offset=-whitening.log_det,
        progress=progress,
        time_limit=time_limit,
    )
