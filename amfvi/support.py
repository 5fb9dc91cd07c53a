"""Bounds on parameters, and the change of variables that removes them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Transform, biject_to, constraints
from torch.distributions.transforms import AffineTransform, ComposeTransform, SoftplusTransform

from amfvi.errors import UsageError

__all__ = ["Support", "parse_bounds", "split_names"]

Constraint = constraints.Constraint
TURNS = (0.25, 1.0, 4.0)


@dataclass(frozen=True)
class Support:
    """An open box: a lower and an upper bound per parameter, ±inf where there is none.

    The bijection from R^d is a scaled logistic for an interval. For a half line it is
    s·softplus(y/s), which is exp near the bound and linear far from it, with s of
    ``turn``; exp all along where s is infinite.

    Attributes:
        lower, upper: the bounds.
        turn: s of each parameter, a distance from the bound; all infinite if not given.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    turn: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for low, high in zip(self.lower, self.upper, strict=True):
            if not low < high:
                raise UsageError(f"a lower bound must be below its upper bound, found {low}:{high}")
        if not self.turn:
            object.__setattr__(self, "turn", (math.inf,) * len(self.lower))

    def turned(self, x: Tensor, weight: Tensor | None = None) -> Support:
        """The same box with each ``turn`` that makes the points (n, d) inside most Gaussian.

        Chosen among a few multiples of the median distance from the bound, and infinity,
        by the likelihood of the best Gaussian of that parameter alone, as Box & Cox (1964)
        choose a power. A long tail of a logarithm becomes runaway draws when it is
        exponentiated; a parameter over several decades needs its logarithm.
        """
        turn = list(self.turn)
        share = x.new_ones(len(x)) if weight is None else weight
        share = share / share.sum()
        for i, (low, high) in enumerate(zip(self.lower, self.upper, strict=True)):
            if math.isfinite(low) == math.isfinite(high):
                continue
            median = float((x[:, i] - (low if math.isfinite(low) else high)).abs().median())
            candidates = [math.inf, *(factor * median for factor in TURNS if median > 0)]
            turn[i] = max(candidates, key=partial(self._gaussianity, x[:, i], share, i))
        return Support(self.lower, self.upper, tuple(turn))

    def _gaussianity(self, column: Tensor, share: Tensor, i: int, turn: float) -> float:
        one = Support((self.lower[i],), (self.upper[i],), (turn,))
        y, log_det = one.to_unconstrained(column[:, None])
        variance = share @ (y[:, 0] - share @ y[:, 0]).square()
        score = float(share @ log_det - variance.log() / 2)
        return score if math.isfinite(score) else -math.inf

    @classmethod
    def unbounded(cls, dim: int) -> Support:
        return cls((-math.inf,) * dim, (math.inf,) * dim)

    @classmethod
    def of(
        cls, names: Sequence[str], given: Mapping[str, Any] | Sequence[Any] | Support | None
    ) -> Support:
        """The support that a user wrote as ``support=``.

        Args:
            names: the parameters, in order.
            given: a mapping from name to constraint (others are unbounded), or one
                per parameter. A constraint is one of torch's ``real``, ``positive``,
                ``unit_interval``, ``interval``, ``greater_than``, ``less_than``, or
                a pair (lower, upper).

        Raises:
            UsageError: an unknown name or an unsupported constraint.
        """
        if given is None:
            return cls.unbounded(len(names))
        if isinstance(given, Support):
            if len(given.lower) != len(names):
                raise UsageError(
                    f"the support has {len(given.lower)} parameters, the draws {len(names)}"
                )
            return given
        if isinstance(given, Mapping):
            for name in given:
                if name not in names:
                    raise UsageError(f"no parameter {name!r} to bound (known: {', '.join(names)})")
            each = [given.get(name, constraints.real) for name in names]
        else:
            each = list(given)
            if len(each) != len(names):
                raise UsageError(f"support= has {len(each)} entries for {len(names)} parameters")
        bounds = [_bounds_of(c) for c in each]
        return cls(tuple(b[0] for b in bounds), tuple(b[1] for b in bounds))

    @property
    def dim(self) -> int:
        return len(self.lower)

    @property
    def bounded(self) -> bool:
        return any(map(math.isfinite, self.lower + self.upper))

    @property
    def constraint(self) -> Constraint:
        """The same as one torch constraint on vectors."""
        if not self.bounded:
            return constraints.real_vector
        each = [_constraint(*b) for b in zip(self.lower, self.upper, strict=True)]
        return constraints.stack(each, dim=-1)

    def contains(self, x: Tensor) -> Tensor:
        """Whether each point (n, d) is strictly inside; shape (n,)."""
        lower, upper = x.new_tensor(self.lower), x.new_tensor(self.upper)
        return ((x > lower) & (x < upper)).all(dim=1)

    def to_unconstrained(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Points inside (n, d) to R^d, with log |det dy/dx| (n,) in nats."""
        log_det = x.new_zeros(len(x))
        if not self.bounded:
            return x, log_det
        columns = list(x.unbind(dim=1))
        for i, transform in self._transforms():
            y = transform.inv(columns[i])
            log_det = log_det - transform.log_abs_det_jacobian(y, columns[i])
            columns[i] = y
        return torch.stack(columns, dim=1), log_det

    def from_unconstrained(self, y: Tensor) -> Tensor:
        """Points of R^d (n, d) into the box, strictly, even where rounding would leave it."""
        if not self.bounded:
            return y
        columns = list(y.unbind(dim=1))
        for i, transform in self._transforms():
            lower, upper = y.new_tensor(self.lower[i]), y.new_tensor(self.upper[i])
            inside = torch.nextafter(lower, upper), torch.nextafter(upper, lower)
            columns[i] = transform(columns[i]).clamp(*inside)
        return torch.stack(columns, dim=1)

    def _transforms(self) -> Iterable[tuple[int, Transform]]:
        for i, (low, high, s) in enumerate(zip(self.lower, self.upper, self.turn, strict=True)):
            if math.isfinite(low) == math.isfinite(high) or not math.isfinite(s):
                if math.isfinite(low) or math.isfinite(high):
                    yield i, biject_to(_constraint(low, high))
            else:
                outward = (
                    AffineTransform(low, s) if math.isfinite(low) else AffineTransform(high, -s)
                )
                yield (
                    i,
                    ComposeTransform([AffineTransform(0.0, 1 / s), SoftplusTransform(), outward]),
                )

    def to_json(self) -> list[list[float | None]]:
        """A [lower, upper, turn] per parameter, null for infinity."""
        return [
            [b if math.isfinite(b) else None for b in one]
            for one in zip(self.lower, self.upper, self.turn, strict=True)
        ]

    @classmethod
    def from_json(cls, each: Sequence[Sequence[float | None]]) -> Support:
        signs = (-1.0, 1.0, 1.0)
        lower, upper, turn = (
            tuple(sign * math.inf if one[k] is None else float(one[k]) for one in each)  # type: ignore[arg-type]
            for k, sign in enumerate(signs)
        )
        return cls(lower, upper, turn)


def _constraint(low: float, high: float) -> Constraint:
    if math.isfinite(low) and math.isfinite(high):
        return constraints.interval(low, high)
    if math.isfinite(low):
        return constraints.positive if low == 0 else constraints.greater_than(low)
    return constraints.less_than(high) if math.isfinite(high) else constraints.real


def _bounds_of(constraint: Any) -> tuple[float, float]:
    if isinstance(constraint, tuple | list) and len(constraint) == 2:
        low, high = constraint
        return (
            -math.inf if low is None else float(low),
            math.inf if high is None else float(high),
        )
    if constraint is constraints.real:
        return -math.inf, math.inf
    # ``positive`` is a greater_than and ``unit_interval`` an interval in torch.
    kinds = (
        type(constraints.positive),
        type(constraints.nonnegative),
        type(constraints.unit_interval),
        constraints.greater_than,
        constraints.greater_than_eq,
        constraints.less_than,
        constraints.interval,
        constraints.half_open_interval,
    )
    if isinstance(constraint, kinds):
        low = getattr(constraint, "lower_bound", -math.inf)
        high = getattr(constraint, "upper_bound", math.inf)
        return float(low), float(high)
    raise UsageError(
        f"unsupported constraint {constraint!r}: use real, positive, greater_than, less_than, "
        "interval, or a pair (lower, upper)"
    )


def split_names(text: str) -> list[str]:
    """Comma-separated names; commas inside brackets belong to a name.

    >>> split_names("tau, theta[1,2],mu")
    ['tau', 'theta[1,2]', 'mu']
    """
    return [name.strip() for name in re.split(r",(?![^\[]*\])", text) if name.strip()]


def parse_bounds(positive: str, bounds: Iterable[str]) -> dict[str, tuple[float, float]]:
    """The command line's ``--positive tau,sigma`` and ``--bounds p=0:1``.

    Raises:
        UsageError: not of that form.
    """
    support = {name: (0.0, math.inf) for name in split_names(positive)}
    for item in (part for text in bounds for part in split_names(text)):
        name, equals, interval = item.rpartition("=")
        low, colon, high = interval.partition(":")
        try:
            pair = (float(low or "-inf"), float(high or "inf"))
        except ValueError:
            colon = ""
        if not equals or not colon:
            raise UsageError(f"--bounds wants NAME=LOW:HIGH, found {item!r}")
        if name in support:
            raise UsageError(f"parameter {name!r} is bounded twice")
        support[name] = pair
    return support
