"""Increasing functions of one coordinate whose parameters a network supplies.

Each takes points (members, d, n) and raw, unbounded parameters
(members, parameters, d, n), and gives values and log derivatives (members, d, n).
Parameters that are the same for all points may have 1 in place of n; so may the log
derivatives then.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from amfvi.experts.flows.spline import Bin

__all__ = ["BoundedAffine", "Elementwise", "RationalQuadratic", "SoftplusAffine"]


class Elementwise(Protocol):
    """A family of increasing functions.

    Examples:
        >>> family: Elementwise = BoundedAffine()
        >>> family.parameters, family.identity()
        (2, tensor([0., 0.]))
    """

    @property
    def parameters(self) -> int:
        """Number of raw parameters per coordinate."""

    def identity(self) -> Tensor:
        """The raw parameters of the identity, (parameters,)."""

    def forward(self, v: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Values and log derivatives at ``v``."""

    def inverse(self, v: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Points whose values are ``v``, and log derivatives of the inverse."""


class _Affine:
    """v · scale + shift."""

    parameters: ClassVar[int] = 2

    def scale(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """The scale and its logarithm."""
        raise NotImplementedError

    def forward(self, v: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        raw_scale, shift = raw.unbind(1)
        scale, log_scale = self.scale(raw_scale)
        return torch.addcmul(shift, v, scale), log_scale

    def inverse(self, v: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        raw_scale, shift = raw.unbind(1)
        scale, log_scale = self.scale(raw_scale)
        return (v - shift) / scale, -log_scale


class SoftplusAffine(_Affine):
    """v·(softplus(a) + 0.001) + b, as in nflows' masked autoregressive layer.

    Examples:
        >>> family = SoftplusAffine()
        >>> raw = family.identity().view(1, 2, 1, 1)
        >>> torch.allclose(family.forward(torch.tensor([[[3.0]]]), raw)[0], torch.tensor(3.0))
        True
    """

    min_scale: ClassVar[float] = 1e-3

    def identity(self) -> Tensor:
        return torch.tensor([math.log(math.expm1(1 - self.min_scale)), 0.0])

    def scale(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        scale = F.softplus(raw) + self.min_scale
        return scale, scale.log()


class BoundedAffine(_Affine):
    """v·exp(3·tanh(a/3)) + b: a scale between 1/20 and 20, symmetric about 1.

    nflows' coupling scales by sigmoid(a + 2) + 0.001, which never exceeds 1.001, so
    that a flow of such layers cannot pull two modes apart.

    Examples:
        >>> raw = torch.tensor([100.0, 1.0]).view(1, 2, 1, 1)
        >>> value, log_slope = BoundedAffine().forward(torch.tensor([[[2.0]]]), raw)
        >>> value, log_slope
        (tensor([[[41.1711]]]), tensor([[[3.]]]))
    """

    bound: ClassVar[float] = 3.0

    def identity(self) -> Tensor:
        return torch.zeros(2)

    def scale(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        log_scale = self.bound * torch.tanh(raw / self.bound)
        return log_scale.exp(), log_scale


@dataclass(frozen=True, kw_only=True)
class RationalQuadratic:
    """A rational-quadratic spline on [−edge, edge], the identity outside.

    Durkan et al. 2019 (arXiv:1906.04032): widths and heights of the bins by softmax,
    slopes at inner knots by softplus, slope 1 at both edges.

    Attributes:
        bins: number of bins.
        edge: half the width of the interval.

    Examples:
        >>> family = RationalQuadratic(bins=4, edge=3.0)
        >>> raw = family.identity().view(1, -1, 1, 1)
        >>> value, log_slope = family.forward(torch.tensor([[[-5.0, 1.0]]]), raw)
        >>> [round(v, 4) for v in value.flatten().tolist()], bool(log_slope.abs().max() < 1e-5)
        ([-5.0, 1.0], True)
    """

    bins: int
    edge: float

    min_share: ClassVar[float] = 1e-3
    min_slope: ClassVar[float] = 1e-3

    @property
    def parameters(self) -> int:
        return 3 * self.bins - 1

    def identity(self) -> Tensor:
        raw = torch.zeros(self.parameters)
        raw[2 * self.bins :] = math.log(math.expm1(1 - self.min_slope))
        return raw

    def forward(self, v: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        inside = v.clamp(-self.edge, self.edge)
        value, log_slope = self._bin(inside, raw, by_height=False).forward(inside)
        return self._outside_identity(v, value, log_slope)

    def inverse(self, v: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        inside = v.clamp(-self.edge, self.edge)
        value, log_slope = self._bin(inside, raw, by_height=True).inverse(inside)
        return self._outside_identity(v, value, log_slope)

    def _outside_identity(
        self, v: Tensor, value: Tensor, log_slope: Tensor
    ) -> tuple[Tensor, Tensor]:
        """``value`` and ``log_slope`` inside the interval, the identity outside."""
        outside = v.abs() > self.edge
        return torch.where(outside, v, value), log_slope.masked_fill(outside, 0.0)

    def _bin(self, v: Tensor, raw: Tensor, *, by_height: bool) -> Bin:
        """The bin of each ``v``, a value of the spline if ``by_height``."""
        widths, heights = (self._extents(part) for part in raw[:, : 2 * self.bins].chunk(2, dim=1))
        right, top = (2 * self.edge * e.cumsum(dim=1) - self.edge for e in (widths, heights))
        slopes = F.softplus(raw[:, 2 * self.bins :]) + self.min_slope
        one = torch.ones_like(slopes[:, :1])
        slopes = torch.cat([one, slopes, one], dim=1)
        inner = (top if by_height else right)[:, :-1]
        k = (v.unsqueeze(1) >= inner).sum(dim=1, keepdim=True)

        def take(t: Tensor, index: Tensor) -> Tensor:
            return t.expand(-1, -1, -1, index.shape[3]).gather(1, index).squeeze(1)

        width, height = (2 * self.edge * take(e, k) for e in (widths, heights))
        return Bin(
            x=take(right, k) - width,
            y=take(top, k) - height,
            width=width,
            height=height,
            slope_below=take(slopes, k),
            slope_above=take(slopes, k + 1),
        )

    def _extents(self, raw: Tensor) -> Tensor:
        """Shares of the interval, (members, bins, d, n), that sum to one over the bins."""
        return torch.softmax(raw, dim=1) * (1 - self.min_share * self.bins) + self.min_share
