"""The command line that makes a run again, from its saved settings."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from typing import Any

from amfvi.experts import DEFAULT
from amfvi.two_stage.options import FitOptions

__all__ = ["command_of"]

VALUES = (
    "weight_rule", "beta", "n_draws", "n_weight_draws", "folds", "test_fraction",
    "max_evaluations", "max_refinements", "timeout", "seed", "device",
)  # fmt: skip
"""Options with one value, whose flags have their names."""

DEFAULT_TEST_FRACTION = 0.15
"""Share of the draws that is set aside if not given."""


def command_of(config: Mapping[str, Any]) -> str:
    """Write the command that makes a run again.

    Flags that have their default are left out. Settings of experts that were changed in Python
    have no flags, so the command then fits with those that they have by default.

    Args:
        config: what ``config.json`` holds.

    Examples:
        >>> command_of({"target": "banana", "experts": {"gmm": {"kind": "gmm"}}, "seed": 3})
        'amfvi fit --target banana --experts gmm --seed 3'
        >>> command_of({"draws": "my draws.csv", "constraints": {"tau": [0.0, float("inf")]}})
        "amfvi fit --draws 'my draws.csv' --positive tau"
    """
    words = ["amfvi", "fit", *_source(config)]
    kinds = [str(expert.get("kind", name)) for name, expert in config.get("experts", {}).items()]
    default = DEFAULT if isinstance(DEFAULT, str) else ",".join(map(str, DEFAULT))
    if kinds and ",".join(kinds) != default:
        words += ["--experts", ",".join(kinds)]
    defaults = FitOptions()
    wanted = {**config}
    if "n_draws_asked" in config:
        wanted["n_draws"] = config["n_draws_asked"]
    if config.get("test_fraction") == DEFAULT_TEST_FRACTION:
        wanted["test_fraction"] = None
    for name in VALUES:
        value = wanted.get(name)
        if value is not None and value != getattr(defaults, name):
            words += [f"--{name.replace('_', '-')}", _text(value)]
    if config.get("out"):
        words += ["--out", str(config["out"])]
    return shlex.join(words)


def _source(config: Mapping[str, Any]) -> list[str]:
    words = []
    if "data" in config:  # pairs
        given = config.get("given")
        words += ["--target" if given is None else "--draws", str(config["data"])]
        words += [] if given is None else ["--given", ",".join(given)]
    for name in ("target", "draws", "log_density", "dim", "nan_policy"):
        if config.get(name) is not None:
            words += [f"--{name.replace('_', '-')}", str(config[name])]
    if config.get("by_density"):
        words += ["--from", "density"]
    if config.get("chains"):
        words.append("--chains")
    names = config.get("names")
    if names:
        words += ["--names", ",".join(names)]
    box = config.get("box")
    if box is not None:
        labels = [f"{name}=" for name in names] if names else [""]
        for label, (low, high) in zip(labels, box, strict=False):
            words += ["--box", f"{label}{_text(low)}:{_text(high)}"]
    constraints = config.get("constraints") or {}
    pairs = {name: (_bound(low, -math.inf), _bound(high, math.inf)) for name, (low, high)
             in constraints.items()}  # fmt: skip
    positive = [name for name, pair in pairs.items() if pair == (0.0, math.inf)]
    if positive:
        words += ["--positive", ",".join(positive)]
    for name, (low, high) in pairs.items():
        if name not in positive:
            ends = ("" if math.isinf(end) else _text(end) for end in (low, high))
            words += ["--bounds", f"{name}={':'.join(ends)}"]
    return words


def _bound(value: Any, missing: float) -> float:
    """A bound as a number; JSON has none for infinity."""
    return missing if value is None else float(value)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
