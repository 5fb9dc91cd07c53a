"""Checks of draws: what makes them impossible to fit, and what is suspicious about them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from amfvi.constraints.constraints import Constraints
from amfvi.constraints.transform import UnconstrainingTransform
from amfvi.draws.dependence import describe_collinear_pairs, describe_relations
from amfvi.draws.mixing import describe_mixing
from amfvi.errors import InputError
from amfvi.randomness import generator_for
from amfvi.statistics import effective_sample_size, weighted_subset

__all__ = ["find_suspicious_features", "require_enough", "require_inside", "require_varying"]

MIN_DRAWS = 20
"""Fewest draws, and least effective sample size, that can be split into folds at all."""

MIN_DRAWS_PER_PARAMETER = 3
"""Fewest draws per parameter: two folds less the test draws leave more than one."""

DRAWS_PER_PARAMETER = 50
"""Draws per parameter below which a warning is given."""

REPEATED_SHARE = 0.05
"""Share of repeated rows above which a warning is given."""

LARGE = 2.0**52
"""Size from which every floating-point number is an integer."""

TAIL_DRAWS = 500
"""Fewest draws from which tails and outliers are judged."""

HEAVY_TAIL_RATIO = 10.0
"""Range of the central 99.8%, in interquartile ranges, above which a tail is called heavy.

It is 4.6 for a normal distribution, 8.1 for a t with 5 and 13.4 for one with 3 degrees of
freedom.
"""

OUTLIER_RATIO = 50.0
"""Distance from the median, in interquartile ranges, above which a draw is an outlier."""

NAMES_SHOWN = 5
"""Names written out in a message before the rest are counted."""

Array = NDArray[np.float64]


def require_enough(n: int, d: int, n_coordinates: int, sample_weight: Tensor | None) -> None:
    """Reject too few draws, or draws of too small an effective sample size.

    Args:
        n, d: number of draws and of parameters.
        n_coordinates: number of unconstrained coordinates, which may be fewer than d.

    Raises:
        InputError: there are too few, as such or for so many parameters.

    Examples:
        >>> require_enough(3, 1, 1, None)
        Traceback (most recent call last):
        amfvi.errors.InputError: found 3 rows of draws, need at least 20
        >>> require_enough(30, 40, 40, None)
        Traceback (most recent call last):
        amfvi.errors.InputError: found 30 draws of 40 parameters, need at least 120; ...
    """
    if n < MIN_DRAWS:
        raise InputError(f"found {n} row{'s' * (n != 1)} of draws, need at least {MIN_DRAWS}")
    ess = float(n) if sample_weight is None else effective_sample_size(sample_weight)
    if ess < MIN_DRAWS:
        raise InputError(
            f"{n} weighted draws have an effective sample size of {ess:.1f}, need at least "
            f"{MIN_DRAWS}"
        )
    needed = MIN_DRAWS_PER_PARAMETER * n_coordinates
    if n < needed:
        raise InputError(
            f"found {n} draws of {d} parameters, need at least {needed}; with so few, some "
            "direction has no spread at all: give more draws or fewer parameters"
        )


def require_varying(values: Array, names: Sequence[str], constraints: Constraints) -> None:
    """Reject draws (n, d) with a constant column, unless its constraint makes it one.

    Raises:
        InputError: a column is constant.

    Examples:
        >>> x = np.array([[1.0, 7.5], [2.0, 7.5]])
        >>> require_varying(x, ["mu", "tau"], Constraints.unbounded(2))
        Traceback (most recent call last):
        amfvi.errors.InputError: column 'tau' is constant (7.5); ... leave it out
    """
    fixed = _fixed_columns(constraints)
    for number, (name, column) in enumerate(zip(names, values.T, strict=True)):
        if column.min() == column.max() and number not in fixed:
            raise InputError(
                f"column {name!r} is constant ({column[0]:g}); a density cannot be fitted "
                "to it, leave it out"
            )


def _fixed_columns(constraints: Constraints) -> set[int]:
    """Entries of Cholesky factors of correlations that are 0 or 1 in every one of them."""
    fixed = set()
    for vector in constraints.vectors:
        if vector.kind == "corr_cholesky":
            k = math.isqrt(vector.size)
            above = {vector.start + k * i + j for i in range(k) for j in range(i + 1, k)}
            fixed |= {vector.start, *above}
    return fixed


def require_inside(
    values: Tensor, names: Sequence[str], constraints: Constraints, row_numbers: Sequence[int]
) -> None:
    """Reject draws (n, d) that violate the constraints.

    Args:
        row_numbers: what the rows are called in the message.

    Raises:
        InputError: a draw is outside; gives the first.

    Examples:
        >>> import torch
        >>> positive = Constraints.parse(["tau"], [(0, None)])
        >>> require_inside(torch.tensor([[1.0], [-2.0]]), ["tau"], positive, [0, 1])
        Traceback (most recent call last):
        amfvi.errors.InputError: 1 draws of 'tau' are not inside ... is -2 at row 1
    """
    for vector in constraints.vectors:
        outside = ~vector.check(values[:, vector.columns])
        if bool(outside.any()):
            row = int(outside.nonzero()[0])
            raise InputError(
                f"{int(outside.sum())} draws of {', '.join(names[vector.columns])} violate the "
                f"{vector.kind} constraint; the first is "
                f"{values[row, vector.columns].tolist()} at row {row_numbers[row]}"
            )
    bounds = zip(constraints.lower, constraints.upper, strict=True)
    for name, column, (low, high) in zip(names, values.T, bounds, strict=True):
        outside = (column <= low) | (column >= high)
        if bool(outside.any()):
            row = int(outside.nonzero()[0])
            raise InputError(
                f"{int(outside.sum())} draws of {name!r} are not inside its bounds "
                f"({low:g}, {high:g}); the first is {float(column[row]):g} at row "
                f"{row_numbers[row]}"
            )


def find_suspicious_features(
    values: Tensor,
    names: Sequence[str],
    constraints: Constraints,
    sample_weight: Tensor | None,
    chain: Tensor | None = None,
    *,
    independent: bool = False,
) -> list[str]:
    """Describe what is suspicious, though not wrong, about draws (n, d).

    Tails and correlations are judged in unconstrained coordinates.

    Args:
        chain: the chain of each row, (n,), in the order in which it made them.
        independent: whether the rows are, whatever their order: no chain is judged then.

    Examples:
        >>> import torch
        >>> noise = torch.randn(100, 1, generator=torch.Generator().manual_seed(0)).double()
        >>> x = torch.cat([noise, (100 * noise).round().flip(0)], dim=1)
        >>> find_suspicious_features(x, ["mu", "k"], Constraints.unbounded(2), None)
        ["column 'k' holds integers only; a density describes continuous parameters"]
    """
    n, d = values.shape
    x = values.numpy()
    messages = [
        _describe_repeated_rows(x) if sample_weight is None else None,
        _describe_integer_columns(x, names, constraints),
        _describe_few_draws(n, d, sample_weight),
    ]
    if not independent:
        of_row = None if chain is None else chain.numpy()
        messages.append(describe_mixing(x, names, of_row, sample_weight))
    relations, dependent = describe_relations(values, names, constraints)
    if sample_weight is not None:
        n = int(effective_sample_size(sample_weight))
        values = weighted_subset(values, sample_weight, n, generator_for(0, "doubts"))
    transform = UnconstrainingTransform.fit(constraints, values)
    y = transform.to_unconstrained(values)[0].numpy()
    coordinates = constraints.unconstrained_names(names)
    messages += [*relations, describe_collinear_pairs(y, coordinates, dependent)]
    if n >= TAIL_DRAWS:
        heavy = _find_heavy_tails(y)
        messages.append(_describe_heavy_tails(coordinates, heavy))
        messages.append(_describe_outliers(coordinates, _find_outliers(y) & ~heavy))
    return [message for message in messages if message is not None]


def _describe_repeated_rows(x: Array) -> str | None:
    repeated = len(x) - len(np.unique(x, axis=0))
    if repeated <= REPEATED_SHARE * len(x):
        return None
    return (
        f"{repeated} of {len(x)} rows repeat an earlier row (rejected proposals of a sampler?); "
        "fewer distinct draws, less accuracy"
    )


def _describe_integer_columns(
    x: Array, names: Sequence[str], constraints: Constraints
) -> str | None:
    integer = np.asarray((x % 1 == 0).all(axis=0) & (np.abs(x).max(axis=0) < LARGE))
    integer[list(_fixed_columns(constraints))] = False
    if not integer.any():
        return None
    return (
        f"{_columns(names, integer, 'holds', 'hold')} integers only; a density describes "
        "continuous parameters"
    )


def _describe_few_draws(n: int, d: int, sample_weight: Tensor | None) -> str | None:
    ess = float(n) if sample_weight is None else effective_sample_size(sample_weight)
    if ess >= DRAWS_PER_PARAMETER * d:
        return None
    effective = "" if sample_weight is None else f" (effective sample size {ess:.0f})"
    return f"{n} draws{effective} of {d} parameters are few; {DRAWS_PER_PARAMETER * d} would do"


def _describe_heavy_tails(names: Sequence[str], heavy: NDArray[np.bool_]) -> str | None:
    if not heavy.any():
        return None
    return (
        f"{_columns(names, heavy, 'has', 'have')} heavy tails; experts with Gaussian tails "
        "put too little mass far out"
    )


def _describe_outliers(names: Sequence[str], outlying: NDArray[np.bool_]) -> str | None:
    if not outlying.any():
        return None
    return (
        f"{_columns(names, outlying, 'has', 'have')} a value over {OUTLIER_RATIO:.0f} "
        "interquartile ranges from its median; a single outlier widens every expert, remove it "
        "if it is not a draw of the posterior"
    )


def _find_heavy_tails(y: Array) -> NDArray[np.bool_]:
    low, high = np.quantile(y, [0.001, 0.999], axis=0)
    heavy: NDArray[np.bool_] = (high - low) / _interquartile_range(y) > HEAVY_TAIL_RATIO
    return heavy


def _find_outliers(y: Array) -> NDArray[np.bool_]:
    farthest = np.abs(y - np.median(y, axis=0)).max(axis=0)
    outlying: NDArray[np.bool_] = farthest / _interquartile_range(y) > OUTLIER_RATIO
    return outlying


def _interquartile_range(y: Array) -> Array:
    low, high = np.quantile(y, [0.25, 0.75], axis=0)
    return np.maximum(high - low, np.finfo(float).tiny)


def _columns(names: Sequence[str], chosen: NDArray[np.bool_], singular: str, plural: str) -> str:
    """The chosen columns as a subject, with its verb."""
    listed = [repr(name) for name, is_chosen in zip(names, chosen, strict=True) if is_chosen]
    shown = ", ".join(listed[:NAMES_SHOWN])
    if len(listed) == 1:
        return f"column {shown} {singular}"
    rest = len(listed) - NAMES_SHOWN
    return f"columns {shown}{f' and {rest} more' if rest > 0 else ''} {plural}"
