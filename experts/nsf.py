"""Neural spline flow (Durkan, Bekasov, Murray & Papamakarios 2019, arXiv:1906.04032)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from amfvi.errors import UsageError
from amfvi.experts.flows.elementwise import RationalQuadratic
from amfvi.experts.flows.flow import Flow
from amfvi.experts.neural import NeuralFlowConfig

__all__ = ["NSF"]


@dataclass(frozen=True, kw_only=True)
class NSF(NeuralFlowConfig):
    """Settings of an autoregressive neural spline flow.

    Each layer transforms every coordinate by a spline whose shape depends on the
    coordinates before it; from three dimensions on a learned linear map stands before each
    layer. A density takes one pass, a draw takes d passes. In one dimension it is a plain
    spline. Given a condition it is one layer of twice the width there: a composition of
    splines of one coordinate has no more freedom than a spline.

    Attributes:
        bins: number of bins of each spline.
        edge: the splines cover [−edge, edge], in training standard deviations, and
            are the identity outside.

    Examples:
        >>> import torch
        >>> x = torch.randn(200, generator=torch.Generator().manual_seed(0))
        >>> NSF(layers=1, max_steps=25).fit(x, folds=1).log_prob(torch.zeros(7, 1)).shape
        torch.Size([7])
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

    def build(self, dim: int, given: int = 0) -> Flow:
        """The architecture in ``dim`` dimensions, given a condition of ``given``."""
        elementwise = RationalQuadratic(bins=self.bins, edge=self.edge)
        settings = self
        if given and dim == 1:
            settings = replace(self, layers=1, hidden_features=2 * self.hidden_features)
        return settings._build_flow(dim, given, elementwise, autoregressive=True)
