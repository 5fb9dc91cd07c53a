"""Mixture of a wide and a narrow Gaussian around c, truncated to a box."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from amfvi.targets.base import normal, uniform
from amfvi.targets.conditional.numerics import gauss_legendre, log_interval
from amfvi.targets.conditional.simulators import SimulatorTarget

__all__ = ["GaussianMixture"]

BOUND = 10.0
"""The prior is uniform between −10 and 10 in either coordinate."""

SCALES = (1.0, 0.1)
"""Standard deviations of the two components, which have probability ½ each."""


def _log_mass(c: Tensor, scale: float) -> Tensor:
    """Log probability that N(c, scale²) gives the box, for each entry of ``c``."""
    return log_interval((-BOUND - c) / scale, (BOUND - c) / scale)


@cache
def _entropy() -> float:
    """H(y) + H(c | y) − H(c): an integral over the distance |c − y|, and one over c."""
    r, weights = gauss_legendre(0.0, 10.0, 1000)
    log_f = GaussianMixture().log_likelihood(torch.stack([r, 0 * r], dim=1), r.new_zeros(1, 2))
    of_noise = float(-(2 * math.pi * weights * r * log_f.exp() * log_f).sum())
    # p(c) is symmetric in both coordinates, and flat except near the bound.
    parts = [gauss_legendre(0.0, 9.0, 200), gauss_legendre(9.0, 11.0, 200)]
    parts.append(gauss_legendre(11.0, 20.0, 200))
    c, weights = (torch.cat(part) for part in zip(*parts, strict=True))
    products = [(m[:, None] + m).exp() for m in (_log_mass(c, scale) for scale in SCALES)]
    p = (products[0] + products[1]) / (2 * (2 * BOUND) ** 2)
    of_c = float(-4 * weights @ torch.special.xlogy(p, p) @ weights)
    return 2 * math.log(2 * BOUND) + of_noise - of_c


@dataclass(frozen=True, repr=False)
class GaussianMixture(SimulatorTarget):
    """y ~ U(−10, 10)², c ~ ½ N(y, I) + ½ N(y, 0.01 I), in two dimensions.

    Examples:
        >>> GaussianMixture()
        <conditional target gmix: 2 given 2, entropy 1.0157 nats>
    """

    name = "gmix"
    dim = 2
    given_dim = 2
    constraints = {"y1": (-BOUND, BOUND), "y2": (-BOUND, BOUND)}  # noqa: RUF012
    entropy_source = "H(y) + H(c | y) − H(c), by quadrature"
    source = "sbibm gaussian_mixture; Lueckmann et al. 2021 (arXiv:2101.04653), T.7"

    @property
    def entropy(self) -> float:
        return _entropy()

    def sample_prior(self, n: int, generator: torch.Generator) -> Tensor:
        return BOUND * (2 * uniform(2 * n, generator).view(n, 2) - 1)

    def log_prior(self, y: Tensor) -> Tensor:
        inside = (y.abs() <= BOUND).all(dim=1)
        return torch.where(inside, -2 * math.log(2 * BOUND), -torch.inf).to(y)

    def simulate(self, y: Tensor, generator: torch.Generator) -> Tensor:
        wide = uniform(len(y), generator)[:, None] < 0.5
        return y + torch.where(wide, *SCALES) * normal(len(y), 2, generator)

    def log_likelihood(self, given: Tensor, y: Tensor) -> Tensor:
        squared = (given - y).square().sum(dim=1)
        parts = [-0.5 * squared / s**2 - math.log(4 * math.pi * s**2) for s in SCALES]
        return torch.logaddexp(*parts)

    def log_evidence(self, given: Tensor) -> Tensor:
        """Log of the mean of the components' probabilities of the box, over its area."""
        wide, narrow = (_log_mass(given, scale).sum(dim=1) for scale in SCALES)
        return torch.logaddexp(wide, narrow) - math.log(2) - 2 * math.log(2 * BOUND)
