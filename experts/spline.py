"""Elementwise monotone rational-quadratic splines with linear tails.

Gregory & Delbourgo 1982; the form that Durkan et al. 2019 (arXiv:1906.04032, §3.1)
use in flows. Unlike theirs, the spline here is not the identity outside its knots:
it goes on with the end slope, so a standard normal seen through it has Gaussian
tails of their own width on either side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["MonotoneSpline"]


@dataclass(frozen=True)
class MonotoneSpline:
    """d increasing functions, each through K knots.

    Attributes:
        x, y: knot positions and values, strictly increasing along dim 1, (d, K).
        slope: derivatives at the knots, positive, (d, K).
    """

    x: Tensor
    y: Tensor
    slope: Tensor

    @classmethod
    def through(cls, x: Tensor, y: Tensor) -> MonotoneSpline:
        """The spline through knots (d, K ≥ 2), knot slopes by harmonic means.

        Where both neighbouring secants are finite and positive so is the slope,
        which makes the interpolant monotone.
        """
        width = x.diff(dim=1)
        secant = y.diff(dim=1) / width
        weight = width[:, 1:] / (width[:, 1:] + width[:, :-1])
        inner = 1 / (weight / secant[:, :-1] + (1 - weight) / secant[:, 1:])
        return cls(x, y, torch.cat([secant[:, :1], inner, secant[:, -1:]], dim=1))

    def forward(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Values and log derivatives at ``v`` (d, n); both (d, n)."""
        x0, x1, y0, y1, d0, d1 = self._bracket(self.x, v)
        width, height = x1 - x0, y1 - y0
        secant = height / width
        t = ((v - x0) / width).clamp(0, 1)
        tt = t * (1 - t)
        denominator = secant + (d0 + d1 - 2 * secant) * tt
        value = y0 + height * (secant * t.square() + d0 * tt) / denominator
        log_slope = _log_slope(t, tt, secant, d0, d1, denominator)
        below, above = v < self.x[:, :1], v > self.x[:, -1:]
        value = torch.where(below, self.y[:, :1] + (v - self.x[:, :1]) * self.slope[:, :1], value)
        value = torch.where(
            above, self.y[:, -1:] + (v - self.x[:, -1:]) * self.slope[:, -1:], value
        )
        return value, self._with_tail_slopes(log_slope, below, above)

    def inverse(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Points whose values are ``v`` (d, n) and the log derivatives of the inverse."""
        x0, x1, y0, y1, d0, d1 = self._bracket(self.y, v)
        width, height = x1 - x0, y1 - y0
        secant = height / width
        excess = d0 + d1 - 2 * secant
        rise = (v - y0).clamp(min=0).minimum(height)
        a = height * (secant - d0) + rise * excess
        b = height * d0 - rise * excess
        c = -secant * rise
        # b > 0, so this form of the root subtracts no nearly equal numbers.
        t = (-2 * c / (b + (b.square() - 4 * a * c).clamp(min=0).sqrt())).clamp(0, 1)
        tt = t * (1 - t)
        log_slope = _log_slope(t, tt, secant, d0, d1, secant + excess * tt)
        value = x0 + t * width
        below, above = v < self.y[:, :1], v > self.y[:, -1:]
        value = torch.where(below, self.x[:, :1] + (v - self.y[:, :1]) / self.slope[:, :1], value)
        value = torch.where(
            above, self.x[:, -1:] + (v - self.y[:, -1:]) / self.slope[:, -1:], value
        )
        return value, -self._with_tail_slopes(log_slope, below, above)

    def _bracket(self, knots: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        """The x, y and slope at both ends of the bin that each ``v`` lies in."""
        last = knots.shape[1] - 2
        k = (torch.searchsorted(knots, v.contiguous()) - 1).clamp(0, last)
        return tuple(t.gather(1, i) for t in (self.x, self.y, self.slope) for i in (k, k + 1))

    def _with_tail_slopes(self, log_slope: Tensor, below: Tensor, above: Tensor) -> Tensor:
        log_slope = torch.where(below, self.slope[:, :1].log(), log_slope)
        return torch.where(above, self.slope[:, -1:].log(), log_slope)


def _log_slope(
    t: Tensor, tt: Tensor, secant: Tensor, d0: Tensor, d1: Tensor, denominator: Tensor
) -> Tensor:
    numerator = d1 * t.square() + 2 * secant * tt + d0 * (1 - t).square()
    return 2 * secant.log() + numerator.log() - 2 * denominator.log()
