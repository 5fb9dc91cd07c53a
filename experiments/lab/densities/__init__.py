"""Log densities with known answers, by family, to ask a sampler and its verdict about."""

from __future__ import annotations

from collections.abc import Callable

from experiments.lab.densities.bounded import bounded_densities
from experiments.lab.densities.broken import (
    improper_densities,
    random_densities,
    wrong_gradient_densities,
)
from experiments.lab.densities.curved import curved_densities, curved_family
from experiments.lab.densities.funnels import funnel_densities
from experiments.lab.densities.gaussians import gaussian_densities
from experiments.lab.densities.hierarchical import hierarchical_densities
from experiments.lab.densities.known import KnownDensity
from experiments.lab.densities.modes import mode_densities
from experiments.lab.densities.shapes import shape_densities
from experiments.lab.densities.suites import suite_densities
from experiments.lab.densities.tails import tail_densities
from experiments.lab.densities.warped import warped_densities

__all__ = ["KnownDensity", "all_densities", "curved_family", "families"]

LISTS: tuple[Callable[[], list[KnownDensity]], ...] = (
    curved_densities,
    gaussian_densities,
    mode_densities,
    funnel_densities,
    hierarchical_densities,
    tail_densities,
    shape_densities,
    bounded_densities,
    suite_densities,
    warped_densities,
    improper_densities,
    random_densities,
    wrong_gradient_densities,
)
"""What lists the densities of one file or kind."""


def all_densities() -> dict[str, KnownDensity]:
    """Make all densities, by name.

    Raises:
        ValueError: two of them have one name.
    """
    densities: dict[str, KnownDensity] = {}
    for list_densities in LISTS:
        for density in list_densities():
            if density.name in densities:
                raise ValueError(f"two densities are named {density.name}")
            densities[density.name] = density
    return densities


def families() -> dict[str, list[str]]:
    """List the names of all densities by family."""
    names: dict[str, list[str]] = {}
    for density in all_densities().values():
        names.setdefault(density.family, []).append(density.name)
    return names
