"""The style of all figures of a run: colors, sizes of letters, and labels that fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, MaxNLocator

__all__ = [
    "DENSITY_COLORS",
    "LEVEL_STYLES",
    "MIXTURE_COLOR",
    "REFERENCE_COLOR",
    "WARNING_COLOR",
    "expert_colors",
    "few_ticks",
    "plain",
    "shorten",
    "sized_figure",
    "styled",
    "write_figures",
]

MIXTURE_COLOR = "#0072b2"
"""Blue of the mixture, wherever it is drawn."""

REFERENCE_COLOR = "#8c8c8c"
"""Gray of the draws that the mixture is compared with."""

WARNING_COLOR = "#d55e00"
"""Vermilion of what is not as it should be."""

EXPERT_COLORS = ("#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#000000")
"""Colors of the experts, in their order: Okabe & Ito (2008), told apart by color-blind eyes."""

DENSITY_COLORS = "cividis"
"""Color map of densities, the same to color-blind eyes (Nuñez et al. 2018, PLOS ONE 13)."""

LEVEL_STYLES = {0.5: ("-", 1.6), 0.9: ("-", 0.9)}
"""Line style and width of the contour that holds a share of the mass."""

DPI = 110
"""Dots per inch: about 1,200 across, sharp at the width of a page."""

RC: Any = {
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.edgecolor": "0.35",
    "xtick.color": "0.25",
    "ytick.color": "0.25",
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "figure.facecolor": "white",
}
"""What differs from matplotlib's own style."""

MAX_LABEL = 16
"""Most letters of a label; longer names end in an ellipsis."""

MAX_DIGITS = 9
"""Most significant digits of a number at an axis."""


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the style of the package while the context lasts, whatever the user's style is.

    Examples:
        >>> with styled():
        ...     mpl.rcParams["axes.spines.top"]
        False
    """
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(RC)
        yield


def sized_figure(width: float, height: float, *, layout: str | None = "constrained") -> Figure:
    """An empty figure, inches wide and high, without a window.

    Examples:
        >>> float(sized_figure(4, 3).get_figwidth())
        4.0
    """
    return Figure(figsize=(width, height), layout=layout, dpi=DPI)  # type: ignore[arg-type]


def expert_colors() -> Iterator[str]:
    """Yield a color per expert, over and over.

    Examples:
        >>> next(expert_colors())
        '#e69f00'
    """
    while True:
        yield from EXPERT_COLORS


def shorten(name: str, most: int = MAX_LABEL) -> str:
    """The name of a parameter, cut in the middle where it is long.

    Both ends are kept, since names such as ``theta[school,1]`` differ at the end.

    Examples:
        >>> shorten("theta_of_the_schools[12]", 12)
        'theta_…s[12]'
    """
    name = " ".join(name.split())
    if len(name) <= most:
        return name
    head = most // 2
    return f"{name[:head]}…{name[head + 1 - most :]}"


def plain(text: Text) -> Text:
    """Show a text letter by letter: a name with dollar signs is no formula.

    Examples:
        >>> plain(Text(0, 0, "$a$")).get_parse_math()
        False
    """
    text.set_parse_math(False)
    return text


def few_ticks(ax: Axes, most: int = 3) -> None:
    """At most some ticks a side, with just the digits that tell them apart.

    Examples:
        >>> ax = sized_figure(2, 2).subplots()
        >>> few_ticks(ax)
        >>> ax.xaxis.get_major_formatter()(0.5)
        '0.5'
    """
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(most, prune="both"))
        axis.set_major_formatter(_formatter(axis))


def _formatter(axis: Axis) -> FuncFormatter:
    def digits(value: float, _: int | None = None) -> str:
        ticks = [tick for tick in axis.get_majorticklocs() if tick != 0]
        for n in range(2, MAX_DIGITS):
            if len({f"{tick:.{n}g}" for tick in ticks}) == len(set(ticks)):
                break
        return f"{0.0 if abs(value) < 1e-300 else value:.{n}g}".replace("-", "\N{MINUS SIGN}")

    return FuncFormatter(digits)


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
