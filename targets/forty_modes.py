"""Forty modes: as many round Gaussians scattered over a square."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from amfvi.targets.base import ExactTarget, normal

__all__ = ["FortyModes"]

MODES = 40
"""Number of modes."""

HALF_WIDTH = 40.0
"""Half the side of the square that holds the centers."""

SD = math.log1p(math.e)
"""Standard deviation of a mode: softplus of 1."""


@dataclass(frozen=True, repr=False)
class FortyModes(ExactTarget):
    """Equal Gaussians N(μₖ, log²(1 + e) I) with 40 centers uniform on [−40, 40]².

    Examples:
        >>> FortyModes()
        <target forty_modes: d = 2, entropy 6.91824 nats>
    """

    name = "forty_modes"
    dim = 2
    log_z = 7.0
    box = (-50.0, 50.0)
    entropy = 6.91824
    entropy_source = "quadrature on a grid"
    source = "the mixture of Midgley et al. 2023 (arXiv:2208.01893), with centers of our own"
    view = ((-48.0, 48.0), (-48.0, 48.0))

    @property
    def centers(self) -> Tensor:
        """Means of the modes, (40, 2)."""
        generator = torch.Generator().manual_seed(40)
        return HALF_WIDTH * (2 * torch.rand(MODES, 2, generator=generator, dtype=torch.float64) - 1)

    def _log_prob(self, x: Tensor) -> Tensor:
        squared = torch.cdist(x, self.centers.to(x), compute_mode="donot_use_mm_for_euclid_dist")
        level = math.log(MODES * 2 * math.pi * SD**2)
        return torch.logsumexp(-0.5 * (squared / SD).square(), dim=1) - level

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        which = torch.randint(MODES, (n,), generator=generator)
        return self.centers[which] + SD * normal(n, 2, generator)
