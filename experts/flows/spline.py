"""Elementwise monotone rational-quadratic splines.

Gregory & Delbourgo 1982; the form that Durkan et al. 2019 (arXiv:1906.04032, §3.1)
use in flows. :class:`Bin` is one bin of such a spline at every point;
:class:`MonotoneSpline` is a function given by its knots, with linear tails.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Bin", "MonotoneSpline"]

CELLS = 1024
"""Cells of the grid by which the bin of a point is looked up."""

MAX_COMPARISONS = 6
"""Most knots in a cell with which the grid is still quicker than a binary search."""


class Bin(NamedTuple):
    """The bin each point lies in: lower corner, extent, and slopes at both ends.

    Examples:
        >>> one = torch.ones(1)
        >>> straight = Bin(x=0 * one, y=0 * one, width=one, height=2 * one,
        ...                slope_below=2 * one, slope_above=2 * one)
        >>> value, log_slope = straight.forward(torch.tensor([0.25]))
        >>> value, log_slope.exp()
        (tensor([0.5000]), tensor([2.]))
    """

    x: Tensor
    y: Tensor
    width: Tensor
    height: Tensor
    slope_below: Tensor
    slope_above: Tensor

    def forward(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Value and log derivative at ``v``, which lies in the bin."""
        secant = self.height / self.width
        t = ((v - self.x) / self.width).clamp(0, 1)
        tt = t * (1 - t)
        denominator = secant + (self.slope_below + self.slope_above - 2 * secant) * tt
        value = self.y + self.height * (secant * t.square() + self.slope_below * tt) / denominator
        return value, self._log_slope(t, tt, secant, denominator)

    def inverse(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """The point whose value is ``v``, and the log derivative of the inverse there."""
        secant = self.height / self.width
        excess = self.slope_below + self.slope_above - 2 * secant
        rise = (v - self.y).clamp(min=0).minimum(self.height)
        a = self.height * (secant - self.slope_below) + rise * excess
        b = self.height * self.slope_below - rise * excess
        c = -secant * rise
        # b > 0, so this form of the root subtracts no nearly equal numbers.
        t = (-2 * c / (b + (b.square() - 4 * a * c).clamp(min=0).sqrt())).clamp(0, 1)
        tt = t * (1 - t)
        return self.x + t * self.width, -self._log_slope(t, tt, secant, secant + excess * tt)

    def _log_slope(self, t: Tensor, tt: Tensor, secant: Tensor, denominator: Tensor) -> Tensor:
        ends = self.slope_above * t.square() + self.slope_below * (1 - t).square()
        return ((secant / denominator).square() * (ends + 2 * secant * tt)).log()


@dataclass(frozen=True)
class MonotoneSpline:
    """Increasing functions of one variable, each through K knots.

    Unlike the splines of Durkan et al. they are not the identity outside the knots:
    they go on with the end slope, so a standard normal seen through one has Gaussian
    tails of their own width on either side.

    Attributes:
        x, y: knot positions and values, strictly increasing along the last
            dimension, (…, K).
        slope: derivatives at the knots, positive, (…, K).

    Examples:
        >>> spline = MonotoneSpline.through(torch.tensor([0.0, 1, 2]), torch.tensor([0.0, 2, 4]))
        >>> value, log_slope = spline.forward(torch.tensor([-1.0, 0.5]))
        >>> value, log_slope.exp()
        (tensor([-2.,  1.]), tensor([2., 2.]))
    """

    x: Tensor
    y: Tensor
    slope: Tensor

    @classmethod
    def through(cls, x: Tensor, y: Tensor) -> MonotoneSpline:
        """The spline through knots (…, K ≥ 2), knot slopes by harmonic means.

        Where both neighboring secants are finite and positive so is the slope,
        which makes the interpolant monotone.
        """
        width = x.diff(dim=-1)
        secant = y.diff(dim=-1) / width
        weight = width[..., 1:] / (width[..., 1:] + width[..., :-1])
        inner = 1 / (weight / secant[..., :-1] + (1 - weight) / secant[..., 1:])
        return cls(x, y, torch.cat([secant[..., :1], inner, secant[..., -1:]], dim=-1))

    def forward(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Values and log derivatives at ``v`` (…, n)."""
        rows = self._rows(v)
        entries = self._table.index_select(0, rows.flatten())
        entries = entries.view(*rows.shape, self._table.shape[1])
        x, per_width, y, height, a, c, s0, s1, s2 = entries.unbind(-1)
        t = (v - x) * per_width
        tt = t - t.square()
        denominator = 1 + c * tt
        value = y + height * torch.addcmul(t, a, tt) / denominator
        slope = torch.addcmul(s0, s1, t).addcmul_(s2, tt) / denominator.square()
        return value, slope.log()

    def _rows(self, v: Tensor) -> Tensor:
        """The row of :attr:`_table` for each ``v``, as by ``searchsorted``.

        A grid of equal cells tells in which bin a cell begins, and a few comparisons do
        the rest. Where many knots share a cell, ``searchsorted`` itself is used.
        """
        bins_of_function = self.x.shape[-1] + 1
        first = torch.arange(self.x[..., 0].numel(), device=v.device).view(*self.x.shape[:-1], 1)
        begin, per_cell, longest, ends = self._cells
        if longest > MAX_COMPARISONS:
            return torch.searchsorted(self.x, v.contiguous()) + first * bins_of_function
        cells = ((v - self.x[..., :1]) * per_cell).long().clamp_(0, CELLS - 1)
        rows = begin.index_select(0, cells.add_(first * CELLS).flatten())
        flat = v.reshape(-1)
        for _ in range(longest):
            rows += flat > ends.index_select(0, rows)
        return rows.view(v.shape)

    @cached_property
    def _cells(self) -> tuple[Tensor, Tensor, int, Tensor]:
        """First row of each cell, cells per unit of x, most knots in a cell, upper end by row."""
        low, high = self.x[..., :1], self.x[..., -1:]
        edges = torch.arange(CELLS + 1, dtype=self.x.dtype, device=self.x.device)
        width = (high - low) / CELLS
        slack = 1e-3 * width  # a point may round into the next cell
        begin = torch.searchsorted(self.x, low + edges[:-1] * width - slack)
        end = torch.searchsorted(self.x, low + edges[1:] * width + slack)
        longest = int((end - begin).max())
        infinity = torch.full_like(high, torch.inf)
        ends = torch.cat([self.x, infinity], dim=-1).flatten()
        first = torch.arange(low.numel(), device=low.device).view(low.shape)
        return (begin + first * (self.x.shape[-1] + 1)).flatten(), 1 / width, longest, ends

    @cached_property
    def _table(self) -> Tensor:
        """Coefficients for :meth:`forward`, one row per bin, function after function.

        With t the position in a bin, from 0 to 1, and a, b the slopes at its ends over its
        mean slope s, less one, the value is y + h·(t + a·t(1−t)) / (1 + (a + b)·t(1−t)), and its
        derivative s·(1 + a + (b − a)·t − (a + b)·t(1−t)) over the square of that
        denominator. The tails are bins too, with a = b = 0.
        """
        width, height = self.x.diff(dim=-1), self.y.diff(dim=-1)
        secant = height / width
        a, b = self.slope[..., :-1] / secant - 1, self.slope[..., 1:] / secant - 1
        ends = self.slope[..., [0, -1]]
        zero, one = torch.zeros_like(ends), torch.ones_like(ends)

        def with_tails(tails: Tensor, inner: Tensor) -> Tensor:
            return torch.cat([tails[..., :1], inner, tails[..., 1:]], dim=-1)

        columns = (
            with_tails(self.x[..., [0, -1]], self.x[..., :-1]),
            with_tails(one, 1 / width),
            with_tails(self.y[..., [0, -1]], self.y[..., :-1]),
            with_tails(ends, height),
            with_tails(zero, a),
            with_tails(zero, a + b),
            with_tails(ends, secant * (1 + a)),
            with_tails(zero, secant * (b - a)),
            with_tails(zero, -secant * (a + b)),
        )
        return torch.stack(columns, dim=-1).flatten(0, -2)

    def inverse(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Points whose values are ``v`` (…, n) and the log derivatives of the inverse."""
        value, log_slope = self._bin(self.y, v).inverse(v)
        outside, x, y, slope = self._tail(self.y, v)
        value = torch.where(outside, x + (v - y) / slope, value)
        return value, torch.where(outside, -slope.log(), log_slope)

    def _bin(self, knots: Tensor, v: Tensor) -> Bin:
        """The bin whose ``knots`` enclose each ``v``; the nearest one for the tails."""
        last = knots.shape[-1] - 2
        k = (torch.searchsorted(knots, v.contiguous()) - 1).clamp(0, last)
        x, x1, y, y1, below, above = (
            t.gather(-1, i) for t in (self.x, self.y, self.slope) for i in (k, k + 1)
        )
        return Bin(x, y, x1 - x, y1 - y, below, above)

    def _tail(self, knots: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Which ``v`` lie outside the knots; x, y and slope at the nearer end."""
        below = v < knots[..., :1]
        x, y, slope = (
            torch.where(below, t[..., :1], t[..., -1:]) for t in (self.x, self.y, self.slope)
        )
        return below | (v > knots[..., -1:]), x, y, slope
