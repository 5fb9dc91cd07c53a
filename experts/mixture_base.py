"""A flow that ends in a Gaussian mixture instead of a standard normal.

What has several modes is mapped to one of them only by a flow that bends space sharply
between them. A mixture as the base (Izmailov, Kirichenko, Finzi & Wilson 2020, FlowGMM,
arXiv:1912.13025) leaves the modes where they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor

from amfvi.experts.base import Expert
from amfvi.experts.elliptical.mixture import EllipticalMixture
from amfvi.experts.folds import Folds
from amfvi.experts.gmm import GMM
from amfvi.experts.neural import NeuralFlow, NeuralFlowConfig
from amfvi.experts.parallel import map_chunked
from amfvi.experts.whitening import Whitening

__all__ = ["MixtureBaseFlow", "to_latent_space"]

PREFIX = "base."
"""Of the names of the mixture's tensors."""


class MixtureBaseFlow(Expert):
    """log q(x) = log g(u) + log |det du/dx| with u = f(x) and a Gaussian mixture g.

    Attributes:
        flow: f, from points to the space of the mixture.
        base: g, a mixture for each member.

    Examples:
        >>> from amfvi.experts import RealNVP
        >>> generator = torch.Generator().manual_seed(0)
        >>> x = torch.randn(400, 2, generator=generator)
        >>> x[:200] += 8.0
        >>> expert = RealNVP(layers=2, max_steps=25).fit(x, folds=2)
        >>> isinstance(expert, MixtureBaseFlow), expert.base.components.means.shape
        (True, torch.Size([2, 2, 2]))
        >>> expert.log_prob(x).shape, expert.sample(5).shape
        (torch.Size([400]), torch.Size([5, 2]))
    """

    def __init__(self, flow: NeuralFlow, base: EllipticalMixture) -> None:
        super().__init__(flow.config, flow.dim, flow.n_members)
        self.flow = flow
        self.base = base

    def tensors(self) -> dict[str, Tensor]:
        """Numbers of the flow and of its base by name, on the CPU."""
        of_base = {f"{PREFIX}{name}": value for name, value in self.base.tensors().items()}
        return self.flow.tensors() | of_base

    @staticmethod
    def is_described_by(tensors: Mapping[str, Tensor]) -> bool:
        """Whether these are the tensors of a flow with a mixture as its base."""
        return any(name.startswith(PREFIX) for name in tensors)

    @classmethod
    def restore(
        cls, config: NeuralFlowConfig, dim: int, tensors: Mapping[str, Tensor]
    ) -> MixtureBaseFlow:
        """Rebuild the expert whose :meth:`tensors` these are.

        Raises:
            InputError: a tensor is missing, unexpected, or has the wrong shape.
        """
        of_base = {k.removeprefix(PREFIX): v for k, v in tensors.items() if k.startswith(PREFIX)}
        of_flow = {k: v for k, v in tensors.items() if not k.startswith(PREFIX)}
        flow = config.restore_flow(dim, of_flow)
        return cls(flow, GMM().restore(dim, of_base))

    def to(self, device: torch.device | str) -> Self:
        """The same expert with its numbers on ``device``."""
        moved = type(self)(self.flow.to(device), self.base.to(device))
        moved.report = self.report
        return moved

    @property
    def device(self) -> torch.device:
        """Device of the fitted numbers."""
        return self.flow.device

    def verify(self, folds: Folds) -> None:
        """Check that the inverse of the flow undoes it; see :meth:`NeuralFlow.verify`."""
        self.flow.verify(folds)

    def _log_prob(self, x: Tensor) -> Tensor:
        rows = min(self.flow.chunk_rows, self.base.chunk_rows(x.device))
        return map_chunked(self._density, x, rows)

    def _density(self, x: Tensor) -> Tensor:
        u, log_det = self.flow.forward(x)
        return self.base.density.log_prob(u.mT) + log_det

    def _sample(
        self,
        n: int,
        generator: torch.Generator | None,
        dtype: torch.dtype,
        given: Tensor | None = None,
    ) -> Tensor:
        components = self.base.components.to("cpu")

        def of_base(n: int) -> Tensor:
            return components.sample(n, generator).to(self.device, dtype)

        return self.flow.draw_images(of_base, n)


def to_latent_space(mixture: EllipticalMixture, whitening: Whitening) -> EllipticalMixture:
    """The mixture over x as one over the whitened points of each member.

    A flow that is the identity behind ``whitening``, with that base, has the mixture's density.

    Examples:
        >>> x = 3 + 2 * torch.randn(300, 1, generator=torch.Generator().manual_seed(0)).double()
        >>> folds = Folds(x, torch.arange(300) % 2)
        >>> whitening = Whitening.fit(folds)
        >>> mixture = GMM(max_components=1).fit(x, folds=2)
        >>> base = to_latent_space(mixture, whitening)
        >>> z = whitening.forward(x.expand(2, 300, 1))
        >>> log_q = base.density.log_prob(z) + whitening.log_det[:, None]
        >>> torch.allclose(log_q, mixture._log_prob(x.expand(2, 300, 1)))
        True
    """
    mixture = mixture.to("cpu")
    scale, shift = mixture.whitening.factor, mixture.whitening.mean
    parts = mixture.components
    means = parts.means @ scale[0].T + shift[0]
    factors = scale[0] @ parts.factors
    to_latent = whitening.inverse_factor
    centered = means - whitening.mean[:, None]
    components = replace(
        parts,
        means=centered @ to_latent.mT,
        factors=to_latent[:, None] @ factors,
    )
    dim = whitening.dim
    identity = Whitening.from_factor(
        torch.zeros(1, dim, dtype=torch.float64), torch.eye(dim, dtype=torch.float64)[None]
    )
    return EllipticalMixture(mixture.config, identity, components)
