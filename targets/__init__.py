"""Targets with known answers, by name: the six canonical ones, and harder ones."""

from __future__ import annotations

from amfvi.errors import unknown_name
from amfvi.targets.banana import Banana
from amfvi.targets.base import ExactTarget, Target
from amfvi.targets.bimodal import Bimodal
from amfvi.targets.clusters import Clusters
from amfvi.targets.correlated import Correlated
from amfvi.targets.eight_schools import EightSchools, EightSchoolsCentered
from amfvi.targets.forty_modes import FortyModes
from amfvi.targets.funnel import Funnel
from amfvi.targets.linear_regression import LinearRegression
from amfvi.targets.many_well import ManyWell
from amfvi.targets.multimodal import Multimodal
from amfvi.targets.rings import Rings
from amfvi.targets.student_t import StudentT
from amfvi.targets.two_moons import TwoMoons
from amfvi.targets.x_shape import XShape

__all__ = [
    "CANONICAL",
    "TARGETS",
    "Banana",
    "Bimodal",
    "Clusters",
    "Correlated",
    "EightSchools",
    "EightSchoolsCentered",
    "ExactTarget",
    "FortyModes",
    "Funnel",
    "LinearRegression",
    "ManyWell",
    "Multimodal",
    "Rings",
    "StudentT",
    "Target",
    "TwoMoons",
    "XShape",
    "get",
]

CANONICAL: dict[str, type[ExactTarget]] = {
    "banana": Banana,
    "x_shape": XShape,
    "bimodal": Bimodal,
    "multimodal": Multimodal,
    "two_moons": TwoMoons,
    "rings": Rings,
}
"""The six targets of the AMF-VI paper, in two dimensions, by name."""

TARGETS: dict[str, type[Target]] = {
    **CANONICAL,
    "clusters": Clusters,
    "forty_modes": FortyModes,
    "linear_regression": LinearRegression,
    "eight_schools": EightSchools,
    "eight_schools_centered": EightSchoolsCentered,
    "funnel": Funnel,
    "student_t": StudentT,
    "many_well": ManyWell,
    "correlated": Correlated,
}
"""All targets by name."""


def get(name: str) -> Target:
    """Make the target called ``name``; an :class:`ExactTarget` if it has exact draws.

    Raises:
        UsageError: no such target; the message names the nearest ones.

    Examples:
        >>> get("banana").dim
        2
    """
    if name not in TARGETS:
        raise unknown_name("target", name, TARGETS)
    return TARGETS[name]()
