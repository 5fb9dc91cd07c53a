"""A continuous-time flow as an expert, for the question what it would buy.

The velocity field is fitted by flow matching (Lipman et al. 2023, arXiv:2210.02747), which
needs no integration; densities and draws integrate it with ``torchdiffeq`` (fourth-order
Runge–Kutta, fixed steps) and the exact trace of its Jacobian (Chen et al. 2018,
arXiv:1806.07366). The density is exact up to the error of the integration.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from amfvi.experts import EXPERTS, ExpertConfig, FitReport, Folds, Progress, TrainingRecord
from amfvi.experts.flows.bijection import BijectiveExpert
from amfvi.experts.flows.flow import Parameters
from amfvi.experts.flows.velocity import integrate
from amfvi.experts.whitening import Whitening

__all__ = ["CNF", "ContinuousFlow"]

FREQUENCIES = 3
"""Sines, and as many cosines, of the time that the velocity sees."""

REPORT_EVERY = 200
"""Steps between reports of progress."""


class ContinuousFlow(BijectiveExpert):
    """z(1) is a whitened point, z(0) its normal score, dz/dt = v(z, t)."""

    def __init__(self, config: CNF, whitening: Whitening, parameters: Parameters) -> None:
        super().__init__(config, whitening)
        self.parameters = parameters
        self._settings = config

    def _keep_first_member(self) -> None:
        self.parameters = {name: value[:1] for name, value in self.parameters.items()}

    def _to_normal(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self._integrate(z, backwards=True)

    def _from_normal(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return self._integrate(u, backwards=False)

    def _integrate(self, z: Tensor, *, backwards: bool) -> tuple[Tensor, Tensor]:
        """Move points (members, d, n) along the velocity; also log |det|, (members, n)."""
        parameters = {name: value.to(z) for name, value in self.parameters.items()}
        return integrate(
            lambda points, t: velocity_and_trace(parameters, points, t),
            z,
            steps=self._settings.integration_steps,
            backwards=backwards,
        )

    def tensors(self) -> dict[str, Tensor]:
        learned = {f"flow.{name}": value.cpu() for name, value in self.parameters.items()}
        return {"mean": self.whitening.mean.cpu(), "factor": self.whitening.factor.cpu(), **learned}

    def to(self, device: torch.device | str) -> Self:
        parameters = {name: value.to(device) for name, value in self.parameters.items()}
        moved = type(self)(self._settings, self.whitening.to(device), parameters)
        moved.report = self.report
        return moved


def velocity(parameters: Parameters, z: Tensor, t: Tensor) -> Tensor:
    """v(z, t) for every member: z (members, d, n), t a number or (n,); (members, d, n)."""
    h = _features(z, t)
    for layer in ("0", "1", "2"):
        h = torch.baddbmm(parameters["b" + layer], parameters["w" + layer], h)
        h = torch.nn.functional.silu(h)
    return torch.baddbmm(parameters["b3"], parameters["w3"], h)


def velocity_and_trace(parameters: Parameters, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Also the trace of ∂v/∂z, (members, n), by one forward derivative per coordinate."""
    d = z.shape[1]
    h = _features(z, t)
    tangents = [parameters["w0"][:, :, k : k + 1].expand(-1, -1, z.shape[2]) for k in range(d)]
    for layer in ("0", "1", "2"):
        if layer != "0":
            tangents = [parameters["w" + layer] @ tangent for tangent in tangents]
        h = torch.baddbmm(parameters["b" + layer], parameters["w" + layer], h)
        gate = h.sigmoid()
        slope = gate * (1 + h * (1 - gate))
        tangents = [slope * tangent for tangent in tangents]
        h = h * gate
    rows = parameters["w3"]
    trace = z.new_zeros(z.shape[0], z.shape[2])
    for k in range(d):
        trace = trace + (rows[:, k : k + 1] @ tangents[k]).squeeze(1)
    return torch.baddbmm(parameters["b3"], rows, h), trace


def _features(z: Tensor, t: Tensor) -> Tensor:
    """The point, then sines and cosines of the time: (members, d + 2·FREQUENCIES, n)."""
    angle = math.pi * t.expand(z.shape[2]) * torch.arange(1, FREQUENCIES + 1).to(z)[:, None]
    waves = torch.cat([angle.sin(), angle.cos()])
    return torch.cat([z, waves.expand(len(z), -1, -1)], dim=1)


@dataclass(frozen=True, kw_only=True)
class CNF(ExpertConfig):
    """Settings of a continuous-time flow.

    Attributes:
        width: of the three hidden layers of the velocity.
        steps: of Adam, with a rate that falls to zero along a cosine.
        batch_size: draws per step.
        learning_rate: the largest.
        ema_decay: of the average of the parameters that is kept.
        integration_steps: of the density and the draws.
    """

    kind: ClassVar[str] = "cnf"
    width: int = 64
    steps: int = 4_000
    batch_size: int = 512
    learning_rate: float = 1e-2
    ema_decay: float = 0.998
    integration_steps: int = 20

    def fit_folds(
        self,
        folds: Folds,
        *,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> tuple[ContinuousFlow, FitReport]:
        started = time.monotonic()
        folds.require_fittable(self.kind)
        whitening = Whitening.fit(folds)
        initial = self._initial(folds, generator)
        ends_at = math.inf if timeout is None else started + timeout
        parameters, step = self._train(folds, whitening, initial, generator, progress, ends_at)
        expert = ContinuousFlow(self, whitening, parameters)
        record = TrainingRecord(
            step=step,
            train_nll=-float(expert.log_prob(folds.draws).mean()),
            heldout_nll=-float(expert.log_prob_out_of_fold(folds).mean()),
        )
        report = FitReport(
            history=(record,),
            best_step=step,
            converged=step == self.steps,
            stopped_by="all steps taken" if step == self.steps else "timeout",
            seconds=time.monotonic() - started,
        )
        return expert, report

    def _train(
        self,
        folds: Folds,
        whitening: Whitening,
        leaves: Parameters,
        generator: torch.Generator,
        progress: Progress | None,
        ends_at: float,
    ) -> tuple[Parameters, int]:
        """Fit the velocity by flow matching; averaged parameters and the number of steps."""
        draws = whitening.forward(folds.draws.expand(folds.n_members, -1, -1)).float()
        averages = {name: leaf.detach().clone() for name, leaf in leaves.items()}
        adam = torch.optim.Adam(leaves.values(), lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, self.steps)
        step = 0
        for step in range(1, self.steps + 1):
            rows = torch.stack([
                r[torch.randint(len(r), (self.batch_size,), generator=generator)]
                for r in folds.train_rows
            ])  # fmt: skip
            data = draws.gather(2, rows[:, None].expand(-1, folds.dim, -1))
            noise = torch.randn(data.shape, generator=generator)
            t = torch.rand(self.batch_size, generator=generator)
            predicted = velocity(leaves, noise + t * (data - noise), t)
            loss = (predicted - (data - noise)).square().sum(dim=1).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            schedule.step()
            decay = min(self.ema_decay, step / (step + 10))
            with torch.no_grad():
                for name, leaf in leaves.items():
                    averages[name].lerp_(leaf, 1 - decay)
            if step % REPORT_EVERY == 0 and progress is not None:
                progress(step / self.steps, math.nan)
            if time.monotonic() > ends_at:
                break
        return averages, step

    def _initial(self, folds: Folds, generator: torch.Generator) -> Parameters:
        """Random weights, zero in the last layer, that require gradients."""
        inputs = folds.dim + 2 * FREQUENCIES
        sizes = [(self.width, inputs), (self.width, self.width), (self.width, self.width),
                 (folds.dim, self.width)]  # fmt: skip
        parameters = {}
        for number, (rows, columns) in enumerate(sizes):
            shape = (folds.n_members, rows, columns)
            last = number == len(sizes) - 1
            scale = 0.0 if last else 1 / math.sqrt(columns)
            parameters[f"w{number}"] = scale * torch.randn(shape, generator=generator)
            parameters[f"b{number}"] = torch.zeros(folds.n_members, rows, 1)
        return {name: value.requires_grad_() for name, value in parameters.items()}

    def restore(self, dim: int, tensors: Mapping[str, Tensor], given: int = 0) -> ContinuousFlow:
        learned = {n.removeprefix("flow."): v for n, v in tensors.items() if n.startswith("flow.")}
        whitening = Whitening.from_factor(tensors["mean"], tensors["factor"])
        return ContinuousFlow(self, whitening, learned)


EXPERTS.setdefault(CNF.kind, CNF)  # so that a saved mixture with one can be read again
