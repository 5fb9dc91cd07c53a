"""A training problem: the loss of an ensemble, its start and its draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from amfvi.experts.flows.flow import Parameters
from amfvi.experts.folds import Folds

__all__ = ["Loss", "TrainingProblem", "evenly_spaced"]

Loss = Callable[[Parameters, Tensor], Tensor]
"""From parameters and points (members, d, n) to negative log densities (members, n), nats."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingProblem:
    """Loss, starting parameters and draws of an ensemble.

    Attributes:
        name: the expert's, for messages.
        nll: the loss that is differentiated.
        frozen_nll: the same, faster and without gradients.
        initial: parameters by name, each (members, …), on the device of ``draws``.
        masks: for each parameter 1 where it may change, shaped as for one member.
        draws: all draws as each member sees them, (members, d, n).
        folds: which draws each member trains on.
        noise: standard deviation of normal noise that is added to the points of every step.
        augment: appends to the points of every step, (members, d, n), the rows of random
            numbers that the loss needs besides.
        max_scored: most held-out rows, over all members, that the score is a mean over.
        rival_nll: held-out NLL of another fit, in the units of ``offset``; training ends when
            it is out of reach.
        offset: (members,), added to every reported NLL, so that curves are in the
            units of the unwhitened draws.

    Examples:
        >>> def nll(parameters, z):
        ...     return 0.5 * (z[:, 0] - parameters["mean"]).square()
        >>> draws = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
        >>> problem = TrainingProblem(
        ...     name="shift", nll=nll, frozen_nll=nll,
        ...     initial={"mean": torch.zeros(2, 1)}, masks={"mean": torch.ones(1)},
        ...     draws=draws.T.expand(2, 1, 4), folds=Folds(draws, torch.arange(4) % 2))
        >>> problem.heldout_score()(problem.initial)  # (0 + 1 + 4 + 9) / 8
        1.75
    """

    name: str
    nll: Loss
    frozen_nll: Loss
    initial: Parameters
    masks: Parameters
    draws: Tensor
    folds: Folds
    offset: Tensor | float = 0.0
    noise: float = 0.0
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None
    max_scored: int | None = None
    rival_nll: float | None = None

    @property
    def mean_offset(self) -> float:
        """Mean of ``offset`` over the members, nats."""
        return float(torch.as_tensor(self.offset).mean())

    def heldout_score(self) -> Callable[[Parameters], float]:
        """Build the function from parameters to the mean held-out NLL, nats.

        The mean is over all held-out draws, or some of each member, each scored by its
        out-of-fold member.
        """
        draws, folds = self.draws, self.folds
        rows = [r.to(draws.device) for r in folds.heldout_rows]
        if self.max_scored is not None:
            rows = [evenly_spaced(r, max(self.max_scored // len(rows), 1)) for r in rows]
        longest = max(len(r) for r in rows)
        index = torch.stack([torch.cat([r, r[:1].expand(longest - len(r))]) for r in rows])
        points = draws.gather(2, index[:, None].expand(-1, draws.shape[1], -1))
        counts = torch.tensor([len(r) for r in rows], device=draws.device)
        is_row = torch.arange(longest, device=draws.device) < counts[:, None]
        weights = None
        if folds.sample_weight is not None:
            weights = folds.normalized_weights.to(draws.device)[index][is_row]
        offset = torch.as_tensor(self.offset, dtype=torch.float64, device=draws.device)
        offset = offset.expand(len(rows))[:, None]

        @torch.no_grad()
        def score(parameters: Parameters) -> float:
            nll = (self.frozen_nll(parameters, points).double() + offset)[is_row]
            if weights is None:
                return float(nll.mean())
            return float((nll * weights).sum() / weights.sum())

        return score


def evenly_spaced(rows: Tensor, n: int) -> Tensor:
    """At most ``n`` of the rows, with the same distance between them.

    Examples:
        >>> evenly_spaced(torch.arange(10), 3).tolist(), evenly_spaced(torch.arange(2), 3).tolist()
        ([0, 3, 6], [0, 1])
    """
    return rows if len(rows) <= n else rows[torch.arange(n, device=rows.device) * len(rows) // n]
