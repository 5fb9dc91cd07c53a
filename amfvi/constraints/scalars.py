"""Constraints on one parameter, as users write them and as torch has them."""

from __future__ import annotations

import math
from typing import Any

from torch.distributions import constraints

from amfvi.errors import UsageError

__all__ = ["bounds_of", "scalar_constraint"]


NAMED = {
    "real": (-math.inf, math.inf),
    "positive": (0.0, math.inf),
    "nonnegative": (0.0, math.inf),
    "unit_interval": (0.0, 1.0),
}
"""Constraints that may be given by their name in torch.distributions.constraints."""


def bounds_of(constraint: Any) -> tuple[float, float]:
    """Lower and upper bound of one parameter, ±inf where there is none.

    Raises:
        UsageError: not a constraint that bounds a single parameter.

    Examples:
        >>> bounds_of((0, None)), bounds_of("positive")
        ((0.0, inf), (0.0, inf))
    """
    if constraint is None:
        return NAMED["real"]
    if isinstance(constraint, str) and constraint in NAMED:
        return NAMED[constraint]
    if isinstance(constraint, tuple | list) and len(constraint) == 2:
        low, high = constraint
        try:
            return (
                -math.inf if low is None else float(low),
                math.inf if high is None else float(high),
            )
        except (TypeError, ValueError):
            raise UsageError(f"bounds must be numbers or None, found {constraint!r}") from None
    if constraint is constraints.real:
        return NAMED["real"]
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
        f"unsupported constraint {constraint!r}: use a pair (lower, upper) with None for no bound, "
        f"one of {', '.join(map(repr, NAMED))}, or one of torch.distributions.constraints"
    )


def scalar_constraint(low: float, high: float) -> constraints.Constraint:
    """The constraint of torch with these bounds, ±inf where there is none.

    Examples:
        >>> scalar_constraint(0.0, math.inf)
        GreaterThan(lower_bound=0.0)
    """
    if math.isfinite(low) and math.isfinite(high):
        return constraints.interval(low, high)
    if math.isfinite(low):
        return constraints.positive if low == 0 else constraints.greater_than(low)
    return constraints.less_than(high) if math.isfinite(high) else constraints.real
