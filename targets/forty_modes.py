"""Forty modes: as many round Gaussians scattered over a square."""

from __future__ import annotations

import math

import torch
from amfvi.targets.base import ExactTarget, normal
from torch import Tensor

__all__ = ["FortyModes"]

MODES = 40
SIDE = 40.0
SD = math.log1p(math.e)


class FortyModes(ExactTarget):
    """Equal Gaussians N(μₖ, log²(1 + e) I) with 40 centres uniform on [−40, 40]²."""

    name = "forty_modes"
    dim = 2
    log_z = 7.0
    box = (-50.0, 50.0)
    entropy = 6.91824
    entropy_source = "quadrature on a grid"
    source = "the mixture of Midgley et al. 2023 (arXiv:2208.01893), with centres of our own"
    view = ((-48.0, 48.0), (-48.0, 48.0))

    @property
    def centres(self) -> Tensor:
        """(40, 2)."""
        generator = torch.Generator().manual_seed(40)
        return SIDE * (2 * torch.rand(MODES, 2, generator=generator, dtype=torch.float64) - 1)

    def _log_prob(self, x: Tensor) -> Tensor:
        squared = torch.cdist(x, self.centres.to(x), compute_mode="donot_use_mm_for_euclid_dist")
        level = math.log(MODES * 2 * math.pi * SD**2)
        return torch.logsumexp(-0.5 * (squared / SD).square(), dim=1) - level

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        which = torch.randint(MODES, (n,), generator=generator)
        return self.centres[which] + SD * normal(n, 2, generator)
