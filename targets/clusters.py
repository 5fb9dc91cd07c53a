"""Clusters: three Gaussians of different shapes in five dimensions, not normalized."""

from __future__ import annotations

from dataclasses import dataclass

from amfvi.targets.gaussian_mixture import GaussianMixtureTarget

__all__ = ["Clusters"]


def _banded(scale: float, correlation: float) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(scale**2 * correlation ** abs(i - j) for j in range(5)) for i in range(5))


@dataclass(frozen=True, repr=False)
class Clusters(GaussianMixtureTarget):
    """e^3.7 · ⅓ΣN(μₖ, Σₖ): sd 1, .5 and 1.5, correlations .6, −.5 and 0, in 5 dimensions.

    Examples:
        >>> Clusters()
        <target clusters: d = 5>
    """

    name = "clusters"
    dim = 5
    log_z = 3.7
    source = "Gaussians times a constant"
    means = ((-3.0, 0.0, 2.0, 0.0, -1.0), (3.0, 1.0, 0.0, -2.0, 1.0), (0.0, -3.0, -3.0, 3.0, 3.0))
    covariances = (_banded(1.0, 0.6), _banded(0.5, -0.5), _banded(1.5, 0.0))
