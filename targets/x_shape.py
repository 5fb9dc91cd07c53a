"""X-shape: two crossed, strongly correlated Gaussians."""

from __future__ import annotations

from dataclasses import dataclass

from amfvi.targets.gaussian_mixture import GaussianMixtureTarget

__all__ = ["XShape"]


@dataclass(frozen=True, repr=False)
class XShape(GaussianMixtureTarget):
    """½N(0, [[2.01, 1.8], [1.8, 2.01]]) + ½N(0, [[2.01, −1.8], [−1.8, 2.01]]).

    Examples:
        >>> XShape()
        <target x_shape: d = 2, entropy 3.14240 nats>
    """

    name = "x_shape"
    dim = 2
    entropy = 3.14240
    entropy_source = "quadrature on a grid"
    source = "AMF-VI, arXiv:2510.02056"
    view = ((-5.0, 5.0), (-5.0, 5.0))
    means = ((0.0, 0.0), (0.0, 0.0))
    covariances = (((2.01, 1.8), (1.8, 2.01)), ((2.01, -1.8), (-1.8, 2.01)))
