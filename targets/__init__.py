"""The canonical posteriors, by name."""

from __future__ import annotations

from amfvi.targets.banana import Banana
from amfvi.targets.base import Target
from amfvi.targets.bimodal import Bimodal
from amfvi.targets.multimodal import Multimodal
from amfvi.targets.rings import Rings
from amfvi.targets.two_moons import TwoMoons
from amfvi.targets.x_shape import XShape

from amfvi.errors import unknown_name

__all__ = ["TARGETS", "Target", "get"]

TARGETS: dict[str, type[Target]] = {
    "banana": Banana,
    "x_shape": XShape,
    "bimodal": Bimodal,
    "multimodal": Multimodal,
    "two_moons": TwoMoons,
    "rings": Rings,
}


def get(name: str) -> Target:
    """The canonical posterior called ``name``.

    Raises:
        UsageError: no such target; the message names the nearest ones.

    >>> get("banana").dim
    2
    """
    if name not in TARGETS:
        raise unknown_name("target", name, TARGETS)
    return TARGETS[name]()
