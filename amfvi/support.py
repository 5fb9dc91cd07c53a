"""Bounds on parameters, and the change of variables that removes them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Transform, biject_to, constraints
from torch.distributions.transforms import AffineTransform, ComposeTransform, SoftplusTransform

from amfvi.blocks import Block, kind_of
from amfvi.bounds import bounds_of, columns_of
from amfvi.errors import UsageError

__all__ = ["Support"]

Constraint = constraints.Constraint
TURNS = (0.25, 1.0, 4.0)  # medians from the bound at which a half line may become linear


@dataclass(frozen=True)
class Support:
    """A lower and an upper bound per parameter, ±inf where there is none, and blocks.

    The bijection from R^d is a scaled logistic for an interval. For a half line it is
    s·softplus(y/s), which is exp near the bound and linear far from it, with s of
    ``turn``; exp all along where s is infinite.

    Attributes:
        lower, upper: the bounds.
        turn: s of each parameter, a distance from the bound; all infinite if not given.
        blocks: parameters that are bounded together; they have no bounds of their own.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    turn: tuple[float, ...] = ()
    blocks: tuple[Block, ...] = ()

    def __post_init__(self) -> None:
        for low, high in zip(self.lower, self.upper, strict=True):
            if not low < high:
                raise UsageError(f"a lower bound must be below its upper bound, found {low}:{high}")
        if not self.turn:
            object.__setattr__(self, "turn", (math.inf,) * len(self.lower))

    def turned(self, x: Tensor, weight: Tensor | None = None) -> Support:
        """The same support with each ``turn`` that makes the points (n, d) inside most Gaussian.

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
        return replace(self, turn=tuple(turn))

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
        cls, names: Sequence[str], given: Mapping[Any, Any] | Sequence[Any] | Support | None
    ) -> Support:
        """The support that a user wrote as ``support=``.

        Args:
            names: the parameters, in order.
            given: a mapping from name to constraint (others are unbounded), or one
                per parameter. A constraint is one of torch's ``real``, ``positive``,
                ``unit_interval``, ``interval``, ``greater_than``, ``less_than``, or
                a pair (lower, upper). In a mapping, a key may also be a tuple of names,
                or ``p`` for all of ``p[1], p[2], …``, and the constraint torch's
                ``simplex`` or ``corr_cholesky``, or ``amfvi.ordered``, on them together.

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
            each: list[Any] = [constraints.real] * len(names)
            blocks = []
            for key, constraint in given.items():
                columns = columns_of(key, names)
                while isinstance(constraint, constraints.independent):
                    constraint = constraint.base_constraint
                if kind := kind_of(constraint):
                    if columns != list(range(columns[0], columns[-1] + 1)):
                        raise UsageError(f"the parameters of {key!r} must be neighbours, in order")
                    blocks.append(Block(kind, columns[0], len(columns)))
                for i in columns:
                    each[i] = constraints.real if kind else constraint
        else:
            each, blocks = list(given), []
            if len(each) != len(names):
                raise UsageError(f"support= has {len(each)} entries for {len(names)} parameters")
        bounds = [bounds_of(c) for c in each]
        lower, upper = tuple(b[0] for b in bounds), tuple(b[1] for b in bounds)
        return cls(lower, upper, blocks=tuple(blocks))

    @property
    def dim(self) -> int:
        """Number of parameters."""
        return len(self.lower)

    @property
    def free(self) -> int:
        """Number of unconstrained coordinates; fewer than ``dim`` for a simplex."""
        return self.dim + sum(block.free - block.size for block in self.blocks)

    @property
    def bounded(self) -> bool:
        return bool(self.blocks) or any(map(math.isfinite, self.lower + self.upper))

    @property
    def constraint(self) -> Constraint:
        """The same as one torch constraint on vectors."""
        if not self.bounded:
            return constraints.real_vector
        if self.blocks:
            return _Within(self)
        each = [_constraint(*b) for b in zip(self.lower, self.upper, strict=True)]
        return constraints.stack(each, dim=-1)

    def contains(self, x: Tensor) -> Tensor:
        """Whether each point (n, d) is inside, strictly for bounds; shape (n,)."""
        lower, upper = x.new_tensor(self.lower), x.new_tensor(self.upper)
        inside = ((x > lower) & (x < upper)).all(dim=1)
        for block in self.blocks:
            inside = inside & block.check(x[:, block.columns])
        return inside

    def to_unconstrained(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Points inside (n, d) to R^free, with log |det dy/dx| (n,) in nats."""
        log_det = x.new_zeros(len(x))
        if not self.bounded:
            return x, log_det
        columns = []
        for piece in self._pieces:
            value = x[:, piece.columns]
            if piece.transform is not None:
                y = piece.transform.inv(value)
                log_det = log_det - _log_slope(piece.transform, y, value)
                value = y
            columns.append(value)
        return torch.cat(columns, dim=1), log_det

    def from_unconstrained(self, y: Tensor) -> Tensor:
        """Points of R^free (n, free) into the support, strictly, even where rounding
        would leave its bounds."""
        return self.from_unconstrained_with_log_det(y)[0]

    def from_unconstrained_with_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`from_unconstrained`, with log |det dx/dy| (n,) in nats."""
        log_det = y.new_zeros(len(y))
        if not self.bounded:
            return y, log_det
        columns, used = [], 0
        for piece in self._pieces:
            value = y[:, used : used + piece.free]
            used += piece.free
            if piece.transform is not None:
                x = piece.transform(value)
                log_det = log_det + _log_slope(piece.transform, value, x)
                i = piece.columns.start
                lower, upper = y.new_tensor(self.lower[i]), y.new_tensor(self.upper[i])
                inside = torch.nextafter(lower, upper), torch.nextafter(upper, lower)
                value = x.clamp(*inside)
            columns.append(value)
        return torch.cat(columns, dim=1), log_det

    def free_labels(self, names: Sequence[str]) -> list[str]:
        """A name for each unconstrained coordinate, given those of the parameters."""
        labels: list[str] = []
        for piece in self._pieces:
            known = names[piece.columns]
            labels += (
                known
                if piece.free == len(known)
                else [
                    f"free coordinate {k + 1} of {known[0]} … {known[-1]}"
                    for k in range(piece.free)
                ]
            )
        return labels

    @cached_property
    def _pieces(self) -> list[_Piece]:
        """The parts that are transformed on their own, in order of their columns."""
        within = {k: block for block in self.blocks for k in range(self.dim)[block.columns]}
        pieces = []
        for i, (low, high, s) in enumerate(zip(self.lower, self.upper, self.turn, strict=True)):
            block = within.get(i)
            if block is None:
                pieces.append(_Piece(slice(i, i + 1), 1, _bijection(low, high, s)))
            elif i == block.start:
                pieces.append(_Piece(block.columns, block.free, block.transform))
        return pieces

    def to_json(self) -> dict[str, Any]:
        """Bounds as a [lower, upper, turn] per parameter, null for infinity, and blocks."""
        return {
            "bounds": [
                [b if math.isfinite(b) else None for b in one]
                for one in zip(self.lower, self.upper, self.turn, strict=True)
            ],
            "blocks": [asdict(block) for block in self.blocks],
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Support:
        def column(k: int, unbounded: float) -> tuple[float, ...]:
            return tuple(unbounded if one[k] is None else float(one[k]) for one in fields["bounds"])

        blocks = tuple(Block(**block) for block in fields["blocks"])
        return cls(column(0, -math.inf), column(1, math.inf), column(2, math.inf), blocks)


class _Piece(NamedTuple):
    columns: slice
    free: int
    transform: Transform | None


class _Within(constraints.Constraint):
    """A support with blocks, as a constraint on vectors."""

    event_dim = 1

    def __init__(self, support: Support) -> None:
        self.support = support
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return self.support.contains(value.reshape(-1, self.support.dim)).reshape(value.shape[:-1])


def _log_slope(transform: Transform, y: Tensor, x: Tensor) -> Tensor:
    """log |det dx/dy| (n,) of a column or a block."""
    log_det = transform.log_abs_det_jacobian(y, x)
    return log_det.squeeze(1) if log_det.ndim == 2 else log_det


def _bijection(low: float, high: float, turn: float) -> Transform | None:
    """From the line to an interval or a half line; None for the line."""
    if not math.isfinite(low) and not math.isfinite(high):
        return None
    interval = math.isfinite(low) and math.isfinite(high)
    if interval or not math.isfinite(turn):
        return biject_to(_constraint(low, high))
    outward = AffineTransform(low, turn) if math.isfinite(low) else AffineTransform(high, -turn)
    return ComposeTransform([AffineTransform(0.0, 1 / turn), SoftplusTransform(), outward])


def _constraint(low: float, high: float) -> Constraint:
    if math.isfinite(low) and math.isfinite(high):
        return constraints.interval(low, high)
    if math.isfinite(low):
        return constraints.positive if low == 0 else constraints.greater_than(low)
    return constraints.less_than(high) if math.isfinite(high) else constraints.real
