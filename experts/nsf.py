"""Neural spline flow (Durkan, Bekasov, Murray & Papamakarios 2019, arXiv:1906.04032)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from amfvi.experts.elementwise import RationalQuadratic
from amfvi.experts.flow import Flow
from amfvi.experts.neural import NeuralFlowConfig

from amfvi.errors import UsageError

__all__ = ["NSF"]


@dataclass(frozen=True, kw_only=True)
class NSF(NeuralFlowConfig):
    """Settings of an autoregressive neural spline flow.

    Each layer bends every coordinate by a spline whose shape depends on the
    coordinates before it. A density takes one pass, a draw takes d passes. In one
    dimension it is a spline of its own.

    Attributes:
        bins: of each spline.
        edge: the splines bend [−edge, edge], in training standard deviations, and
            are the identity outside.
    """

    kind: ClassVar[str] = "nsf"
    layers: int = 3
    bins: int = 8
    edge: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_positive("bins", "edge")
        if not 2 <= self.bins <= 100:
            raise UsageError(f"nsf: bins must be in [2, 100], found {self.bins!r}")

    def build(self, dim: int) -> Flow:
        elementwise = RationalQuadratic(self.bins, self.edge)
        return self._flow(dim, elementwise, autoregressive=True)
