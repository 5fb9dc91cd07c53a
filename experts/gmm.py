"""Gaussian mixture with full covariances, by expectation maximization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from amfvi.experts.elliptical.config import EllipticalConfig

__all__ = ["GMM"]


@dataclass(frozen=True, kw_only=True)
class GMM(EllipticalConfig):
    """Settings of a Gaussian mixture; with one component it is a Gaussian.

    Examples:
        >>> import torch
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> expert = GMM(max_components=2).fit(x)
        >>> expert.log_prob(x).shape, expert.sample(1000).shape
        (torch.Size([200]), torch.Size([1000, 2]))
    """

    kind: ClassVar[str] = "gmm"
    gaussian: ClassVar[bool] = True
