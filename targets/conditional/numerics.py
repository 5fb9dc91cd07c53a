"""Numerical methods that conditional targets share: quadrature, intervals, Runge–Kutta steps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

__all__ = ["gauss_legendre", "log_interval", "runge_kutta"]


def gauss_legendre(low: float, high: float, n: int) -> tuple[Tensor, Tensor]:
    """Nodes (n,) and weights (n,) of Gauss–Legendre quadrature between two bounds.

    Examples:
        >>> nodes, weights = gauss_legendre(0.0, 2.0, 5)
        >>> round(float((weights * nodes.square()).sum()), 6)
        2.666667
    """
    nodes, weights = np.polynomial.legendre.leggauss(n)
    half = (high - low) / 2
    return torch.from_numpy(low + half * (nodes + 1)), torch.from_numpy(half * weights)


def log_interval(low: Tensor, high: Tensor) -> Tensor:
    """Log of the standard normal probability of [low, high]; −inf where low ≥ high.

    Exact in both tails: an interval above zero is reflected.

    Examples:
        >>> log_interval(torch.tensor([30.0]).double(), torch.tensor([torch.inf]).double())
        tensor([-454.3212], dtype=torch.float64)
    """
    above = low > 0
    low, high = torch.where(above, -high, low), torch.where(above, -low, high)
    empty = low >= high
    top = torch.special.log_ndtr(high)
    share = torch.special.log_ndtr(low.where(~empty, -torch.inf)) - top
    return torch.where(empty, -torch.inf, top + torch.log1p(-share.exp()))


def runge_kutta(
    derivative: Callable[[Tensor], Tensor], x: Tensor, step: float, n_steps: int
) -> Tensor:
    """Solve dx/dt = ``derivative(x)`` by ``n_steps`` classical Runge–Kutta steps, order four.

    Examples:
        >>> runge_kutta(lambda x: -x, torch.ones(1).double(), 0.1, 10)
        tensor([0.3679], dtype=torch.float64)
    """
    for _ in range(n_steps):
        first = derivative(x)
        second = derivative(torch.add(x, first, alpha=step / 2))
        third = derivative(torch.add(x, second, alpha=step / 2))
        fourth = derivative(torch.add(x, third, alpha=step))
        middle = second.add_(third)
        x = torch.add(x, first.add_(middle, alpha=2).add_(fourth), alpha=step / 6)
    return x
