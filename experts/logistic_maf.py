"""Masked autoregressive flow whose conditionals are mixtures of logistics."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from amfvi.experts.flows.flow import Flow
from amfvi.experts.flows.logistic_mixture import LogisticMixture
from amfvi.experts.neural import NeuralFlowConfig

__all__ = ["LogisticMAF"]


@dataclass(frozen=True, kw_only=True)
class LogisticMAF(NeuralFlowConfig):
    """Settings of a masked autoregressive flow with mixtures of logistics.

    Each layer transforms every coordinate by the distribution function of a mixture, whose
    parameters depend on the coordinates before it, as the mixtures of Gaussians in MAF MoG do
    (Papamakarios, Pavlakou & Murray 2017, arXiv:1705.07057) and those of logistics in Flow++
    (Ho et al. 2019, arXiv:1902.00275): modes need not be pulled out of one. A density takes one
    pass; a draw takes d passes with a search for a root in each. From three dimensions on a
    learned linear map stands before each layer, as in :class:`~amfvi.experts.MAF`. Given a
    condition it is one layer of twice the width in one dimension, like
    :class:`~amfvi.experts.NSF`.

    Attributes:
        components: number of logistics of each conditional.

    Examples:
        >>> import torch
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> expert = LogisticMAF(layers=2, max_steps=25).fit(x, folds=2)
        >>> expert.log_prob(x).shape, expert.sample(1000).shape
        (torch.Size([200]), torch.Size([1000, 2]))
    """

    kind: ClassVar[str] = "logistic_maf"
    layers: int = 3
    components: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_positive("components")

    def build(self, dim: int, given: int = 0) -> Flow:
        """The architecture in ``dim`` dimensions, given a condition of ``given``."""
        elementwise = LogisticMixture(components=self.components)
        settings = self
        if given and dim == 1:
            settings = replace(self, layers=1, hidden_features=2 * self.hidden_features)
        return settings._build_flow(dim, given, elementwise, autoregressive=True)
