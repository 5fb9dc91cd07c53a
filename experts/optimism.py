"""Correction of an ensemble's densities for having been trained on the same draws."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

__all__ = ["average_members", "correct_optimism"]

MAX_SHORTFALL = 3.0
"""Nats by which a member may fall short of its ensemble when the optimism is measured."""

OPTIMISM_QUANTILE = 0.99
"""Quantile over the draws at which the optimism of a single draw is cut off."""


def average_members(log_q: Tensor) -> Tensor:
    """Log density (n,) of an ensemble from those of its members (members, n), nats.

    Examples:
        >>> import torch
        >>> average_members(torch.tensor([[0.0], [math.log(3.0)]])).exp()
        tensor([2.])
    """
    if len(log_q) == 1:
        return log_q[0]
    return log_q.logsumexp(dim=0) - math.log(len(log_q))


def correct_optimism(log_q: Tensor, member: Tensor, shares: Tensor | None) -> Tensor:
    """Lower an ensemble's log densities by how much its members favor their own draws.

    The optimism is one number: by how much the members rate a draw higher, on average,
    than the out-of-fold member does. The out-of-fold density itself would not do for
    weights: an expert whose members disagree gains most by averaging them, and would be
    rated too low. A single member is returned as it is.

    Args:
        log_q: log densities (members, m) of each member, nats.
        member: the member (m,) that did not train on each draw.
        shares: weights (m,) of the draws that sum to one, or None where all are equal.

    Returns:
        Shape (m,), nats.

    Examples:
        >>> import torch
        >>> log_q = torch.tensor([[-1.0, -2.0], [-2.0, -1.0]])  # each favors one draw
        >>> corrected = correct_optimism(log_q, torch.tensor([1, 0]), None)
        >>> corrected < average_members(log_q)
        tensor([True, True])
    """
    ensemble = average_members(log_q)
    if len(log_q) == 1:
        return ensemble
    out_of_fold = log_q.gather(0, member[None])[0]
    # A member that has diverged must not hide the optimism of the others.
    floored = log_q.clamp(min=ensemble - MAX_SHORTFALL)
    floored = floored.scatter(0, member[None], out_of_fold[None])
    excess = floored.mean(dim=0) - out_of_fold
    # A member far off at one draw says little about the ensemble.
    excess = excess.clamp(max=float(np.quantile(excess.cpu().numpy(), OPTIMISM_QUANTILE)))
    optimism = excess.mean() if shares is None else (shares.to(excess) * excess).sum()
    return ensemble - optimism
