"""Masked autoregressive flow (Papamakarios, Pavlakou & Murray 2017, arXiv:1705.07057)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from amfvi.experts.attempts import Attempts
from amfvi.experts.base import Expert
from amfvi.experts.flows.elementwise import SoftplusAffine
from amfvi.experts.flows.flow import Flow
from amfvi.experts.folds import Folds
from amfvi.experts.neural import NeuralFlowConfig
from amfvi.experts.reports import FitReport, Progress

__all__ = ["MAF"]


@dataclass(frozen=True, kw_only=True)
class MAF(NeuralFlowConfig):
    """Settings of a masked autoregressive flow.

    Each layer shifts and scales every coordinate by functions of those before it;
    the order is reversed from layer to layer. A density takes one pass, a draw
    takes d passes. In one dimension there is nothing to condition on and the flow is a
    Gaussian.

    From three dimensions on a second flow is trained with a learned linear map before each
    layer, which is not in the paper, and the one with the larger held-out density is kept:
    what follows the order of the coordinates is easier to learn without the maps, and what
    lies across them with.

    Attributes:
        compare_unmixed: whether the flow without the maps is tried.

    Examples:
        >>> import torch
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> expert = MAF(layers=2, max_steps=25).fit(x, folds=2)
        >>> expert.log_prob(x).shape, expert.sample(1000).shape
        (torch.Size([200]), torch.Size([1000, 2]))
    """

    kind: ClassVar[str] = "maf"
    activation: str = "leaky_relu"
    compare_unmixed: bool = True

    def build(self, dim: int, given: int = 0) -> Flow:
        """The architecture in ``dim`` dimensions, given a condition of ``given``."""
        return self._build_flow(dim, given, SoftplusAffine(), autoregressive=True)

    def fit_folds(
        self,
        folds: Folds,
        *,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> tuple[Expert, FitReport]:
        """Fit a flow without maps and one with; see :meth:`ExpertConfig.fit_folds`."""
        mixes = self.build(folds.dim, folds.given).mixes
        if not (mixes and self.compare_unmixed):
            return super().fit_folds(
                folds, generator=generator, device=device, progress=progress, timeout=timeout
            )
        attempts = Attempts(progress, timeout)
        unmixed, of_unmixed = replace(self, mix_from=folds.dim + 1).fit_flow(
            folds, generator=generator, device=device,
            progress=attempts.progress(0.0, 0.3), timeout=attempts.seconds_left,
        )  # fmt: skip
        mixed, of_mixed = self.fit_flow(
            folds, generator=generator, rival_nll=of_unmixed.heldout_nll, device=device,
            progress=attempts.progress(0.3, 1.0), timeout=attempts.seconds_left,
        )  # fmt: skip
        if of_mixed.heldout_nll < of_unmixed.heldout_nll:
            return mixed, attempts.report(of_mixed)
        unmixed.config = self
        return unmixed, attempts.report(of_unmixed)
