"""What all figures share: colors that the color-blind can tell apart, and how files are written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib import colormaps
from matplotlib.figure import Figure

__all__ = ["DENSITY_COLORS", "MIXTURE_COLOR", "REJECTED_COLOR", "TRUTH_COLOR", "write_figures"]

MIXTURE_COLOR = "#1b6ca8"
"""Color of what the mixture says."""

TRUTH_COLOR = "0.55"
"""Color of reference draws."""

REJECTED_COLOR = "#d1495b"
"""Color of what a test rejects."""

DENSITY_COLORS = colormaps["magma"]
"""Color map of density panels."""

DPI = 110
"""Dots per inch of all figures."""


def write_figures(figures: Mapping[str, Figure], directory: Path) -> list[Path]:
    """Write figures as PNG files by their names into an existing directory; the paths.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path.name for path in write_figures({"empty": Figure()}, Path(folder))]
        ['empty.png']
    """
    paths = []
    for name, figure in figures.items():
        paths.append(directory / f"{name}.png")
        figure.savefig(paths[-1], dpi=DPI)
    return paths
