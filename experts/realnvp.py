"""RealNVP coupling flow (Dinh, Sohl-Dickstein & Bengio 2017, arXiv:1605.08803)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from amfvi.errors import FitError, UsageError
from amfvi.experts.attempts import Attempts
from amfvi.experts.base import Expert
from amfvi.experts.elliptical.config import COMPONENT_COUNTS
from amfvi.experts.elliptical.mixture import EllipticalMixture
from amfvi.experts.flows.elementwise import BoundedAffine
from amfvi.experts.flows.flow import Flow
from amfvi.experts.folds import Folds
from amfvi.experts.gmm import GMM
from amfvi.experts.mixture_base import MixtureBaseFlow, to_latent_space
from amfvi.experts.neural import MAX_ROWS, NeuralFlowConfig
from amfvi.experts.reports import FitReport, Progress
from amfvi.experts.whitening import Whitening

__all__ = ["RealNVP"]


MIN_GAIN = 1.0
"""Nats of held-out density, over all draws, that make layers before a Gaussian mixture worth
their time."""

NOT_BENT = "no layer improved on the Gaussian mixture"
"""What the report says where a flow is no more than its base."""


@dataclass(frozen=True, kw_only=True)
class RealNVP(NeuralFlowConfig):
    """Settings of a RealNVP.

    Each layer shifts and scales every other coordinate by functions of the rest;
    the two halves alternate. Densities and draws both take one pass. From three dimensions
    on a learned linear map stands before each layer, as in Glow (Kingma & Dhariwal 2018,
    arXiv:1807.03039). In one dimension there is no other half and the flow is a Gaussian.

    The base is the standard normal, or a Gaussian mixture fitted by expectation
    maximization, which the flow then bends: the one with the larger held-out density. Where
    no bend improves on a mixture, the mixture alone is the fit.

    Attributes:
        base_components: most components of the mixture; 1 for the standard normal always.

    Examples:
        >>> import torch
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> RealNVP(layers=2, max_steps=25).fit(x, folds=2).sample((3, 4)).shape
        torch.Size([3, 4, 2])
    """

    kind: ClassVar[str] = "realnvp"
    layers: int = 6
    activation: str = "leaky_relu"
    base_components: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        count = self.base_components
        if type(count) is not int or not 1 <= count <= COMPONENT_COUNTS[-1]:
            raise UsageError(
                f"realnvp: base_components must be a whole number in [1, {COMPONENT_COUNTS[-1]}], "
                f"found {self.base_components!r}"
            )

    def build(self, dim: int, given: int = 0) -> Flow:
        """The architecture in ``dim`` dimensions, given a condition of ``given``."""
        return self._build_flow(dim, given, BoundedAffine(), autoregressive=False)

    def fit_folds(
        self,
        folds: Folds,
        *,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> tuple[Expert, FitReport]:
        """Fit a flow to either base and keep the better; see :meth:`ExpertConfig.fit_folds`."""
        attempts = Attempts(progress, timeout)
        mixture, mixture_nll = None, None
        tries_mixture = self.base_components > 1 and not folds.given
        # The quicker first: the other need not be finished where it falls behind.
        flow_is_first = self.build(folds.dim, folds.given).mixes
        if tries_mixture and not flow_is_first:
            mixture, mixture_nll = self._fit_mixture(folds, generator, None, device, timeout)
        expert, report = self.fit_flow(
            folds, generator=generator, rival_nll=mixture_nll, device=device,
            progress=attempts.progress(0.0, 0.6 if tries_mixture else 1.0),
            timeout=attempts.seconds_left,
        )  # fmt: skip
        if tries_mixture and flow_is_first:
            mixture, mixture_nll = self._fit_mixture(
                folds, generator, report.heldout_nll, device, attempts.seconds_left
            )
        if mixture is None or mixture_nll is None or report.heldout_nll <= mixture_nll:
            return expert, attempts.report(report)
        base = to_latent_space(mixture, Whitening.fit(folds.at_most(MAX_ROWS))).to(device)
        flow, of_flow = self.fit_flow(
            folds, generator=generator,
            base_nll=lambda u, log_det: -base.density.log_prob(u) - log_det, device=device,
            progress=attempts.progress(0.6, 1.0), timeout=attempts.seconds_left,
        )  # fmt: skip
        if of_flow.heldout_nll > report.heldout_nll:
            return expert, attempts.report(report)
        if (mixture_nll - of_flow.heldout_nll) * len(folds) > MIN_GAIN:
            return MixtureBaseFlow(flow, base), attempts.report(of_flow)
        mixture.config = self  # layers that bend nothing would only cost time
        return mixture, attempts.report(replace(of_flow, stopped_by=NOT_BENT))

    def restore(self, dim: int, tensors: Mapping[str, Tensor], given: int = 0) -> Expert:
        """Rebuild the expert whose :meth:`Expert.tensors` these are."""
        if MixtureBaseFlow.is_described_by(tensors):
            return MixtureBaseFlow.restore(self, dim, tensors)
        if "log_weights" in tensors:
            mixture = GMM().restore(dim, tensors)
            mixture.config = self
            return mixture
        return super().restore(dim, tensors, given)

    def _fit_mixture(
        self,
        folds: Folds,
        generator: torch.Generator,
        rival_nll: float | None,
        device: torch.device | str,
        timeout: float | None,
    ) -> tuple[EllipticalMixture | None, float | None]:
        """A mixture of several components and its held-out NLL; None if there is none."""
        # A generator of its own: the flow is the same whether or not there is a mixture.
        own = torch.Generator().manual_seed(generator.initial_seed())
        config = GMM(max_components=self.base_components)
        try:
            mixture, report = config.fit_mixture(
                folds, generator=own, rival_nll=rival_nll, device=device, timeout=timeout
            )
        except FitError:  # the flow is fitted all the same
            return None, None
        if mixture.n_components == 1:
            return None, None
        return mixture, report.heldout_nll
