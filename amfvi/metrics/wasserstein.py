"""Exact Wasserstein-2 distance between two sets of draws."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from amfvi.errors import FitError, InputError
from amfvi.metrics.distances import power_of_two, squared_distances

__all__ = ["wasserstein2"]

MAX_ITERATIONS = 10_000_000
"""Pivots of the network simplex after which it is given up."""

MAX_MATCHED = 2_000
"""Draws a sample up to which shortest augmenting paths are as quick as the network simplex."""

MAX_COST = 1e7
"""Cost, of a typical one, above which the network simplex loses the digits of the others."""

MEDIAN_ROWS = 100
"""Draws whose distances give the unit of cost; the solver takes costs far below 1 for zero."""


def wasserstein2(x: Tensor, y: Tensor) -> float:
    """Compute W₂, a distance and not its square, between samples x (n, d) and y (m, d).

    Solved exactly: two samples of one size up to ``MAX_MATCHED`` by shortest augmenting paths
    (scipy), others by network simplex (POT). Time grows faster than n²: about 0.2 s at 1,000.
    Two finite samples of one distribution are some distance apart: read W₂ beside that floor.

    Raises:
        InputError: no draws, of different dimensions, or not finite.
        FitError: the solver did not reach the optimum.

    Examples:
        >>> import torch
        >>> x = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
        >>> wasserstein2(x, x + torch.tensor([3.0, 4.0]))
        5.0
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not len(x) or not len(y):
        raise InputError(f"draws must be (n, d) and (m, d), found {(*x.shape,)} and {(*y.shape,)}")
    if not bool(x.isfinite().all() and y.isfinite().all()):
        raise InputError("draws hold NaN or infinity; no distance is defined")
    unit = power_of_two(float(max(x.abs().max(), y.abs().max())))
    cost = squared_distances(x.double() / unit, y.double() / unit)
    typical = power_of_two(float(np.median(cost[:: -(-len(x) // MEDIAN_ROWS)])) or cost.max())
    return unit * math.sqrt(max(typical * _least_mean(cost / typical), 0.0))


def _least_mean(cost: NDArray[Any]) -> float:
    """The least mean cost of moving one sample to the other, from costs (n, m) of about 1.

    Raises:
        FitError: the solver did not reach the optimum.
    """
    n, m = cost.shape
    if n == m and (n <= MAX_MATCHED or cost.max() > MAX_COST):
        rows, columns = linear_sum_assignment(cost)
        return float(cost[rows, columns].mean())
    import ot  # imports for seconds

    mean, log = ot.emd2([], [], cost, numItermax=MAX_ITERATIONS, log=True)
    if log["warning"] is not None:
        raise FitError(f"the optimal transport solver failed: {log['warning']}")
    return float(mean)
