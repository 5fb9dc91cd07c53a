"""Compression of heavy tails: a change of variables after which they are light."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from amfvi.constraints.hyperbolic import straight_asinh, straight_sinh
from amfvi.errors import UsageError

__all__ = ["PERHAPS_HEAVY", "TailCompression"]

HEAVY = 50.0
"""Distance from the median, in median absolute deviations, that only a heavy tail reaches."""

PERHAPS_HEAVY = 15.0
"""The same, which no draw of a Gaussian reaches, and few of an exponential distribution."""

BEND = 1.0
"""Distance, in the same units, from which a heavy tail is compressed."""

MAX_COMPRESSED = 300.0
"""Compressed distance, in units of the scale, beyond which there are no draws."""

BEYOND_DRAWS = 1.25
"""Multiple of the farthest compressed draw from which the map is a straight line."""


@dataclass(frozen=True)
class TailCompression:
    """The map c + s·sinh⁻¹((y − c)/s) of each coordinate, the identity where s is infinite.

    Near the center it changes nothing, and a tail that falls as a power of the distance
    falls exponentially after it.

    From an edge on the map may be a straight line: what a density over compressed coordinates
    has beyond all draws would else be thrown exponentially far, and a few draws in 100,000
    would decide on a standard deviation.

    Attributes:
        centers: c of each coordinate.
        scales: s of each coordinate.
        edges: |compressed distance| / s from which the map is a straight line, for each
            coordinate; all infinite if not given.

    Raises:
        UsageError: numbers of other counts, or scales or edges that are not positive.

    Examples:
        >>> y = torch.tensor([[0.0], [1.0], [-1.0], [2.0], [1e6]]).double()
        >>> compression = TailCompression.fit(y)
        >>> compression.is_needed, float(compression.compress(y)[0].max()) < 100
        (True, True)
        >>> torch.allclose(compression.expand(compression.compress(y)[0])[0], y)
        True
    """

    centers: tuple[float, ...]
    scales: tuple[float, ...]
    edges: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.edges:
            object.__setattr__(self, "edges", (math.inf,) * len(self.scales))
        if len(self.edges) != len(self.scales) or not all(edge > 0 for edge in self.edges):
            raise UsageError(
                "a compression of tails takes one positive edge for each coordinate, found "
                f"{list(self.edges)} for {len(self.scales)}"
            )
        if len(self.centers) != len(self.scales) or not all(scale > 0 for scale in self.scales):
            raise UsageError(
                "a compression of tails takes one center and one positive scale for each "
                f"coordinate, found {list(self.centers)} and {list(self.scales)}"
            )

    @classmethod
    def fit(cls, y: Tensor, heavy: float = HEAVY) -> TailCompression:
        """Find the coordinates of draws (n, d) that have heavy tails.

        Args:
            heavy: distance from the median, in median absolute deviations, that only a heavy
                tail reaches.
        """
        center = y.median(dim=0).values
        distance = (y - center).abs()
        spread = distance.median(dim=0).values.clamp(min=1e-300)
        is_heavy = distance.amax(dim=0) > heavy * spread
        scale = torch.where(is_heavy, BEND * spread, math.inf)
        return cls(tuple(center.tolist()), tuple(scale.tolist()))

    @property
    def is_needed(self) -> bool:
        """Whether any coordinate is changed."""
        return any(math.isfinite(scale) for scale in self.scales)

    def straight_beyond(self, y: Tensor) -> TailCompression:
        """The same map up to the farthest of the draws (n, d), a straight line far beyond."""
        u = ((self.compress(y)[0] - y.new_tensor(self.centers)) / self._tensors(y)[1]).abs()
        edges = (BEYOND_DRAWS * u.amax(dim=0)).clamp(min=1.0)
        is_heavy = self._tensors(y)[2]
        return replace(self, edges=tuple(torch.where(is_heavy, edges, math.inf).tolist()))

    def compress(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Points (n, d) with light tails; also log |det| (n,), nats."""
        center, scale, is_heavy, edge = self._tensors(y)
        u, log_slope = straight_asinh((y - center) / scale, edge)
        compressed = torch.where(is_heavy, center + scale * u, y)
        return compressed, torch.where(is_heavy, log_slope, 0.0).sum(dim=1)

    def expand(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of :meth:`compress`, with its log |det| (n,), nats.

        Without an edge the log |det| is −∞ beyond ``MAX_COMPRESSED``, where there are no points.
        """
        center, scale, is_heavy, edge = self._tensors(v)
        u = (v - center) / scale
        no_points = is_heavy & (u.abs() > MAX_COMPRESSED) & edge.isinf()
        u = torch.where(no_points, u.clamp(-MAX_COMPRESSED, MAX_COMPRESSED), u)
        z, log_slope = straight_sinh(u, edge)
        expanded = torch.where(is_heavy, center + scale * z, v)
        log_det = torch.where(is_heavy, log_slope, 0.0).sum(dim=1)
        return expanded, torch.where(no_points.any(dim=1), -math.inf, log_det)

    def _tensors(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Centers, finite scales, which coordinates are changed, and edges."""
        scale = like.new_tensor(self.scales)
        is_heavy = scale.isfinite()
        center, edge = like.new_tensor(self.centers), like.new_tensor(self.edges)
        return center, torch.where(is_heavy, scale, 1.0), is_heavy, edge
