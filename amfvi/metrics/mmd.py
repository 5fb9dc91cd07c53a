"""Maximum mean discrepancy (Gretton et al. 2012, JMLR 13, eq. 3), with a test."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from amfvi.errors import InputError

__all__ = ["bandwidths", "mmd2", "mmd_test"]

ROWS_AT_A_TIME = 512
BANDWIDTH_DRAWS = 1000


def bandwidths(reference: Tensor) -> Tensor:
    """½, 1 and 2 times the median distance within reference draws (n, d); shape (3,).

    From the reference alone, so that every method compared is measured by one kernel.
    """
    distances = torch.pdist(reference[:BANDWIDTH_DRAWS].double())
    positive = distances[distances > 0]
    if not len(positive):
        raise InputError("the reference draws are all equal; no bandwidth can be chosen")
    return positive.median() * torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)


def mmd2(x: Tensor, y: Tensor, widths: Tensor) -> float:
    """Unbiased MMD² between x (n, d) and y (m, d): a U-statistic, zero on average
    when both come from one law, so it may be negative.

    The kernel is the mean of Gaussians exp(−‖x−y‖²/2h²) over the bandwidths h.
    """
    return float(_statistics(x, y, widths, _labels(len(x), len(y)))[0])


def mmd_test(
    x: Tensor, y: Tensor, widths: Tensor, generator: torch.Generator, permutations: int = 200
) -> tuple[float, float]:
    """Unbiased MMD² and its permutation p-value under "x and y come from one law"."""
    n, m = len(x), len(y)
    observed = _labels(n, m)
    orders = [torch.randperm(n + m, generator=generator) for _ in range(permutations)]
    labels = torch.cat([observed, *(observed[order] for order in orders)], dim=1)
    values = _statistics(x, y, widths, labels)
    p_value = float((values >= values[0]).sum()) / (permutations + 1)
    return float(values[0]), p_value


def _mean_kernel(squared: Tensor, widths: Tensor) -> Tensor:
    """Mean over the bandwidths of exp(−squared/2h²)."""
    total = torch.zeros_like(squared)
    last, width = squared, math.nan
    for h in widths.sort(descending=True).values.tolist():
        # Half the width is the fourth power: two products are quicker than an exponential.
        halved = 2 * h == width
        last = last.square().square() if halved else torch.exp(-squared / (2 * h**2))
        total += last
        width = h
    return total / len(widths)


def _labels(n: int, m: int) -> Tensor:
    """1 for a row of x, 0 for a row of y; shape (n + m, 1)."""
    return torch.cat([torch.ones(n, 1), torch.zeros(m, 1)]).double()


def _statistics(x: Tensor, y: Tensor, widths: Tensor, labels: Tensor) -> Tensor:
    """MMD² for each column of labels (n + m, P), the kernel made a few rows at a time."""
    n, m = len(x), len(y)
    if n < 2 or m < 2 or x.shape[1] != y.shape[1]:
        raise InputError(
            f"MMD needs at least two draws of one dimension on each side, "
            f"found {(*x.shape,)} and {(*y.shape,)}"
        )
    pooled = torch.cat([x.double(), y.double()])
    within_x = pooled.new_zeros(labels.shape[1])
    between, within_y = within_x.clone(), within_x.clone()
    for start in range(0, n + m, ROWS_AT_A_TIME):
        rows = slice(start, start + ROWS_AT_A_TIME)
        squared = torch.cdist(pooled[rows], pooled).square()
        kernel = _mean_kernel(squared, widths)
        kernel.diagonal(offset=start).zero_()
        towards_x = kernel @ labels
        towards_y = kernel.sum(dim=1, keepdim=True) - towards_x
        within_x += (labels[rows] * towards_x).sum(dim=0)
        between += (labels[rows] * towards_y).sum(dim=0)
        within_y += ((1 - labels[rows]) * towards_y).sum(dim=0)
    return within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * between / (n * m)
