"""How users write bounds: torch constraints, pairs of numbers, options of the command line."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from torch.distributions import constraints

from amfvi.errors import UsageError

__all__ = ["bounds_of", "columns_of", "parse_bounds", "parse_box", "split_names"]


def columns_of(key: Any, names: Sequence[str]) -> list[int]:
    """Which parameters a key of ``support=`` means.

    Raises:
        UsageError: none.
    """
    wanted = [key] if isinstance(key, str) else list(key)
    if isinstance(key, str) and key not in names:
        wanted = [name for name in names if name.partition("[")[0] == key]
    missing = [name for name in wanted if name not in names]
    if missing or not wanted:
        name = missing[0] if missing else key
        raise UsageError(f"no parameter {name!r} to bound (known: {', '.join(names)})")
    return [list(names).index(name) for name in wanted]


def bounds_of(constraint: Any) -> tuple[float, float]:
    """Lower and upper bound of one parameter, ±inf where there is none.

    Raises:
        UsageError: not a constraint that bounds a single parameter.
    """
    if constraint is None:
        return -math.inf, math.inf
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


def parse_box(
    given: Sequence[str] | None, dim: int | None, names: Sequence[str] | None
) -> list[tuple[float, float]] | None:
    """The command line's ``--box -5:5``, or ``--box a=0:1 --box b=-5:5`` for every parameter.

    Raises:
        UsageError: not of that form, or not for every parameter.
    """
    if not given:
        return None
    items = [part for text in given for part in split_names(text)]
    if len(items) == 1 and "=" not in items[0]:
        (pair,) = parse_bounds("", [f"all={items[0]}"]).values()
        return [pair] * (dim or 1)
    pairs = parse_bounds("", items)
    if names is None or set(pairs) != set(names):
        raise UsageError("--box wants LOW:HIGH for all, or NAME=LOW:HIGH for each of --names")
    return [pairs[name] for name in names]
