"""What experts of a whitening and learned parameters have in common: to save, restore and move."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor

from amfvi.experts.base import Expert
from amfvi.experts.checks import check_tensors, count_members
from amfvi.experts.flows.flow import Parameters
from amfvi.experts.whitening import Whitening

__all__ = ["LearnedExpert", "restore_learned"]


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
        return {"mean": self.whitening.mean.cpu(), "factor": self.whitening.factor.cpu(), **learned}

    def to(self, device: torch.device | str) -> Self:
        """The same expert with its numbers on ``device``."""
        learned = {name: value.to(device) for name, value in self.parameters.items()}
        moved = type(self)(self.config, self.whitening.to(device), learned)  # type: ignore[arg-type]
        moved.report = self.report
        return moved

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
    check_tensors(kind, expected, tensors)
    learned = {name: tensors[f"{prefix}.{name}"].float() for name in shapes}
    return Whitening.from_factor(tensors["mean"], tensors["factor"], given), learned
