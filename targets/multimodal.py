"""Multimodal: five overlapping isotropic Gaussians."""

from __future__ import annotations

from dataclasses import dataclass

from amfvi.targets.gaussian_mixture import GaussianMixtureTarget

__all__ = ["Multimodal"]


@dataclass(frozen=True, repr=False)
class Multimodal(GaussianMixtureTarget):
    """⅕ΣN(μₖ, vₖI), μ = (−.5,−1), (.5,1), (2,2.5), (.5,−1), (−.5,1).

    Examples:
        >>> Multimodal()
        <target multimodal: d = 2, entropy 3.22967 nats>
    """

    name = "multimodal"
    dim = 2
    entropy = 3.22967
    entropy_source = "quadrature on a grid"
    source = "AMF-VI, arXiv:2510.02056"
    view = ((-4.0, 5.5), (-4.0, 6.0))
    means = ((-0.5, -1.0), (0.5, 1.0), (2.0, 2.5), (0.5, -1.0), (-0.5, 1.0))
    covariances = tuple(((v, 0.0), (0.0, v)) for v in (0.71, 0.31, 1.01, 0.71, 0.31))
