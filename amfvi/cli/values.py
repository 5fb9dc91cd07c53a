"""How values of options are read: names, bounds and intervals."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from amfvi.errors import UsageError

if TYPE_CHECKING:
    from amfvi.experts import ExpertConfig

__all__ = ["choose_experts", "parse_bounds", "parse_box", "split_names"]


def split_names(text: str) -> list[str]:
    """Split comma-separated names; commas inside brackets belong to a name.

    Examples:
        >>> split_names("tau, theta[1,2],mu")
        ['tau', 'theta[1,2]', 'mu']
    """
    return [name.strip() for name in re.split(r",(?![^\[]*\])", text) if name.strip()]


def choose_experts(
    names: Sequence[str], settings: Iterable[str] | None
) -> Sequence[str] | dict[str, ExpertConfig]:
    """Read ``--experts`` and ``--set maf.layers=8``; the names alone where nothing is set.

    Raises:
        UsageError: not of that form, an expert that is not among them, or no such setting.

    Examples:
        >>> choose_experts(["maf", "gmm"], ["maf.layers=8"])["maf"].layers
        8
    """
    if not settings:
        return names
    from amfvi.experts import resolve

    configs = resolve(names)
    changes: dict[str, dict[str, Any]] = {}
    for item in settings:
        where, equals, text = item.partition("=")
        expert, _, setting = where.strip().rpartition(".")
        if not (equals and expert and setting):
            raise UsageError(f"--set wants EXPERT.SETTING=VALUE, found {item!r}")
        if expert not in configs:
            raise UsageError(
                f"{item!r} is a setting of {expert}, which is not among --experts "
                f"{','.join(configs)}"
            )
        changes.setdefault(expert, {})[setting] = _value(text)
    for expert, changed in changes.items():
        config = configs[expert]
        configs[expert] = type(config).from_json({**config.to_json(), **changed})
    return configs


def _value(text: str) -> Any:
    """A number or truth value as TOML has it; everything else is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def parse_bounds(positive: str, bounds: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Read ``--positive tau,sigma`` and ``--bounds p=0:1`` as (lower, upper) by name.

    Raises:
        UsageError: not of that form.

    Examples:
        >>> parse_bounds("tau", ["p=0:1"])
        {'tau': (0.0, inf), 'p': (0.0, 1.0)}
    """
    constraints = {name: (0.0, math.inf) for name in split_names(positive)}
    for name, pair in _named_intervals("--bounds", bounds):
        if name in constraints:
            raise UsageError(f"parameter {name!r} is bounded twice")
        constraints[name] = pair
    return constraints


def parse_box(
    values: Sequence[str] | None, dim: int | None, names: Sequence[str] | None
) -> list[tuple[float, float]] | None:
    """Read ``--box -5:5``, or ``--box a=0:1 --box b=-5:5`` for every parameter.

    Raises:
        UsageError: not of that form, or not for every parameter.

    Examples:
        >>> parse_box(["-5:5"], 2, None)
        [(-5.0, 5.0), (-5.0, 5.0)]
    """
    if not values:
        return None
    items = [part for text in values for part in split_names(text)]
    if len(items) == 1 and "=" not in items[0]:
        pair = _interval("--box", items[0], items[0], "LOW:HIGH or NAME=LOW:HIGH")
        return [pair] * (dim or 1)
    pairs = _named_intervals("--box", items)
    boxes = dict(pairs)
    if names is None or len(boxes) != len(pairs) or set(boxes) != set(names):
        raise UsageError("--box wants LOW:HIGH for all, or NAME=LOW:HIGH for each of --names")
    return [boxes[name] for name in names]


def _named_intervals(flag: str, values: Iterable[str]) -> list[tuple[str, tuple[float, float]]]:
    """Read ``NAME=LOW:HIGH`` as (name, (low, high)); several may stand in one value."""
    pairs = []
    for item in (part for text in values for part in split_names(text)):
        name, _, interval = item.rpartition("=")
        if not name:
            raise UsageError(f"{flag} wants NAME=LOW:HIGH, found {item!r}")
        pairs.append((name, _interval(flag, interval, item, "NAME=LOW:HIGH")))
    return pairs


def _interval(flag: str, text: str, item: str, form: str) -> tuple[float, float]:
    """Read ``LOW:HIGH``, either of which may be empty; ``item`` is what the user wrote."""
    low, colon, high = text.partition(":")
    try:
        pair = (float(low or "-inf"), float(high or "inf"))
    except ValueError:
        colon = ""
    if not colon:
        raise UsageError(f"{flag} wants {form}, found {item!r}")
    return pair
