"""Maximum mean discrepancy (Gretton et al. 2012, JMLR 13, eq. 3), with a test."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from amfvi.errors import InputError
from amfvi.metrics.distances import power_of_two, squared_distances

__all__ = ["bandwidths", "mmd2", "mmd_test"]

CHUNK_ROWS = 512
"""Rows of the kernel matrix that are made at a time, so that memory in use stays small."""

BANDWIDTH_DRAWS = 1000
"""Reference draws that the bandwidths are chosen by."""


def bandwidths(reference: Tensor) -> Tensor:
    """Choose ½, 1 and 2 times the median distance within reference draws (n, d); shape (3,).

    From the reference alone, so that every method compared is measured by one kernel.

    Raises:
        InputError: all draws are equal.

    Examples:
        >>> bandwidths(torch.tensor([[0.0], [4.0]]))
        tensor([2., 4., 8.], dtype=torch.float64)
    """
    chosen = reference[:BANDWIDTH_DRAWS].double()
    unit = power_of_two(float((chosen - chosen[:1]).abs().max()))
    distances = unit * torch.pdist(chosen / unit)
    positive = distances[distances > 0]
    if not len(positive):
        raise InputError("the reference draws are all equal; no bandwidth can be chosen")
    return positive.median() * torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)


def mmd2(x: Tensor, y: Tensor, widths: Tensor) -> float:
    """Estimate MMD² between x (n, d) and y (m, d) without bias: a U-statistic.

    It is zero on average when both come from one distribution, so it may be negative. The
    kernel is the mean of Gaussians exp(−‖x−y‖²/2h²) over the bandwidths h.

    Raises:
        InputError: fewer than two draws, or of different dimensions.

    Examples:
        >>> x = torch.tensor([[0.0], [0.0]])
        >>> mmd2(x, x + 100, torch.tensor([1.0]))
        2.0
    """
    return float(_statistics(x, y, widths, _labels(len(x), len(y)))[0])


def mmd_test(
    x: Tensor, y: Tensor, widths: Tensor, generator: torch.Generator, permutations: int = 200
) -> tuple[float, float]:
    """Test by permutation whether x (n, d) and y (m, d) come from one distribution.

    Returns:
        The unbiased MMD² and its p-value.

    Raises:
        InputError: fewer than two draws, or of different dimensions.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> x = torch.randn(50, 1, generator=generator)
        >>> mmd_test(x, x + 100, torch.tensor([1.0]), generator)[1] < 0.01
        True
    """
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
            f"MMD needs at least two draws per sample, of one dimension, "
            f"found {(*x.shape,)} and {(*y.shape,)}"
        )
    unit = power_of_two(float(widths.max()))
    pooled, widths = torch.cat([x.double(), y.double()]) / unit, widths / unit
    within_x = pooled.new_zeros(labels.shape[1])
    between, within_y = within_x.clone(), within_x.clone()
    for start in range(0, n + m, CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        squared = torch.from_numpy(squared_distances(pooled[rows], pooled))
        kernel = _mean_kernel(squared, widths)
        kernel.diagonal(offset=start).zero_()
        towards_x = kernel @ labels
        towards_y = kernel.sum(dim=1, keepdim=True) - towards_x
        within_x += (labels[rows] * towards_x).sum(dim=0)
        between += (labels[rows] * towards_y).sum(dim=0)
        within_y += ((1 - labels[rows]) * towards_y).sum(dim=0)
    return within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * between / (n * m)
