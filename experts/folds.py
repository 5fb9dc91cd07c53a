"""Draws with the member of an ensemble that holds each of them out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from amfvi.errors import FitError, InputError, UsageError
from amfvi.statistics import normalize_to_mean, normalize_to_sum

__all__ = ["TRAIN", "Folds", "select_member"]

TRAIN = -1
"""Fold number of a row that every member trains on."""

HELDOUT_SHARE = 0.2
"""Share of the rows that :meth:`Folds.from_array` holds out from a single member."""


@dataclass(frozen=True, eq=False)
class Folds:
    """Training and held-out draws of each member of an ensemble.

    Member f trains on every row whose fold is not f, stops early by the rows whose
    fold is f, and is the only member whose density at those rows is out of sample.
    One member and a fold of its own is the ordinary split into training and held-out.

    Attributes:
        draws: shape (n, d), float64.
        fold: shape (n,), int64: the member that holds the row out, 0 … F−1, or −1
            for a row that every member trains on.
        sample_weight: importance weight of each row, (n,), non-negative; only their
            ratios matter. None where all are equal.
        given: number of leading columns that are a condition c: experts are densities
            q(y | c) of the other columns.

    Examples:
        >>> folds = Folds(torch.arange(6.0).double()[:, None], torch.arange(6) % 3)
        >>> len(folds), folds.dim, folds.n_members
        (6, 1, 3)
        >>> folds.train_rows[0].tolist(), folds.heldout_rows[0].tolist()
        ([1, 2, 4, 5], [0, 3])
        >>> folds.first_member().fold.tolist()
        [0, -1, -1, 0, -1, -1]
    """

    draws: Tensor
    fold: Tensor
    sample_weight: Tensor | None = None
    given: int = 0

    @classmethod
    def holdout(cls, train: Tensor, heldout: Tensor) -> Folds:
        """One member: fitted to ``train`` (n, d), stopped by ``heldout`` (m, d)."""
        fold = torch.full((len(train) + len(heldout),), TRAIN)
        fold[len(train) :] = 0
        return cls(torch.cat([train, heldout]), fold)

    @classmethod
    def from_array(
        cls,
        x: Tensor | ArrayLike,
        *,
        n_folds: int,
        generator: torch.Generator,
        sample_weight: Tensor | ArrayLike | None = None,
        given: int = 0,
    ) -> Folds:
        """Assign draws (n, given + d) at random to ``n_folds`` folds of equal size.

        One dimension is taken for one column. With a single fold 20% of the draws are
        held out.

        Raises:
            InputError: draws or weights that are not finite real numbers of the right
                shape.
            UsageError: fewer draws than folds, or no fold.
        """
        draws = _as_real("draws", x)
        draws = draws[:, None] if draws.ndim == 1 else draws
        if draws.ndim != 2 or 0 in draws.shape:
            raise InputError(f"draws must have shape (n, d) or (n,), found {tuple(draws.shape)}")
        if not 0 <= given < draws.shape[1]:
            raise UsageError(
                f"given must be between 0 and {draws.shape[1] - 1}, so that a column is left to "
                f"be fitted, found {given}"
            )
        if n_folds < 1 or n_folds > len(draws):
            raise UsageError(
                f"folds must be between 1 and the number of draws ({len(draws)}), found {n_folds}"
            )
        weights = None if sample_weight is None else _as_real("sample_weight", sample_weight)
        if weights is not None and (
            weights.shape != draws.shape[:1] or bool((weights < 0).any() or weights.sum() <= 0)
        ):
            raise InputError(
                f"sample_weight must hold {len(draws)} non-negative numbers with a positive sum, "
                f"found shape {tuple(weights.shape)}"
            )
        fold = torch.arange(len(draws)) % n_folds
        if n_folds == 1:
            fold[max(1, round(HELDOUT_SHARE * len(draws))) :] = TRAIN
        order = torch.randperm(len(draws), generator=generator)
        return cls(draws, fold[order], weights, given)

    def __len__(self) -> int:
        return len(self.draws)

    @property
    def dim(self) -> int:
        """Number of coordinates d that a density is over."""
        return self.draws.shape[1] - self.given

    @cached_property
    def n_members(self) -> int:
        """Number of members F."""
        return int(self.fold.max()) + 1

    @cached_property
    def train_rows(self) -> list[Tensor]:
        """Row numbers each member trains on."""
        return [(self.fold != f).nonzero().squeeze(1) for f in range(self.n_members)]

    @cached_property
    def heldout_rows(self) -> list[Tensor]:
        """Row numbers each member holds out."""
        return [(self.fold == f).nonzero().squeeze(1) for f in range(self.n_members)]

    @cached_property
    def normalized_weights(self) -> Tensor:
        """Weight of each row, (n,), float64, 1 on average."""
        if self.sample_weight is None:
            return torch.ones(len(self), dtype=torch.float64)
        return normalize_to_mean(self.sample_weight.double())

    @cached_property
    def heldout_sample_weight(self) -> Tensor | None:
        """Weights of ``draws[is_heldout]``, summing to one; None where all are equal."""
        if self.sample_weight is None:
            return None
        return normalize_to_sum(self.normalized_weights[self.is_heldout])

    @cached_property
    def is_heldout(self) -> Tensor:
        """Rows that some member holds out, (n,): those the weights may rest on."""
        return self.fold != TRAIN

    def first_member(self) -> Folds:
        """The same rows for a single member: that which holds out fold 0."""
        return replace(self, fold=torch.where(self.fold == 0, 0, TRAIN))

    def at_most(self, n: int) -> Folds:
        """At most ``n`` of the rows, evenly spaced within each fold, whose shares stay as they are.

        Examples:
            >>> folds = Folds(torch.arange(9.0).double()[:, None], torch.arange(9) % 3)
            >>> folds.at_most(6).draws.flatten().tolist(), folds.at_most(9) is folds
            ([0.0, 1.0, 2.0, 6.0, 7.0, 8.0], True)
        """
        return self if len(self) <= n else self.subset(self.spread_rows(n))

    def spread_rows(self, n: int) -> Tensor:
        """Numbers of the rows of :meth:`at_most`, in ascending order.

        Examples:
            >>> Folds(torch.zeros(9, 1).double(), torch.arange(9) % 3).spread_rows(3)
            tensor([3, 4, 5])
        """
        if len(self) <= n:
            return torch.arange(len(self))
        by_fold = self.fold.argsort(stable=True)
        return by_fold[(2 * torch.arange(n) + 1) * len(self) // (2 * n)].sort().values

    def subset(self, rows: Tensor) -> Folds:
        """These rows alone.

        Examples:
            >>> folds = Folds(torch.arange(9.0).double()[:, None], torch.arange(9) % 3)
            >>> folds.subset(torch.tensor([0, 5])).fold
            tensor([0, 2])
        """
        weights = None if self.sample_weight is None else self.sample_weight[rows]
        return Folds(self.draws[rows], self.fold[rows], weights, self.given)

    def require_fittable(self, kind: str) -> None:
        """Reject draws no expert can be fitted to.

        Raises:
            FitError: too few rows or a non-finite value; the message names ``kind``.
        """
        if self.draws.ndim != 2 or self.fold.shape != self.draws.shape[:1]:
            raise FitError(
                f"{kind}: draws must be (n, d) with a fold for each, "
                f"found {tuple(self.draws.shape)} and {tuple(self.fold.shape)}"
            )
        weights = self.sample_weight
        if weights is not None and (
            weights.shape != self.fold.shape
            or not bool(torch.isfinite(weights).all() and (weights >= 0).all())
        ):
            raise FitError(f"{kind}: weights must be {len(self)} finite non-negative numbers")
        has_weight = self.normalized_weights > 0
        for f, (train, heldout) in enumerate(zip(self.train_rows, self.heldout_rows, strict=True)):
            if has_weight[train].sum() < 2 or has_weight[heldout].sum() < 1:
                raise FitError(
                    f"{kind}: needs at least 2 training draws and 1 held-out draw, "
                    f"found {len(train)} and {len(heldout)} in fold {f}"
                )
        if not bool(torch.isfinite(self.draws).all()):
            raise FitError(f"{kind}: the draws hold NaN or infinity")


def select_member(
    function: Callable[[Tensor], Tensor], points: Tensor, member: Tensor, n_members: int
) -> Tensor:
    """Evaluate each row by its own member only.

    Args:
        function: from (members, m, …) to (members, m), member by member.
        points: shape (n, …).
        member: shape (n,), 0 … n_members−1.

    Returns:
        Shape (n,), in the order of ``points``.

    Examples:
        >>> scales = torch.tensor([[1.0], [10.0]])
        >>> points, member = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 1, 0])
        >>> select_member(lambda x: scales * x, points, member, 2)
        tensor([ 1., 20.,  3.])
    """
    counts = torch.bincount(member, minlength=n_members)
    order = member.argsort(stable=True)
    starts = counts.cumsum(0) - counts
    position = torch.empty_like(member)
    position[order] = torch.arange(len(member), device=member.device) - starts[member[order]]
    # Members with fewer rows are padded with row 0, whose results are not read.
    longest = max(int(counts.max()), 1)
    index = torch.zeros(n_members, longest, dtype=torch.long, device=member.device)
    index[member, position] = torch.arange(len(member), device=member.device)
    return function(points[index])[member, position]


def _as_real(name: str, values: Tensor | ArrayLike) -> Tensor:
    """Finite real numbers as a float64 tensor on the CPU without a gradient."""
    if not isinstance(values, Tensor):
        try:
            array = np.asarray(values)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{name} must be an array of real numbers: {error}") from None
        if array.dtype.kind not in "iuf":
            raise InputError(
                f"{name} must be real numbers, found {type(values).__name__} of {array.dtype}"
            )
        values = torch.from_numpy(array.astype(np.float64))
    if values.is_complex() or values.dtype == torch.bool:
        raise InputError(f"{name} must be real numbers, found {values.dtype}")
    values = values.detach().to("cpu", torch.float64)
    is_finite = torch.isfinite(values)
    if not bool(is_finite.all()):
        first = tuple(int(i) for i in (~is_finite).nonzero()[0])
        raise InputError(
            f"{name} must be finite, found {float(values[first])} at index {first}; "
            "remove such rows"
        )
    return values
