"""Where a sampler may start, as users give it: a prior or a box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from amfvi.constraints.constraints import Constraints
from amfvi.errors import UsageError

__all__ = ["over_vectors", "parse_box"]


def over_vectors(prior: Distribution, dim: int) -> Distribution:
    """A distribution over vectors of ``dim`` numbers.

    Raises:
        UsageError: it is over something else.

    Examples:
        >>> over_vectors(torch.distributions.Normal(torch.zeros(2), 1.0), 2).event_shape
        torch.Size([2])
    """
    if not isinstance(prior, Distribution):
        raise UsageError(f"prior must be a torch distribution, found {type(prior).__name__}")
    if prior.event_shape == (dim,) and prior.batch_shape == ():
        return prior
    if prior.event_shape == () and prior.batch_shape == (dim,):
        return Independent(prior, 1)
    raise UsageError(
        f"prior must be over {dim} parameters, found batch shape {tuple(prior.batch_shape)} and "
        f"event shape {tuple(prior.event_shape)}"
    )


def parse_box(box: Sequence[Any], within: Constraints) -> tuple[Tensor, Tensor]:
    """Lower and upper corner (d,) of a box inside the bounds.

    Raises:
        UsageError: bounds that are not finite or not in order, or a constraint on a vector.

    Examples:
        >>> parse_box((-1, 5), Constraints((0.0,), (torch.inf,)))
        (tensor([0.], dtype=torch.float64), tensor([5.], dtype=torch.float64))
    """
    pairs = torch.as_tensor(box, dtype=torch.float64)
    if pairs.shape == (2,):
        pairs = pairs.expand(within.dim, 2)
    if pairs.shape != (within.dim, 2):
        raise UsageError(
            f"box must be {within.dim} pairs (lower, upper), found shape {tuple(pairs.shape)}"
        )
    if within.vectors:
        raise UsageError(
            "a box cannot start parameters with a constraint on a vector: give a prior"
        )
    lower = torch.maximum(pairs[:, 0], pairs.new_tensor(within.lower))
    upper = torch.minimum(pairs[:, 1], pairs.new_tensor(within.upper))
    if not bool((lower < upper).all() and pairs.isfinite().all()):
        raise UsageError(f"a box needs finite lower below upper bounds, found {pairs.tolist()}")
    return lower, upper
