"""What experts of a whitening and learned parameters have in common: to save, restore and move."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor

from amfvi.errors import InputError
from amfvi.experts.base import Expert
from amfvi.experts.checks import check_tensors, count_members
from amfvi.experts.flows.flow import Parameters
from amfvi.experts.folds import Folds
from amfvi.experts.reports import FitReport, Progress
from amfvi.experts.training.loop import train
from amfvi.experts.training.problem import Loss, TrainingProblem
from amfvi.experts.training.settings import Training
from amfvi.experts.whitening import Whitening

__all__ = [
    "REACH",
    "Architecture",
    "LearnedExpert",
    "restore_learned",
    "saved_reach",
    "saved_spread",
    "train_whitened",
]

SPREAD = "spread"
"""Name of the tensor of :attr:`Expert.spread`."""

REACH = "reach"
"""Name of the tensor of the reach of a flow's draws, (members, d)."""


class Architecture(Protocol):
    """A network that can be initialized for all members at once.

    Examples:
        >>> from amfvi.experts import MAF
        >>> MAF().build(dim=2).initial(3, torch.Generator())["input.bias"].shape[0]
        3
    """

    def initial(self, members: int, generator: torch.Generator) -> Parameters: ...


class LearnedExpert(Expert):
    """An expert that consists of a whitening and of parameters that a network has learned.

    Attributes:
        prefix: of the names of the parameters among its tensors.
        whitening: of condition and parameters.
        parameters: the learned tensors by name, float32.

    Examples:
        >>> from amfvi.experts import MAF
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> expert = MAF(layers=2, max_steps=25).fit(x, folds=2)
        >>> isinstance(expert, LearnedExpert), sorted(expert.tensors())[:2]
        (True, ['factor', 'flow.hidden.bias'])
    """

    prefix: ClassVar[str]
    whitening: Whitening
    parameters: Parameters

    def tensors(self) -> dict[str, Tensor]:
        """Whitening and learned parameters by name, on the CPU."""
        learned = {
            f"{self.prefix}.{name}": value.cpu().contiguous()
            for name, value in self.parameters.items()
        }
        named = {
            "mean": self.whitening.mean.cpu(),
            "factor": self.whitening.factor.cpu(),
            **learned,
        }
        if self.spread != 1:
            named[SPREAD] = torch.tensor([self.spread], dtype=torch.float64)
        return named

    def widened(self, factor: float) -> Self:
        """The same expert with its base, or its components, ``spread`` times wider."""
        if factor == 1:
            return self
        wider = copy.copy(self)
        wider.spread = self.spread * factor
        return wider

    def to(self, device: torch.device | str) -> Self:
        """The same expert with its numbers on ``device``."""
        learned = {name: value.to(device) for name, value in self.parameters.items()}
        moved = type(self)(self.config, self.whitening.to(device), learned)  # type: ignore[arg-type]
        moved.report, moved.spread = self.report, self.spread
        return moved

    def _keep_first_member(self) -> None:
        self.parameters = {name: value[:1] for name, value in self.parameters.items()}

    @property
    def device(self) -> torch.device:
        """Device of the fitted numbers."""
        return self.whitening.mean.device

    def _learned(self, dtype: torch.dtype) -> Parameters:
        return {name: value.to(dtype) for name, value in self.parameters.items()}


def restore_learned(
    kind: str,
    prefix: str,
    shapes: Mapping[str, torch.Size],
    tensors: Mapping[str, Tensor],
    *,
    columns: int,
    given: int,
) -> tuple[Whitening, Parameters]:
    """Read whitening and parameters from the tensors of a saved :class:`LearnedExpert`.

    Args:
        kind: of the expert, for messages.
        prefix: as there.
        shapes: of the parameters by name.
        columns: given + d.

    Raises:
        InputError: a tensor is missing, unexpected, or has the wrong shape.

    Examples:
        >>> tensors = {"mean": torch.zeros(1, 1), "factor": torch.ones(1, 1, 1),
        ...            "flow.bias": torch.zeros(1, 4)}
        >>> whitening, parameters = restore_learned(
        ...     "maf", "flow", {"bias": torch.Size([1, 4])}, tensors, columns=1, given=0)
        >>> whitening.dim, list(parameters)
        (1, ['bias'])
    """
    members = count_members(tensors)
    expected = {
        "mean": torch.Size([members, columns]),
        "factor": torch.Size([members, columns, columns]),
    }
    expected |= {f"{prefix}.{name}": shape for name, shape in shapes.items()}
    if given and SPREAD in tensors:
        expected[SPREAD] = torch.Size([1])
    if not given and REACH in tensors:
        expected[REACH] = torch.Size([members, columns])
    check_tensors(kind, expected, tensors)
    learned = {name: tensors[f"{prefix}.{name}"].float() for name in shapes}
    return Whitening.from_factor(tensors["mean"], tensors["factor"], given), learned


def saved_spread(tensors: Mapping[str, Tensor]) -> float:
    """How many times wider than trained a saved expert is; 1 where that is not saved.

    Raises:
        InputError: not a positive number.

    Examples:
        >>> saved_spread({"spread": torch.tensor([1.1])}) > 1, saved_spread({})
        (True, 1.0)
    """
    spread = float(tensors[SPREAD]) if SPREAD in tensors else 1.0
    if not spread > 0:
        raise InputError(f"the spread of a saved expert must be positive, found {spread:g}")
    return spread


def saved_reach(tensors: Mapping[str, Tensor]) -> Tensor | None:
    """Reach of a saved flow, (members, d); None where it has none.

    Raises:
        InputError: not positive numbers.

    Examples:
        >>> saved_reach({"reach": torch.tensor([[9.0]])}), saved_reach({})
        (tensor([[9.]]), None)
    """
    reach = tensors.get(REACH)
    if reach is not None and not bool((reach > 0).all()):
        raise InputError(f"the reach of a saved flow must be positive, found {reach.min():g}")
    return reach


def train_whitened(
    settings: Training,
    kind: str,
    folds: Folds,
    network: Architecture,
    *,
    nll: Loss,
    frozen_nll: Loss,
    masks: Parameters,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    timeout: float | None = None,
    prepare: Callable[[Parameters, Tensor], None] | None = None,
    **special: Any,
) -> tuple[Whitening, Parameters, FitReport]:
    """Whiten the draws and train a network on them, all members together.

    Args:
        nll, frozen_nll, masks: as of :class:`TrainingProblem`.
        prepare: changes the parameters that training starts from in view of the whitened draws,
            (members, d, n).
        special: further fields of it.

    Returns:
        The whitening and the learned parameters on ``device``, and the report.

    Raises:
        FitError: no finite density at the start.

    Examples:
        >>> from amfvi.experts import MAF
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)).double()
        >>> flow = MAF(layers=1).build(dim=2)
        >>> whitening, learned, report = train_whitened(
        ...     MAF(layers=1, max_steps=25), "maf", Folds.holdout(x[:150], x[150:]), flow,
        ...     nll=flow.nll, frozen_nll=flow.nll, masks=flow.masks, generator=torch.Generator())
        >>> whitening.dim, report.best_step > 0
        (2, True)
    """
    whitening = Whitening.fit(folds)
    initial = network.initial(folds.n_members, generator)
    whitened = whitening.forward(folds.draws.expand(folds.n_members, -1, -1))
    if prepare is not None:
        prepare(initial, whitened)
    problem = TrainingProblem(
        name=kind,
        nll=nll,
        frozen_nll=frozen_nll,
        initial={name: value.to(device) for name, value in initial.items()},
        masks=masks,
        draws=whitened.float().to(device),
        folds=folds,
        offset=-whitening.log_det,
        **special,
    )
    learned, report = train(
        problem, settings, generator=generator, progress=progress, timeout=timeout
    )
    return whitening.to(device), learned, report
