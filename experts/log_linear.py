"""Densities of one coordinate whose logarithm is linear between nodes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["TAIL_RATE", "LogLinear"]

TAIL_RATE = 10.0
"""Rate of the exponential tails where the nodes exceed what there are draws of."""

LEAST_DIFFERENCE = 1e-9
"""Difference of log densities, in size, below which a segment counts as level."""


@dataclass(frozen=True, kw_only=True)
class LogLinear:
    """Densities in any number, each with nodes of its own; integrals and draws are exact.

    Attributes:
        x: nodes, (..., N), ascending.
        log_values: log density at the nodes up to a constant, (..., N), nats.
        tail_rate: of the exponential tails beyond the first and the last node, in ranges of the
            nodes; large where these are bounds.

    Examples:
        >>> x = torch.linspace(-8, 8, 401).double()
        >>> normal = LogLinear(x=x[None], log_values=-0.5 * x[None].square())
        >>> normal.log_prob(torch.tensor([0.0]).double())
        tensor([-0.9188], dtype=torch.float64)
        >>> normal.quantile(torch.tensor([[0.025, 0.975]]).double())
        tensor([[-1.9600,  1.9600]], dtype=torch.float64)
    """

    x: Tensor
    log_values: Tensor
    tail_rate: float = TAIL_RATE

    def log_prob(self, y: Tensor) -> Tensor:
        """Normalized log density at one point for each density, (...)."""
        return self.interpolate(y.unsqueeze(-1)).squeeze(-1) - self._log_masses().logsumexp(dim=-1)

    def interpolate(self, y: Tensor) -> Tensor:
        """Log density up to the constant, (..., m), at points of each density (..., m)."""
        x, values = self.x, self.log_values
        above = torch.searchsorted(x.contiguous(), y.detach().contiguous())
        above = above.clamp(1, x.shape[-1] - 1)
        ends = [t.gather(-1, above + step) for t in (x, values) for step in (-1, 0)]
        x_below, x_above, below, upper = ends
        inside = torch.minimum(torch.maximum(y, x[..., :1]), x[..., -1:])
        share = (inside - x_below) / (x_above - x_below).clamp(min=torch.finfo(x.dtype).tiny)
        beyond = (y - inside).abs() * self._tail_rate.unsqueeze(-1)
        return torch.lerp(below, upper, share) - beyond

    def quantile(self, probability: Tensor) -> Tensor:
        """Points (..., m) with these shares of the mass below them, in (0, 1)."""
        segment, share = self._segment(probability)
        left = (segment - 1).clamp(0, self.x.shape[-1] - 2)  # segment 0 is the tail on the left
        slope = self.log_values.diff(dim=-1).gather(-1, left)
        x_left, x_right = self.x.gather(-1, left), self.x.gather(-1, left + 1)
        y = torch.lerp(x_left, x_right, _inverse_of_exponential(share, slope))
        is_left, is_right = segment == 0, segment == self.x.shape[-1]
        if not bool((is_left | is_right).any()):
            return y
        tail = 1 / self._tail_rate.unsqueeze(-1)
        y = torch.where(is_left, self.x[..., :1] + share.log() * tail, y)
        return torch.where(is_right, self.x[..., -1:] - torch.log1p(-share) * tail, y)

    def spread(self, m: int) -> Tensor:
        """Points (..., m) between the nodes with about the same mass between one another."""
        steps = torch.arange(m, dtype=self.x.dtype, device=self.x.device)
        probability = ((steps + 0.5) / m).expand(*self.x.shape[:-1], m)
        segment, share = self._segment(probability)
        left = (segment - 1).clamp(0, self.x.shape[-1] - 2)
        return torch.lerp(self.x.gather(-1, left), self.x.gather(-1, left + 1), share)

    def _segment(self, probability: Tensor) -> tuple[Tensor, Tensor]:
        """The tail or segment that holds each quantile, and the share of its mass below that."""
        masses = self._log_masses().softmax(dim=-1)
        below = masses.cumsum(dim=-1)
        segment = torch.searchsorted(below, probability.contiguous())
        segment = segment.clamp(max=masses.shape[-1] - 1)
        mass = masses.gather(-1, segment)
        share = 1 - (below.gather(-1, segment) - probability) / mass.clamp(min=1e-30)
        return segment, share.clamp(1e-16, 1 - torch.finfo(share.dtype).eps)

    def select(self, index: Tensor) -> LogLinear:
        """The densities with these numbers (members, n), of all of theirs (members, u)."""
        rows = index.unsqueeze(-1).expand(-1, -1, self.x.shape[-1])
        return replace(self, x=self.x.gather(1, rows), log_values=self.log_values.gather(1, rows))

    @property
    def _tail_rate(self) -> Tensor:
        return self.tail_rate / (self.x[..., -1] - self.x[..., 0])

    def _log_masses(self) -> Tensor:
        """Log masses of the left tail, the segments and the right tail, (..., N + 1)."""
        values = self.log_values
        difference = values.diff(dim=-1).abs().clamp(min=LEAST_DIFFERENCE)
        higher = torch.maximum(values[..., 1:], values[..., :-1])
        width = self.x.diff(dim=-1).clamp(min=torch.finfo(self.x.dtype).tiny)
        inner = higher + torch.log(-torch.expm1(-difference) / difference) + width.log()
        tails = values[..., [0, -1]] - self._tail_rate.log().unsqueeze(-1)
        return torch.cat([tails[..., :1], inner, tails[..., 1:]], dim=-1)


def _inverse_of_exponential(share: Tensor, slope: Tensor) -> Tensor:
    """Where in [0, 1] a density exp(slope · t) has this share of its mass below."""
    size = slope.abs().clamp(min=LEAST_DIFFERENCE)
    # From the end with more mass, so that nothing overflows.
    share = torch.where(slope > 0, share, 1 - share)
    from_heavy_end = -torch.log(share + (1 - share) * torch.exp(-size)) / size
    return torch.where(slope > 0, 1 - from_heavy_end, from_heavy_end)
