"""Numbers with their noise, as text: for tables, pages and figures alike."""

from __future__ import annotations

import math

__all__ = ["DASH", "number", "plus_minus"]

DASH = "–"
"""What stands for a number that is not known."""

LARGE = 1e6
"""Size from which a number is written with a power of ten."""


def plus_minus(value: float | None, noise: float | None, digits: int) -> str:
    """A number with its noise; a dash for one that is not known.

    Examples:
        >>> plus_minus(1.0, 0.25, 2), plus_minus(None, None, 2)
        ('1.00 ± 0.25', '–')
        >>> plus_minus(-7.1872e11, 6e11, 3)
        '-7.19e+11 ± 6e+11'
    """
    if value is None:
        return DASH

    def written(part: float) -> str:
        if math.isfinite(part) and abs(part) >= LARGE:
            return f"{part:.3g}"
        return f"{round(part, digits) + 0.0:.{digits}f}"  # no −0

    return written(value) + ("" if noise is None else f" ± {written(noise)}")


def number(value: float | None, digits: int) -> str:
    """A number with so many decimals; a dash for one that is not known.

    Examples:
        >>> number(0.5, 2), number(None, 2)
        ('0.50', '–')
    """
    return plus_minus(value, None, digits)
