"""Whether a simulator of batches treats each row by itself, random as it may be."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from amfvi.simulation.values import Array, alike

__all__ = ["Independence", "independence_of_rows"]

SMALL_STEP = 1e-5
"""Share of the way to other points that changes few decisions of a random generator."""


class Independence(enum.Enum):
    """Whether the data of one row do not depend on the other rows.

    Examples:
        >>> Independence("refuted") is Independence.REFUTED
        True
    """

    CERTAIN = "certain"
    UNKNOWN = "unknown"
    REFUTED = "refuted"


def independence_of_rows(
    evaluate: Callable[[Tensor, int], Array], points: Tensor, sizes: Sequence[int]
) -> Independence:
    """Find whether the data of a row stay the same when the other rows change.

    They are compared under the same random numbers. These may go to other rows when a
    generator rejects some of them, as for Poisson counts; then the other rows are moved so
    little that it rejects the same ones, and what still changes is due to the points.

    Args:
        evaluate: from points (n, d) and a key of the random numbers to data (n, ...).
        points: of the prior, at least twice as many as the larger size.
        sizes: of two batches.

    Examples:
        >>> points = torch.rand(20, 1).double()
        >>> noise = lambda y, key: np.random.default_rng(key).normal(size=y.shape)
        >>> independence_of_rows(lambda y, key: y.numpy() + noise(y, key), points, (5, 6))
        <Independence.CERTAIN: 'certain'>
        >>> independence_of_rows(lambda y, key: (y / y.sum()).numpy(), points, (5, 6))
        <Independence.REFUTED: 'refuted'>
    """
    n, larger = sizes
    here, elsewhere = points[:n], points[larger : larger + n]
    base = evaluate(here, 0)
    if not alike(base, evaluate(here, 0)):
        return Independence.UNKNOWN  # no seed reaches its random numbers
    is_random = not alike(base, evaluate(here, 1))
    if _keeps_rows(evaluate, here, elsewhere, base, exactly=False):
        # A factor such as len(y) shows in batches of two sizes only.
        if is_random or alike(base, evaluate(points[:larger], 0)[:n]):
            return Independence.CERTAIN
        return Independence.UNKNOWN
    nearby = torch.lerp(here, elsewhere, SMALL_STEP)
    if is_random and _keeps_rows(evaluate, here, nearby, base, exactly=True):
        return Independence.UNKNOWN
    return Independence.REFUTED


def _keeps_rows(
    evaluate: Callable[[Tensor, int], Array],
    here: Tensor,
    others: Tensor,
    base: Array,
    *,
    exactly: bool,
) -> bool:
    """Whether the first and the last row stay the same when all other rows are others."""
    for kept in (0, -1):
        changed = others.clone()
        changed[kept] = here[kept]
        out = evaluate(changed, 0)[kept]
        same = np.array_equal(out, base[kept], equal_nan=True) if exactly else None
        if not (alike(out, base[kept]) if same is None else same):
            return False
    return True
