"""The change of variables that removes constraints, with its Jacobian."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Transform, biject_to
from torch.distributions.transforms import AffineTransform, ComposeTransform, SoftplusTransform

from amfvi.constraints.constraints import Constraints
from amfvi.constraints.scalars import scalar_constraint
from amfvi.constraints.soft_clamp import SoftClamp
from amfvi.constraints.tails import PERHAPS_HEAVY, TailCompression
from amfvi.errors import UsageError

__all__ = ["UnconstrainingTransform"]

SCALE_FACTORS = (0.25, 1.0, 4.0)
"""Candidate softplus scales, in medians of the distance from the bound."""


@dataclass(frozen=True)
class UnconstrainingTransform:
    """A bijection between constrained parameters and R^m.

    An interval is mapped by a scaled logistic function, or with a finite scale s by a soft
    clamp of that width. With a scale of zero it is not mapped: a density on the line is
    reflected at its bounds (:class:`~amfvi.experts.ReflectedExpert`).

    A half line is mapped by s·softplus(y/s), which is exp near the bound and linear far from it;
    with an infinite scale s it is exp everywhere. Vectors are mapped by torch's ``biject_to``.
    Then heavy tails may be compressed.

    Attributes:
        constraints: what is removed.
        softplus_scales: s of each parameter, a distance from its bound; all infinite if
            not given. Zero for an interval at whose bounds a density is reflected.
        compression: of heavy tails of the unconstrained coordinates, if any.

    Raises:
        UsageError: scales that are not one positive number per parameter.

    Examples:
        >>> transform = UnconstrainingTransform(Constraints((0.0,), (math.inf,)))
        >>> y, log_det = transform.to_unconstrained(torch.tensor([[1.0]]))
        >>> y, log_det
        (tensor([[0.]]), tensor([0.]))
    """

    constraints: Constraints
    softplus_scales: tuple[float, ...] = ()
    compression: TailCompression | None = None

    def __post_init__(self) -> None:
        if self.compression and len(self.compression.scales) != self.constraints.unconstrained_dim:
            raise UsageError(
                f"a compression of {self.constraints.unconstrained_dim} tails is needed, found "
                f"one of {len(self.compression.scales)}"
            )
        if not self.softplus_scales:
            object.__setattr__(self, "softplus_scales", (math.inf,) * self.constraints.dim)
        are_valid = len(self.softplus_scales) == self.constraints.dim and all(
            scale > 0 or (scale == 0 and i in self.intervals)
            for i, scale in enumerate(self.softplus_scales)
        )
        if not are_valid:
            raise UsageError(
                f"softplus scales must be {self.constraints.dim} positive numbers, or zero for an "
                f"interval, found {list(self.softplus_scales)}"
            )

    @classmethod
    def fit(
        cls, constraints: Constraints, x: Tensor, sample_weight: Tensor | None = None
    ) -> UnconstrainingTransform:
        """Choose the scale of each half line that makes draws (n, d) most Gaussian.

        The choice is among a few multiples of the median distance from the bound, and
        infinity, by the likelihood of the best Gaussian for that parameter alone, as
        Box & Cox (1964) choose a power. Exponentiating a long tail of a logarithm makes
        extreme draws; a parameter over several decades needs its logarithm.
        """
        scales = [math.inf] * constraints.dim
        share = x.new_ones(len(x)) if sample_weight is None else sample_weight
        share = share / share.sum()
        for i, (low, high) in enumerate(zip(constraints.lower, constraints.upper, strict=True)):
            if math.isfinite(low) == math.isfinite(high):
                continue
            median = float((x[:, i] - (low if math.isfinite(low) else high)).abs().median())
            candidates = [math.inf, *(factor * median for factor in SCALE_FACTORS if median > 0)]
            scalar = Constraints((low,), (high,))
            scales[i] = max(candidates, key=partial(_gaussianity, scalar, x[:, i], share))
        return cls(constraints, tuple(scales))

    def to_json(self) -> dict[str, Any]:
        """Constraints, scales and compression as JSON values; None stands for infinity."""
        tails, compression = self.compression, None
        if tails is not None:
            compression = {
                "centers": list(tails.centers),
                "scales": _without_infinity(tails.scales),
                "edges": _without_infinity(tails.edges),
            }
        return {
            "constraints": self.constraints.to_json(),
            "softplus_scales": _without_infinity(self.softplus_scales),
            "compression": compression,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> UnconstrainingTransform:
        """Rebuild the transform that :meth:`to_json` described.

        Raises:
            KeyError, TypeError, ValueError: other fields than those.
        """
        constraints = Constraints.from_json(fields["constraints"])
        scales = _with_infinity(fields["softplus_scales"])
        tails, compression = fields.get("compression"), None
        if tails is not None:
            centers = tuple(float(center) for center in tails["centers"])
            # Models saved before there were edges have none.
            edges = _with_infinity(tails.get("edges", []))
            compression = TailCompression(centers, _with_infinity(tails["scales"]), edges)
        return cls(constraints, scales, compression)

    @cached_property
    def intervals(self) -> tuple[int, ...]:
        """The parameters that are each in an interval of their own."""
        bounds = zip(self.constraints.lower, self.constraints.upper, strict=True)
        in_vector = {
            i
            for vector in self.constraints.vectors
            for i in range(self.constraints.dim)[vector.columns]
        }
        return tuple(
            i
            for i, (low, high) in enumerate(bounds)
            if math.isfinite(low) and math.isfinite(high) and i not in in_vector
        )

    @property
    def reflecting(self) -> tuple[Tensor, Tensor] | None:
        """Bounds (m,) at which a density over unconstrained space is reflected, or None.

        Infinite for the coordinates at whose bounds it is not.
        """
        if 0.0 not in self.softplus_scales:
            return None
        low, high = torch.full((2, self.constraints.unconstrained_dim), math.inf).double()
        used = 0
        for part in self._parts:
            i = part.columns.start
            if self.softplus_scales[i] == 0:
                low[used], high[used] = self.constraints.lower[i], self.constraints.upper[i]
            used += part.unconstrained_size
        return low, high

    @property
    def is_identity(self) -> bool:
        """Whether nothing is changed."""
        return self.compression is None and not self.constraints.is_constrained

    def with_compressed_tails(self, x: Tensor) -> UnconstrainingTransform:
        """The same transform with the tails compressed that are heavy in draws (n, d).

        Of unconstrained parameters alone: the logarithm of a distance from a bound is
        compressed already.
        """
        y = replace(self, compression=None).to_unconstrained(x)[0]
        y = y[y.isfinite().all(dim=1)]
        compression = TailCompression.fit(y, PERHAPS_HEAVY)
        is_free = [
            part.bijection is None for part in self._parts for _ in range(part.unconstrained_size)
        ]
        scales = [
            s if free else math.inf for s, free in zip(compression.scales, is_free, strict=True)
        ]
        compression = replace(compression, scales=tuple(scales)).straight_beyond(y)
        return replace(self, compression=compression if compression.is_needed else None)

    def to_unconstrained(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map points inside (n, d) to R^m, with log |det dy/dx| (n,) in nats."""
        y, log_det = self._remove_constraints(x)
        if self.compression is None:
            return y, log_det
        y, log_slope = self.compression.compress(y)
        return y, log_det + log_slope

    def _remove_constraints(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(len(x))
        if not self.constraints.is_constrained:
            return x, log_det
        columns = []
        for part in self._parts:
            value = x[:, part.columns]
            if part.bijection is not None:
                y = part.bijection.inv(value)
                log_det = log_det - _log_slope(part.bijection, y, value)
                value = y
            columns.append(value)
        return torch.cat(columns, dim=1), log_det

    def from_unconstrained(self, y: Tensor) -> Tensor:
        """Map points of R^m (n, m) strictly inside the constraints, whatever the rounding."""
        return self.from_unconstrained_with_log_det(y)[0]

    def from_unconstrained_with_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`from_unconstrained`, with log |det dx/dy| (n,) in nats."""
        log_det = y.new_zeros(len(y))
        if self.compression is not None:
            y, log_det = self.compression.expand(y)
        if not self.constraints.is_constrained:
            return y, log_det
        columns, used = [], 0
        for part in self._parts:
            value = y[:, used : used + part.unconstrained_size]
            used += part.unconstrained_size
            if part.bijection is not None:
                x = part.bijection(value)
                log_det = log_det + _log_slope(part.bijection, value, x)
                i = part.columns.start
                lower = y.new_tensor(self.constraints.lower[i])
                upper = y.new_tensor(self.constraints.upper[i])
                inside = torch.nextafter(lower, upper), torch.nextafter(upper, lower)
                value = x.clamp(*inside)
            columns.append(value)
        return torch.cat(columns, dim=1), log_det

    @cached_property
    def _parts(self) -> list[_Part]:
        """The groups of columns that are mapped on their own, in order."""
        bounds = zip(
            self.constraints.lower, self.constraints.upper, self.softplus_scales, strict=True
        )
        inside = {
            i: vector
            for vector in self.constraints.vectors
            for i in range(self.constraints.dim)[vector.columns]
        }
        parts = []
        for i, (low, high, scale) in enumerate(bounds):
            vector = inside.get(i)
            if vector is None:
                parts.append(_Part(slice(i, i + 1), 1, _bijection(low, high, scale)))
            elif i == vector.start:
                parts.append(_Part(vector.columns, vector.unconstrained_size, vector.transform))
        return parts


class _Part(NamedTuple):
    columns: slice
    unconstrained_size: int
    bijection: Transform | None


def _gaussianity(scalar: Constraints, column: Tensor, share: Tensor, scale: float) -> float:
    """Log likelihood of the best Gaussian for one parameter (n,), up to a constant."""
    y, log_det = UnconstrainingTransform(scalar, (scale,)).to_unconstrained(column[:, None])
    variance = share @ (y[:, 0] - share @ y[:, 0]).square()
    score = float(share @ log_det - variance.log() / 2)
    return score if math.isfinite(score) else -math.inf


def _log_slope(bijection: Transform, y: Tensor, x: Tensor) -> Tensor:
    """log |det dx/dy| (n,) of one part."""
    log_det = bijection.log_abs_det_jacobian(y, x)
    return log_det.squeeze(1) if log_det.ndim == 2 else log_det


def _bijection(low: float, high: float, scale: float) -> Transform | None:
    """The map from the line to an interval or a half line; None for the line."""
    if not math.isfinite(low) and not math.isfinite(high):
        return None
    interval = math.isfinite(low) and math.isfinite(high)
    if interval and scale == 0:
        return None
    if interval and math.isfinite(scale):
        return SoftClamp(low, high, scale)
    if not math.isfinite(scale):
        return biject_to(scalar_constraint(low, high))
    outward = AffineTransform(low, scale) if math.isfinite(low) else AffineTransform(high, -scale)
    return ComposeTransform([AffineTransform(0.0, 1 / scale), SoftplusTransform(), outward])


def _without_infinity(scales: tuple[float, ...]) -> list[float | None]:
    return [scale if math.isfinite(scale) else None for scale in scales]


def _with_infinity(scales: list[float | None]) -> tuple[float, ...]:
    return tuple(math.inf if scale is None else float(scale) for scale in scales)
