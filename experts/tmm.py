"""Student-t mixture for heavy tails, by expectation maximization (Peel & McLachlan 2000)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from amfvi.experts.elliptical.config import EllipticalConfig

__all__ = ["TMM"]


@dataclass(frozen=True, kw_only=True)
class TMM(EllipticalConfig):
    """Settings of a mixture of Student-t distributions.

    All components share their degrees of freedom, which are fitted (between 0.5
    and 200).

    Examples:
        >>> import torch
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> expert = TMM(max_components=1).fit(x, folds=2)
        >>> expert.components.freedom.shape
        torch.Size([2])
    """

    kind: ClassVar[str] = "tmm"
    gaussian: ClassVar[bool] = False
    max_components: int = 12
    tolerance: float = 3e-5
