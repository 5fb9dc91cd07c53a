"""Draws with the member of an ensemble that holds each of them out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from amfvi.errors import FitError

__all__ = ["TRAIN", "Folds", "by_member"]

TRAIN = -1


@dataclass(frozen=True, eq=False)
class Folds:
    """What an expert is fitted to: an ensemble of members, each blind to its own fold.

    Member f trains on every row whose fold is not f, stops early by the rows whose
    fold is f, and is the only member whose density at those rows is out of sample.
    One member and a fold of its own is the ordinary split into training and held-out.

    Attributes:
        draws: shape (n, d), float64.
        fold: shape (n,), int64: the member that holds the row out, 0 … F−1, or −1
            for a row that every member trains on.
        weight: importance weight of each row, (n,), non-negative; only their ratios
            matter. None where all are equal.
    """

    draws: Tensor
    fold: Tensor
    weight: Tensor | None = None

    @classmethod
    def holdout(cls, train: Tensor, heldout: Tensor) -> Folds:
        """One member: fitted to ``train`` (n, d), stopped by ``heldout`` (m, d)."""
        fold = torch.full((len(train) + len(heldout),), TRAIN)
        fold[len(train) :] = 0
        return cls(torch.cat([train, heldout]), fold)

    def __len__(self) -> int:
        return len(self.draws)

    @property
    def dim(self) -> int:
        return self.draws.shape[1]

    @cached_property
    def members(self) -> int:
        return int(self.fold.max()) + 1

    @cached_property
    def train_rows(self) -> list[Tensor]:
        """Row numbers each member trains on."""
        return [(self.fold != f).nonzero().squeeze(1) for f in range(self.members)]

    @cached_property
    def heldout_rows(self) -> list[Tensor]:
        """Row numbers each member holds out."""
        return [(self.fold == f).nonzero().squeeze(1) for f in range(self.members)]

    @cached_property
    def weights(self) -> Tensor:
        """Weight of each row, (n,), float64, 1 on average."""
        if self.weight is None:
            return torch.ones(len(self), dtype=torch.float64)
        return self.weight.double() / self.weight.double().mean()

    @cached_property
    def heldout_weights(self) -> Tensor | None:
        """Weights of ``draws[is_heldout]``, summing to one; None where all are equal."""
        if self.weight is None:
            return None
        chosen = self.weights[self.is_heldout]
        return chosen / chosen.sum()

    @cached_property
    def is_heldout(self) -> Tensor:
        """Rows that some member holds out, (n,): those the weights may rest on."""
        return self.fold != TRAIN

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
        if self.weight is not None and (
            self.weight.shape != self.fold.shape
            or not bool(torch.isfinite(self.weight).all() and (self.weight >= 0).all())
        ):
            raise FitError(f"{kind}: weights must be {len(self)} finite non-negative numbers")
        used = self.weights > 0
        for f, (train, heldout) in enumerate(zip(self.train_rows, self.heldout_rows, strict=True)):
            if used[train].sum() < 2 or used[heldout].sum() < 1:
                raise FitError(
                    f"{kind}: needs at least 2 training draws and 1 held-out draw, "
                    f"found {len(train)} and {len(heldout)} in fold {f}"
                )
        if not bool(torch.isfinite(self.draws).all()):
            raise FitError(f"{kind}: the draws hold NaN or infinity")


def by_member(
    function: Callable[[Tensor], Tensor], points: Tensor, member: Tensor, members: int
) -> Tensor:
    """Each row through the one member that is its own.

    Args:
        function: from (members, m, …) to (members, m), member by member.
        points: shape (n, …).
        member: shape (n,), 0 … members−1.

    Returns:
        Shape (n,), in the order of ``points``.
    """
    counts = torch.bincount(member, minlength=members)
    order = member.argsort(stable=True)
    starts = counts.cumsum(0) - counts
    place = torch.empty_like(member)
    place[order] = torch.arange(len(member), device=member.device) - starts[member[order]]
    # Members with fewer rows are filled up with a row that is thrown away again.
    index = torch.zeros(members, max(int(counts.max()), 1), dtype=torch.long, device=member.device)
    index[member, place] = torch.arange(len(member), device=member.device)
    return function(points[index])[member, place]
