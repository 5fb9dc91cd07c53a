"""Mixture density networks (Bishop 1994): a network gives the components at each condition.

Full precision factors, log-sum-exp, and a start at the linear regression: behind the
whitening the parameters are residuals of it, and the network at first gives the standard
normal whatever the condition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from amfvi.errors import UsageError, unknown_name
from amfvi.experts.checks import count_members
from amfvi.experts.config import ExpertConfig
from amfvi.experts.density_network import ConditionalComponents, Network
from amfvi.experts.flows.flow import ACTIVATIONS, Parameters
from amfvi.experts.folds import Folds
from amfvi.experts.learned import (
    LearnedExpert,
    restore_learned,
    saved_spread,
    train_whitened,
)
from amfvi.experts.parallel import map_chunked
from amfvi.experts.repeats import find_runs
from amfvi.experts.reports import FitReport, Progress
from amfvi.experts.training.settings import POSITIVE, Training
from amfvi.experts.whitening import Whitening

__all__ = ["MDN", "DensityNetwork", "NoisyMDN"]

MAX_DISTANCE = 1e9
"""Whitened conditions are clamped here, so that the network does not overflow."""

FEW_PAIRS = 200
"""Pairs above which less noise is added."""

CHUNK_ROWS = 2**13
"""Rows of all members that are evaluated at a time."""


class DensityNetwork(LearnedExpert):
    """A trained mixture density network behind a whitening of condition and parameters.

    Attributes:
        network: the architecture.

    Examples:
        >>> c = torch.randn(200, 1, generator=torch.Generator().manual_seed(0)).double()
        >>> expert = MDN(components=2, max_steps=25).fit(torch.cat([c, -c], 1), given=1, folds=2)
        >>> expert.dim, expert.given, expert.sample_given(c[:5]).shape
        (1, 1, torch.Size([5, 1]))
    """

    prefix = "network"

    def __init__(self, config: MDN, whitening: Whitening, parameters: Parameters) -> None:
        super().__init__(config, whitening.dim, whitening.n_members, whitening.given)
        self.whitening = whitening
        self.network = config.build(whitening.dim, whitening.given)
        self.parameters = parameters

    def _log_prob(self, x: Tensor) -> Tensor:
        return map_chunked(self._density, x, CHUNK_ROWS)

    def _density(self, x: Tensor) -> Tensor:
        z = self._whiten(x)
        log_q = self._components(z[:, : self.given]).log_prob(z[:, self.given :])
        return self.whitening.log_det[:, None].to(x.dtype) + log_q

    def _components(self, condition: Tensor) -> ConditionalComponents:
        """The components at whitened conditions (members, given, n)."""
        runs = find_runs(condition)
        distinct = condition if runs is None else runs[0]
        parts = self.network.components(self._learned(condition.dtype), distinct)
        if self.spread != 1:
            parts = parts.widened(self.spread)
        return parts if runs is None else parts.at_runs(runs[1])

    def _sample(
        self,
        n: int,
        generator: torch.Generator | None,
        dtype: torch.dtype,
        given: Tensor | None = None,
    ) -> Tensor:
        if given is None:
            raise UsageError("a mixture density network has no draws without a condition")
        # A network in single precision moves a draw by less than matters, in half the time.
        z = self._whiten(given).float()
        uniform = torch.rand(self.n_members, n, generator=generator, dtype=torch.float64)
        noise = torch.randn(self.n_members, n, self.dim, generator=generator, dtype=torch.float64)
        drawn = self._components(z).sample(uniform.to(z), noise.to(z))
        return self.whitening.inverse(torch.cat([z, drawn.mT], dim=1))[..., self.given :].to(dtype)

    def _whiten(self, x: Tensor) -> Tensor:
        return self.whitening.forward(x).clamp(-MAX_DISTANCE, MAX_DISTANCE).to(x.dtype)


@dataclass(frozen=True, kw_only=True)
class MDN(Training, ExpertConfig):
    """Settings of a mixture density network; it needs a condition.

    Attributes:
        components: number of components K.
        hidden_features: hidden units of each layer.
        hidden_layers: hidden layers.
        activation: of the hidden units, "leaky_relu" or "silu".
        noise: standard deviation of normal noise on whitened condition and parameters while
            training, which smooths the density (Rothfuss et al. 2019, arXiv:1907.08982).

    Examples:
        >>> MDN().components, NoisyMDN().noise
        (8, 0.05)
    """

    kind: ClassVar[str] = "mdn"

    components: int = 8
    hidden_features: int = 64
    hidden_layers: int = 2
    activation: str = "silu"
    noise: float = 0.0

    def __post_init__(self) -> None:
        self._require_positive("components", "hidden_features", "hidden_layers", *POSITIVE)
        self.require_valid(self.kind)
        if self.activation not in ACTIVATIONS:
            raise unknown_name(f"activation of {self.kind}", self.activation, ACTIVATIONS)
        if not self.noise >= 0:
            raise UsageError(f"{self.kind}: noise cannot be negative, found {self.noise!r}")

    def build(self, dim: int, given: int) -> Network:
        """The architecture in ``dim`` dimensions, given a condition of ``given``."""
        return Network(
            dim=dim,
            given=given,
            n_components=self.components,
            width=self.hidden_features,
            depth=self.hidden_layers,
            activation=self.activation,
        )

    def fit_folds(
        self,
        folds: Folds,
        *,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> tuple[DensityNetwork, FitReport]:
        """Whiten and train; see :meth:`ExpertConfig.fit_folds`.

        Raises:
            UsageError: there is no condition.
        """
        if not folds.given:
            raise UsageError(
                f"{self.kind} is a density given a condition, and there is none: give given=, or "
                "take gmm"
            )
        folds.require_fittable(self.kind)
        network = self.build(folds.dim, folds.given)
        whitening, learned, report = train_whitened(
            self, self.kind, folds, network,
            nll=network.nll, frozen_nll=network.nll,
            masks={name: torch.ones(shape[1:]) for name, shape in network.shapes(1).items()},
            generator=generator, device=device, progress=progress, timeout=timeout,
            noise=self._noise_for(len(folds)),
        )  # fmt: skip
        return DensityNetwork(self, whitening, learned), report

    def _noise_for(self, n: int) -> float:
        """Standard deviation of the noise for so many pairs."""
        return self.noise

    def restore(self, dim: int, tensors: Mapping[str, Tensor], given: int = 0) -> DensityNetwork:
        """Rebuild the network whose :meth:`DensityNetwork.tensors` these are."""
        shapes = self.build(dim, given).shapes(count_members(tensors))
        whitening, learned = restore_learned(
            self.kind, DensityNetwork.prefix, shapes, tensors, columns=given + dim, given=given
        )
        return DensityNetwork(self, whitening, learned).widened(saved_spread(tensors))


@dataclass(frozen=True, kw_only=True)
class NoisyMDN(MDN):
    """Settings of a mixture density network that is trained with noise on its inputs.

    ``noise`` is that for up to 200 pairs; for more it falls as one over their number, since what
    mends the variance of few pairs is a bias for many.

    Examples:
        >>> NoisyMDN.kind
        'noisy_mdn'
    """

    kind: ClassVar[str] = "noisy_mdn"
    noise: float = 0.05

    def _noise_for(self, n: int) -> float:
        return self.noise * min(1.0, FEW_PAIRS / n)
