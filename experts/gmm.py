"""Gaussian mixture with full covariances, by expectation maximisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from amfvi.experts.elliptical import EllipticalConfig

__all__ = ["GMM"]


@dataclass(frozen=True, kw_only=True)
class GMM(EllipticalConfig):
    """Settings of a Gaussian mixture; with one component it is a Gaussian."""

    kind: ClassVar[str] = "gmm"
    gaussian: ClassVar[bool] = True
