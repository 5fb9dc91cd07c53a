"""Mixtures of Gaussians or of Student-t distributions, as experts."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor

from amfvi.experts.base import Expert
from amfvi.experts.config import ExpertConfig
from amfvi.experts.elliptical.components import Components, MixtureDensity
from amfvi.experts.parallel import map_chunked
from amfvi.experts.settings import Settings
from amfvi.experts.whitening import Whitening

__all__ = ["EllipticalMixture"]

CPU_CHUNK_NUMBERS = 2**18
"""Numbers held at a time while densities are evaluated on a CPU, so that they stay in cache."""

ACCELERATOR_CHUNK_NUMBERS = 2**26
"""Numbers held at a time while densities are evaluated on an accelerator."""


class EllipticalMixture(Expert):
    """Fitted components behind a whitening that all members share.

    Given a condition, the components are those of the joint density of condition and
    parameters, which is conditioned in closed form.

    Examples:
        >>> import math
        >>> components = Components(
        ...     log_weights=torch.zeros(1, 1), means=torch.zeros(1, 1, 1),
        ...     factors=torch.ones(1, 1, 1, 1), freedom=torch.tensor([math.inf]))
        >>> whitening = Whitening.from_factor(torch.ones(1, 1), 2 * torch.ones(1, 1, 1))
        >>> from amfvi.experts import GMM
        >>> normal = EllipticalMixture(GMM(), whitening, components)
        >>> normal.log_prob(torch.tensor([1.0]))  # of N(1, 2²)
        tensor(-1.6121)
    """

    def __init__(self, config: Settings, whitening: Whitening, components: Components) -> None:
        members, count, dim = components.means.shape
        super().__init__(config, dim - whitening.given, members, whitening.given)
        self.whitening = whitening
        self.components = components
        self.density = MixtureDensity(components)
        self._numbers_per_point = count * dim

    @classmethod
    def single(
        cls, config: ExpertConfig, mean: Tensor, factor: Tensor, freedom: float = math.inf
    ) -> EllipticalMixture:
        """One component with a given mean (d,) and lower triangular factor (d, d).

        Args:
            freedom: degrees of freedom of a Student-t; infinite for a Gaussian.
        """
        d = len(mean)
        components = Components(
            log_weights=torch.zeros(1, 1, dtype=torch.float64),
            means=torch.zeros(1, 1, d, dtype=torch.float64),
            factors=torch.eye(d, dtype=torch.float64)[None, None],
            freedom=torch.tensor([freedom], dtype=torch.float64),
        )
        return cls(config, Whitening.from_factor(mean[None], factor[None]), components)

    def widened(self, factor: float) -> Self:
        """The same components, ``factor`` times wider given a condition."""
        if factor == 1 or not self.given:
            return self
        factors = self.components.factors.clone()
        factors[..., self.given :, self.given :] *= factor
        wider = type(self)(self.config, self.whitening, replace(self.components, factors=factors))
        wider.report = self.report
        return wider

    def chunk_rows(self, device: torch.device) -> int:
        """Rows of all members that are evaluated at a time on ``device``."""
        numbers = CPU_CHUNK_NUMBERS if device.type == "cpu" else ACCELERATOR_CHUNK_NUMBERS
        return max(1, numbers // self._numbers_per_point)

    def _log_prob(self, x: Tensor) -> Tensor:
        return map_chunked(self._density, x, self.chunk_rows(x.device))

    def _density(self, x: Tensor) -> Tensor:
        z = self.whitening.forward(x).to(x.dtype)
        log_det = float(self.whitening.log_det)
        if not self.given:
            return self.density.log_prob(z) + log_det
        squares, is_gaussian = self.density.squares(z), self.components.is_gaussian
        joint = self.components.log_joint(squares.sum(dim=2), is_gaussian)
        # Factors are lower triangular: the first rows are those of the condition alone.
        of_condition = squares[:, :, : self.given].sum(dim=2)
        marginal = self.components.marginal(self.given).log_joint(of_condition, is_gaussian)
        return joint.logsumexp(dim=1) + log_det - marginal.logsumexp(dim=1)

    def _sample(
        self,
        n: int,
        generator: torch.Generator | None,
        dtype: torch.dtype,
        given: Tensor | None = None,
    ) -> Tensor:
        parts = self.components.to("cpu")
        if given is None:
            z = parts.sample(n, generator)
        else:
            whitened = self.whitening.forward(given.to(self.device)).mT.cpu()
            z = torch.cat([whitened, parts.sample_given(whitened, generator)], dim=2)
        return self.whitening.inverse(z.mT.to(self.device))[..., self.given :].to(dtype)

    def tensors(self) -> dict[str, Tensor]:
        """Whitening and components by name, on the CPU."""
        parts = self.components
        return {
            "mean": self.whitening.mean.cpu(),
            "factor": self.whitening.factor.cpu(),
            "log_weights": parts.log_weights.cpu(),
            "means": parts.means.cpu(),
            "factors": parts.factors.cpu(),
            # Infinity is saved as zero: saved numbers are finite.
            "freedom": torch.where(parts.freedom.isinf(), 0.0, parts.freedom).cpu(),
        }

    def to(self, device: torch.device | str) -> Self:
        """The same expert with its numbers on ``device``."""
        moved = type(self)(self.config, self.whitening.to(device), self.components.to(device))
        moved.report = self.report
        return moved

    @property
    def n_components(self) -> int:
        """Number of components of each member."""
        return self.components.means.shape[1]

    @property
    def device(self) -> torch.device:
        """Device of the fitted numbers."""
        return self.whitening.mean.device
