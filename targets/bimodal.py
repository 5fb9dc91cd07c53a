"""Bimodal: two separate, differently oriented Gaussians."""

from __future__ import annotations

from dataclasses import dataclass

from amfvi.targets.gaussian_mixture import GaussianMixtureTarget

__all__ = ["Bimodal"]


@dataclass(frozen=True, repr=False)
class Bimodal(GaussianMixtureTarget):
    """½N((−3, −1), [[.84, .2], [.2, .34]]) + ½N((3, 1), [[.34, −.1], [−.1, .64]]).

    Examples:
        >>> Bimodal()
        <target bimodal: d = 2, entropy 2.78693 nats>
    """

    name = "bimodal"
    dim = 2
    entropy = 2.78693
    entropy_source = "quadrature on a grid"
    source = "AMF-VI, arXiv:2510.02056"
    view = ((-6.5, 5.5), (-4.0, 4.5))
    means = ((-3.0, -1.0), (3.0, 1.0))
    covariances = (((0.84, 0.2), (0.2, 0.34)), ((0.34, -0.1), (-0.1, 0.64)))
