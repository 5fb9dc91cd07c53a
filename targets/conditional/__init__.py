"""Conditional targets, by name: pairs (c, y) with the exact density of y given c."""

from __future__ import annotations

from amfvi.errors import unknown_name
from amfvi.targets.conditional.base import ConditionalTarget
from amfvi.targets.conditional.gmix import GaussianMixture
from amfvi.targets.conditional.linear import Linear3, Linear10
from amfvi.targets.conditional.lorenz import Lorenz
from amfvi.targets.conditional.moons import Moons
from amfvi.targets.conditional.saddle import Saddle
from amfvi.targets.conditional.simulators import SimulatorTarget
from amfvi.targets.conditional.sinus import Sinus

__all__ = [
    "CONDITIONAL",
    "ConditionalTarget",
    "GaussianMixture",
    "Linear3",
    "Linear10",
    "Lorenz",
    "Moons",
    "Saddle",
    "SimulatorTarget",
    "Sinus",
    "get",
]

CONDITIONAL: dict[str, type[ConditionalTarget]] = {
    "sinus": Sinus,
    "saddle": Saddle,
    "lorenz": Lorenz,
    "linear3": Linear3,
    "linear10": Linear10,
    "moons": Moons,
    "gmix": GaussianMixture,
}
"""All conditional targets by name."""


def get(name: str) -> ConditionalTarget:
    """Make the conditional target called ``name``.

    Raises:
        UsageError: no such target; the message names the nearest ones.

    Examples:
        >>> get("moons").given_dim
        2
    """
    if name not in CONDITIONAL:
        raise unknown_name("conditional target", name, CONDITIONAL)
    return CONDITIONAL[name]()
