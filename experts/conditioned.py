"""A conditional expert at one condition: a density like any other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from amfvi.errors import UsageError
from amfvi.experts.base import Expert
from amfvi.experts.wrapper import Wrapper, config_of

__all__ = ["Conditioned", "ConditionedExpert"]


class ConditionedExpert(Expert):
    """q(· | c) of a conditional expert q.

    Args:
        expert: a density given a condition.
        condition: c, (given,).

    Examples:
        >>> from amfvi.experts import GMM
        >>> c = torch.randn(200, 1, generator=torch.Generator().manual_seed(0)).double()
        >>> joint = GMM(max_components=1).fit(torch.cat([c, c + 1], dim=1), given=1, folds=2)
        >>> at_two = ConditionedExpert(joint, torch.tensor([2.0]).double())
        >>> at_two.dim, bool((at_two.sample(100).mean() - 3).abs() < 0.1)
        (1, True)
    """

    def __init__(self, expert: Expert, condition: Tensor) -> None:
        if condition.shape != (expert.given,) or not bool(condition.isfinite().all()):
            raise UsageError(
                f"a condition is {expert.given} finite numbers, found {condition.tolist()}"
            )
        super().__init__(Conditioned(expert=config_of(expert)), expert.dim, expert.n_members)
        self.expert = expert
        self.condition = condition.double()

    def tensors(self) -> dict[str, Tensor]:
        """Those of the conditional expert, and the condition, on the CPU."""
        return {"condition": self.condition.cpu(), **self.expert.tensors()}

    def to(self, device: torch.device | str) -> Self:
        """The same expert with its numbers on ``device``."""
        return type(self)(self.expert.to(device), self.condition.to(device))

    @property
    def device(self) -> torch.device:
        """Device of the fitted numbers."""
        return self.expert.device

    def _log_prob(self, x: Tensor) -> Tensor:
        return self.expert._log_prob(torch.cat([self._repeated(x.shape[1]).to(x), x], dim=2))

    def _sample(
        self,
        n: int,
        generator: torch.Generator | None,
        dtype: torch.dtype,
        given: Tensor | None = None,
    ) -> Tensor:
        return self.expert._sample(n, generator, dtype, self._repeated(n).to(dtype))

    def _repeated(self, n: int) -> Tensor:
        return self.condition.to(self.device).expand(self.n_members, n, -1)


@dataclass(frozen=True, kw_only=True)
class Conditioned(Wrapper):
    """Settings of the expert that was conditioned; they restore one, but fit none.

    Examples:
        >>> from amfvi.experts import GMM, config_from_json
        >>> config_from_json(Conditioned(expert=GMM()).to_json()).expert.kind
        'gmm'
    """

    kind: ClassVar[str] = "conditioned"
    refusal: ClassVar[str] = "an expert is fitted to pairs first, and conditioned then"

    def restore(self, dim: int, tensors: Mapping[str, Tensor], given: int = 0) -> ConditionedExpert:
        """Rebuild the expert whose :meth:`ConditionedExpert.tensors` these are."""
        rest = dict(tensors)
        condition = rest.pop("condition", torch.empty(0)).reshape(-1)
        return ConditionedExpert(self.expert.restore(dim, rest, len(condition)), condition)
