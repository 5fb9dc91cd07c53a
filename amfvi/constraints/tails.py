"""Compression of heavy tails: a change of variables after which they are light."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

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


@dataclass(frozen=True)
class TailCompression:
    """The map c + s·sinh⁻¹((y − c)/s) of each coordinate, the identity where s is infinite.

    Near the center it changes nothing, and a tail that falls as a power of the distance
    falls exponentially after it.

    Attributes:
        centers: c of each coordinate.
        scales: s of each coordinate.

    Raises:
        UsageError: numbers of other counts, or scales that are not positive.

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

    def __post_init__(self) -> None:
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

    def compress(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Points (n, d) with light tails; also log |det| (n,), nats."""
        center, scale, is_heavy = self._tensors(y)
        z = (y - center) / scale
        log_slope = -0.5 * torch.log1p(z.square())
        compressed = torch.where(is_heavy, center + scale * z.asinh(), y)
        return compressed, torch.where(is_heavy, log_slope, 0.0).sum(dim=1)

    def expand(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of :meth:`compress`, with its log |det| (n,), nats.

        The log |det| is −∞ beyond ``MAX_COMPRESSED``, where there are no points.
        """
        center, scale, is_heavy = self._tensors(v)
        u = (v - center) / scale
        beyond = (is_heavy & (u.abs() > MAX_COMPRESSED)).any(dim=1)
        u = u.clamp(-MAX_COMPRESSED, MAX_COMPRESSED)
        expanded = torch.where(is_heavy, center + scale * u.sinh(), v)
        log_det = torch.where(is_heavy, u.cosh().log(), 0.0).sum(dim=1)
        return expanded, torch.where(beyond, -math.inf, log_det)

    def _tensors(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Centers, finite scales, and which coordinates are changed."""
        scale = like.new_tensor(self.scales)
        is_heavy = scale.isfinite()
        return like.new_tensor(self.centers), torch.where(is_heavy, scale, 1.0), is_heavy
