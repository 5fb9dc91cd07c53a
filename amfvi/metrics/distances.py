"""Squared distances between draws, exact far from zero and at every scale."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from torch import Tensor

__all__ = ["power_of_two", "squared_distances"]

EXPONENT_LIMIT = 1000
"""Largest power of two, up or down, that is divided by; its inverse is a number too."""


def squared_distances(x: Tensor, y: Tensor) -> NDArray[Any]:
    """Compute ‖x − y‖² for all pairs of draws x (n, d) and y (m, d), shape (n, m), float64.

    From differences: ‖x‖² + ‖y‖² − 2x·y, which is quicker, has no digit left where draws lie
    1e8 standard deviations from zero, as times in seconds since 1970 may.

    Examples:
        >>> import torch
        >>> x = torch.tensor([[1e9], [1e9 + 1]], dtype=torch.float64)
        >>> squared_distances(x, x)
        array([[0., 1.],
               [1., 0.]])
    """
    return cdist(x.double().numpy(), y.double().numpy(), "sqeuclidean")


def power_of_two(value: float) -> float:
    """The power of two next above a finite positive number; 1 for zero.

    Division by it is exact, and leaves numbers whose squares neither overflow nor vanish.

    Examples:
        >>> power_of_two(5.0), power_of_two(0.0)
        (8.0, 1.0)
    """
    exponent = math.frexp(value)[1]
    return math.ldexp(1.0, max(-EXPONENT_LIMIT, min(exponent, EXPONENT_LIMIT)))
