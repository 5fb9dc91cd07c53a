"""A bijection from the line to an interval that is nearly the identity inside it."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Transform, constraints
from torch.nn import functional as F

__all__ = ["SoftClamp"]


class SoftClamp(Transform):
    """x = low + t·softplus((y − low)/t) − t·softplus((y − high)/t).

    Linear inside the interval, bent within a few widths t of a bound: a relation that is a
    straight line stays one, which a logistic map bends everywhere.

    Args:
        low, high: the bounds.
        width: t, a distance.

    Examples:
        >>> clamp = SoftClamp(0.0, 1.0, 0.01)
        >>> y = torch.tensor([-1.0, 0.5, 2.0]).double()
        >>> x = clamp(y)
        >>> bool(((x >= 0) & (x <= 1)).all()), bool((x[1] - 0.5).abs() < 1e-12)
        (True, True)
    """

    domain = constraints.real
    bijective = True
    sign = 1

    def __init__(self, low: float, high: float, width: float) -> None:
        super().__init__()
        self.low, self.high, self.width = low, high, width
        self.codomain = constraints.interval(low, high)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, SoftClamp)
            and vars(self)["width"] == other.width
            and ((self.low, self.high) == (other.low, other.high))
        )

    def _call(self, y: Tensor) -> Tensor:
        from_low, from_high = (y - self.low) / self.width, (y - self.high) / self.width
        # From the nearer bound, so that no digits are lost beside it.
        near_low = self.low + self.width * (F.softplus(from_low) - F.softplus(from_high))
        near_high = self.high - self.width * (F.softplus(-from_high) - F.softplus(-from_low))
        return torch.where(y < (self.low + self.high) / 2, near_low, near_high)

    def _inverse(self, x: Tensor) -> Tensor:
        from_low, from_high = (x - self.low) / self.width, (self.high - x) / self.width
        bend = torch.log1p(-torch.exp(-from_low)) - torch.log1p(-torch.exp(-from_high))
        return x + self.width * bend

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log dy/dx of a value y in the interval at x on the line, of the shape of ``x``."""
        inside = F.logsigmoid((x - self.low) / self.width)
        inside = inside + F.logsigmoid((self.high - x) / self.width)
        return inside + math.log1p(-math.exp(-(self.high - self.low) / self.width))
