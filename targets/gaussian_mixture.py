"""Targets that are finite mixtures of Gaussians."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from amfvi.targets.base import ExactTarget, normal

__all__ = ["GaussianMixtureTarget"]


class GaussianMixtureTarget(ExactTarget):
    """An equal-weight mixture of Gaussians; subclasses give means and covariances.

    Examples:
        >>> class Normal(GaussianMixtureTarget):
        ...     name, dim, source = "normal", 1, "an example"
        ...     means, covariances = ((0.0,),), (((1.0,),),)
        >>> Normal().log_prob(torch.zeros(1, 1))
        tensor([-0.9189], dtype=torch.float64)
    """

    means: ClassVar[tuple[tuple[float, ...], ...]]
    covariances: ClassVar[tuple[tuple[tuple[float, ...], ...], ...]]

    def _log_prob(self, x: Tensor) -> Tensor:
        means, factors = self._components(x.device)
        centered = (x - means[:, None]).transpose(1, 2)  # (components, d, n)
        scores = torch.linalg.solve_triangular(factors, centered, upper=False)
        log_scale = factors.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        log_densities = (
            -0.5 * scores.square().sum(dim=1)
            - log_scale[:, None]
            - 0.5 * self.dim * math.log(2 * math.pi)
        )
        return torch.logsumexp(log_densities, dim=0) - math.log(len(means))

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        means, factors = self._components(torch.device("cpu"))
        which = torch.randint(len(means), (n,), generator=generator)
        scores = normal(n, self.dim, generator)
        return means[which] + (factors[which] @ scores[:, :, None]).squeeze(2)

    def _components(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Means (K, d) and lower Cholesky factors (K, d, d)."""
        means = torch.tensor(self.means, dtype=torch.float64, device=device)
        covariances = torch.tensor(self.covariances, dtype=torch.float64, device=device)
        return means, torch.linalg.cholesky(covariances)
