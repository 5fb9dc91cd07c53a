"""How far a flow reaches beyond its draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from amfvi.constraints.hyperbolic import straight_asinh, straight_sinh

__all__ = ["Reach"]

BEYOND_DRAWS = 1.25
"""Multiple of the farthest draw up to which points stay where they are."""

WIDTH = 0.1
"""Share of that distance within which what lies beyond it is drawn in."""

MAX_BENT = 20.0
"""Widths beyond the edge from which the map is a straight line, so that no number overflows."""


@dataclass(frozen=True)
class Reach:
    """An increasing map of each coordinate: the identity up to an edge, and sinh beyond it.

    Layers whose scales depend on the point have learned nothing of where there are no draws. A
    few images of normal scores in 100,000 land thousands of standard deviations away, and
    decide on a standard deviation. Behind this map they lie little beyond the farthest draw,
    and the density stays exact. It is the identity at every draw, so that training goes
    without it.

    Attributes:
        edges: distance from zero up to which points stay, (members, d).

    Examples:
        >>> reach = Reach(torch.tensor([[5.0]]))
        >>> z, _ = reach.inverse(torch.tensor([[[-1.0, 4.0, 1e6]]]))
        >>> [round(float(value), 2) for value in z.flatten()]
        [-1.0, 4.0, 12.6]
        >>> torch.allclose(reach.forward(z)[0][..., -1], torch.tensor(1e6), rtol=1e-4)
        True
    """

    edges: Tensor

    @classmethod
    def fit(cls, z: Tensor) -> Reach:
        """The map that leaves whitened draws (members, d, n) where they are."""
        return cls(BEYOND_DRAWS * z.double().abs().amax(dim=2))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Whitened points (members, d, n) to those of the flow, with log |det| (members, n)."""
        edge = self.edges[:, :, None].to(z)
        inside = z.clamp(-edge, edge)
        beyond, log_slope = straight_sinh((z - inside) / (WIDTH * edge), MAX_BENT)
        return inside + WIDTH * edge * beyond, log_slope.sum(dim=1)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of :meth:`forward`, with its own log |det|."""
        edge = self.edges[:, :, None].to(y)
        inside = y.clamp(-edge, edge)
        beyond, log_slope = straight_asinh((y - inside) / (WIDTH * edge), MAX_BENT)
        return inside + WIDTH * edge * beyond, log_slope.sum(dim=1)

    def to(self, device: torch.device | str) -> Self:
        """The same map with its numbers on ``device``."""
        return type(self)(self.edges.to(device))
