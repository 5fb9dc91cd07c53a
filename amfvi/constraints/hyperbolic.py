"""The hyperbolic sine that goes on as a straight line, and its inverse."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["straight_asinh", "straight_sinh"]


def straight_sinh(u: Tensor, edge: Tensor | float) -> tuple[Tensor, Tensor]:
    """sinh(u) up to |u| = edge and its tangent beyond, with the logarithm of the derivative.

    Examples:
        >>> value, log_slope = straight_sinh(torch.tensor([1.0, 3.0]), 2.0)
        >>> torch.allclose(value[1], torch.tensor(2.0).sinh() + torch.tensor(2.0).cosh())
        True
    """
    inside = u.clamp(-torch.as_tensor(edge).to(u), torch.as_tensor(edge).to(u))
    slope = inside.cosh()
    return inside.sinh() + (u - inside) * slope, slope.log()


def straight_asinh(z: Tensor, edge: Tensor | float) -> tuple[Tensor, Tensor]:
    """The inverse of :func:`straight_sinh`, with the logarithm of its own derivative.

    Examples:
        >>> z, _ = straight_sinh(torch.tensor([1.0, 3.0]), 2.0)
        >>> torch.allclose(straight_asinh(z, 2.0)[0], torch.tensor([1.0, 3.0]))
        True
    """
    top = torch.as_tensor(edge).to(z).sinh()
    inside = z.clamp(-top, top)
    log_slope = -0.5 * torch.log1p(inside.square())
    return inside.asinh() + (z - inside) * log_slope.exp(), log_slope
