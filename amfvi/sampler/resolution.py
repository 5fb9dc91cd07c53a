"""Points of unconstrained space beyond the range or the resolution of floating-point numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from amfvi.constraints.transform import UnconstrainingTransform
from amfvi.density.calling import DOUBLE
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.errors import InputError

__all__ = [
    "MAX_EXPONENT",
    "MAX_MAGNITUDE",
    "evaluate_constrained",
    "evaluate_together",
    "evaluate_where_possible",
    "is_far_out",
    "is_resolved",
]

TOLERANCE = 1e-6
"""Relative error of a coordinate after a round trip from which it is not resolved."""

MAX_MAGNITUDE = 1e150
"""Absolute value of a parameter beyond which products and squares overflow."""

MAX_EXPONENT = 700.0
"""Absolute value of a parameter beyond which its exponential overflows. A search, which runs
uphill wherever that leads, takes a NaN from there for no density; draws do not."""

FAR_OUT = 1e100
"""Absolute value of a parameter that no posterior with a proper prior has much mass beyond."""

FAR_OUT_IN_SINGLE = 1e15
"""The same of a function that computes in single precision."""


def is_resolved(transform: UnconstrainingTransform, y: Tensor) -> Tensor:
    """Which points (n, d) survive a round trip through the user's parameters, (n,).

    The others are so near to a bound, or so far from one, that rounding or underflow has
    moved them: the log density there is of another point.

    Examples:
        >>> from amfvi.constraints.constraints import Constraints
        >>> transform = UnconstrainingTransform(Constraints((0.0,), (torch.inf,)))
        >>> is_resolved(transform, torch.tensor([[0.0], [-800.0]]).double())
        tensor([ True, False])
    """
    if transform.is_identity:
        return torch.ones(len(y), dtype=torch.bool)
    back = transform.to_unconstrained(transform.from_unconstrained(y))[0]
    return torch.isclose(back, y, rtol=TOLERANCE, atol=TOLERANCE).all(dim=1)


def is_far_out(density: UnconstrainedDensity, x: Tensor) -> Tensor:
    """Which points (n, d) of the user's parameters are at the end of the numbers, (n,).

    A density that does not fall off has mass there, up to where its function overflows.

    Examples:
        >>> from amfvi.density.log_density import LogDensity
        >>> density = UnconstrainedDensity(LogDensity(lambda x: -x.abs().sum(dim=1), 1))
        >>> is_far_out(density, torch.tensor([[1e99], [1e101]], dtype=torch.float64))
        tensor([False,  True])
    """
    in_double = density.log_density.vectorized.resolution <= DOUBLE
    return (x.abs() > (FAR_OUT if in_double else FAR_OUT_IN_SINGLE)).any(dim=1)


def evaluate_where_possible(
    density: UnconstrainedDensity,
    y: Tensor,
    *,
    gradient: bool,
    max_magnitude: float = MAX_MAGNITUDE,
) -> tuple[Tensor, Tensor]:
    """Evaluate a density, which is zero where floating-point numbers fail the user's function.

    The sampler goes of its own accord to points where a parameter is 1e200 or within 1e-200
    of a bound. There, squares overflow or underflow, and a sound function may return NaN.

    Args:
        y: shape (n, d).
        gradient: whether to compute it.
        max_magnitude: absolute value of a parameter up to which the function must not fail.

    Returns:
        Log densities (n,) in nats and gradients (n, d), or (n, 0) if not wanted.

    Raises:
        OutOfBudgetError: a limit was reached.
        InputError: the density is broken at an ordinary point.

    Examples:
        >>> from amfvi.density.log_density import LogDensity
        >>> density = LogDensity(lambda x: -x[:, 0], 1, constraints=[(0, None)])
        >>> y = torch.zeros(1, 1).double()
        >>> evaluate_where_possible(UnconstrainedDensity(density), y, gradient=False)[0]
        tensor([-1.], dtype=torch.float64)
    """

    def evaluate(points: Tensor) -> tuple[Tensor, Tensor]:
        if gradient:
            return density.log_prob_and_gradient(points)
        return density.log_prob(points), points.new_zeros(len(points), 0)

    try:
        return evaluate(y)
    except InputError:
        ordinary = _is_ordinary(density.transform, y, max_magnitude)
        if bool(ordinary.all()):
            raise
    log_p = y.new_full((len(y),), -math.inf)
    grad_p = y.new_zeros(len(y), y.shape[1] if gradient else 0)
    if bool(ordinary.any()):
        log_p[ordinary], grad_p[ordinary] = evaluate(y[ordinary])
    return log_p, grad_p


def evaluate_together(
    density: UnconstrainedDensity,
    batches: Sequence[Tensor],
    *,
    gradient: bool,
    max_magnitude: float = MAX_MAGNITUDE,
) -> list[tuple[Tensor, Tensor]]:
    """As :func:`evaluate_where_possible` for each of several batches.

    A pool of workers gets all of them at once. Without one they stay apart, since how points
    are grouped can change the last digit of a value.

    Args:
        batches: each of shape (k, d).
        gradient: whether to compute it.
        max_magnitude: as there.

    Raises:
        OutOfBudgetError: a limit was reached.
        InputError: the density is broken at an ordinary point.

    Examples:
        >>> from amfvi.density.log_density import LogDensity
        >>> density = UnconstrainedDensity(LogDensity(lambda x: -x.square().sum(dim=1), 1))
        >>> batches = [torch.ones(1, 1).double(), torch.zeros(2, 1).double()]
        >>> [log_p.tolist() for log_p, _ in evaluate_together(density, batches, gradient=False)]
        [[-1.0], [0.0, 0.0]]
    """
    sizes = [len(batch) for batch in batches]
    budget = density.budget
    budget.require(sum(sizes))
    if density.n_workers > 1 and len(batches) > 1:
        spent = budget.spent
        try:
            if gradient:
                log_p, grad_p = density.log_prob_and_gradient(torch.cat(list(batches)))
            else:
                log_p = density.log_prob(torch.cat(list(batches)))
                grad_p = log_p.new_zeros(len(log_p), 0)
        except InputError:  # of which batch, and whether it matters, is found below
            budget.spent = spent
        else:
            return list(zip(log_p.split(sizes), grad_p.split(sizes), strict=True))
    return [
        evaluate_where_possible(density, batch, gradient=gradient, max_magnitude=max_magnitude)
        for batch in batches
    ]


def evaluate_constrained(density: UnconstrainedDensity, x: Tensor) -> Tensor:
    """As :func:`evaluate_where_possible`, at points (n, d) of the user's parameters; (n,).

    −∞ outside the constraints, and so near to a bound that it is infinitely far.

    Raises:
        OutOfBudgetError: a limit was reached.
        InputError: the density is broken at an ordinary point.

    Examples:
        >>> from amfvi.density.log_density import LogDensity
        >>> density = LogDensity(lambda x: -x[:, 0], 1, constraints=[(0, None)])
        >>> x = torch.tensor([[1.0], [-1.0]]).double()
        >>> evaluate_constrained(UnconstrainedDensity(density), x)
        tensor([-1., -inf], dtype=torch.float64)
    """
    log_p = torch.full((len(x),), -math.inf, dtype=torch.float64)
    inside = density.constraints.contains(x).nonzero().squeeze(1)
    y, log_det = density.transform.to_unconstrained(x[inside])
    finite = y.isfinite().all(dim=1)
    values = evaluate_where_possible(density, y[finite], gradient=False)[0]
    log_p[inside[finite]] = values + log_det[finite]
    return log_p


def _is_ordinary(transform: UnconstrainingTransform, y: Tensor, max_magnitude: float) -> Tensor:
    """Which points (n, d) are resolved and have parameters of an ordinary magnitude, (n,)."""
    x = transform.from_unconstrained(y)
    bounds = torch.tensor([transform.constraints.lower, transform.constraints.upper])
    distance = (x[:, None] - bounds.to(x)).abs().amin(dim=1)
    in_range = (x.abs() < max_magnitude) & (distance > 1 / MAX_MAGNITUDE)
    return in_range.all(dim=1) & is_resolved(transform, y)
