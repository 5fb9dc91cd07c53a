"""The options of the command line: flags with their help, and how their values are read."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from amfvi.errors import UsageError

__all__ = ["flags_for_arguments", "parse_bounds", "parse_box", "split_names"]


class From(enum.StrEnum):
    """What of a named target is fitted."""

    draws = "draws"
    density = "density"


def _option(*flags: str, help: str, min: int | None = None) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(*flags, help=help, min=min)
    return option


Run = Annotated[Path, typer.Argument(help="A run directory.", show_default=False)]
AsJson = Annotated[bool, _option("--json", help="One JSON object on stdout.")]
Debug = Annotated[bool, _option("--debug", help="Show the trace of an error.")]
Device = Annotated[str, _option(help="auto, cpu, cuda, ...")]
Force = Annotated[bool, _option("--force", help="Replace the file or run that is there.")]
OutFile = Annotated[
    Path | None, _option(help="A .csv, .npy or .npz file; CSV on stdout if not given.")
]

Target = Annotated[str | None, _option(help="A named posterior; see 'amfvi targets'.")]
FromOption = Annotated[
    From, _option("--from", help="Fit a target to its exact draws or by its density.")
]
DrawsFile = Annotated[str | None, _option(help="A CSV, NPY or NPZ file of posterior draws.")]
DensityName = Annotated[
    str | None, _option(help="MODULE:FUNCTION or FILE.py:FUNCTION, a log density or a LogDensity.")
]
Dim = Annotated[int | None, _option(help="Number of parameters of a log density.", min=1)]
Names = Annotated[str | None, _option(help="Parameter names of a log density: mu,tau")]
Box = Annotated[
    list[str] | None,
    _option(help="Where the sampler starts: LOW:HIGH for all, or NAME=LOW:HIGH."),
]
MaxEvaluations = Annotated[int | None, _option(help="Most evaluations of a log density.")]
MaxRefinements = Annotated[
    int | None, _option(help="Most refinements of a fit to a log density.  [default: 2]")
]
Experts = Annotated[str, _option(help="Comma-separated, or robust; see 'amfvi experts'.")]
WeightRule = Annotated[str, _option(help="ema, em, batch-mean or uniform.")]
Beta = Annotated[float | None, _option(help="Momentum of ema and batch-mean.  [default: 0.9]")]
NDraws = Annotated[
    int | None, _option(help="Draws to fit to, of a target or the sampler.  [default: 10000]")
]
NWeightDraws = Annotated[int, _option(help="Further draws of a target, for the weights alone.")]
Folds = Annotated[int, _option(help="Members of each expert, each blind to one fold of the draws.")]
TestFraction = Annotated[
    float | None, _option(help="Share of given draws kept for scores.  [default: 0.15]")
]
Positive = Annotated[str, _option(help="Parameters above 0: tau,sigma")]
Bounds = Annotated[
    list[str] | None, _option(help="NAME=LOW:HIGH, either may be empty; repeatable.")
]
Chains = Annotated[bool, _option("--chains", help="The array is chains x draws x parameters.")]
NanPolicy = Annotated[
    str | None, _option(help="Rows with NaN or infinity: raise or omit.  [default: raise]")
]
Seed = Annotated[int, _option(help="Seed of everything random.")]
Timeout = Annotated[
    float | None, _option(help="Seconds after which a fit stops with its best state.")
]
OutDirectory = Annotated[
    str | None, _option(help="The run directory.  [default: runs/<name>-<seed>]")
]
Quiet = Annotated[bool, _option("--quiet", help="No progress, no log.")]
NoFigures = Annotated[bool, _option("--no-figures", help="Draw no figures.")]


FLAGS = {
    "constraints": "--positive or --bounds",
    "by_density": "--from density",
    "overwrite": "--force",
    "experts": "--experts",
    **{
        name: "--" + name.replace("_", "-")
        for name in (
            "target", "draws", "log_density", "dim", "names", "box", "max_evaluations",
            "max_refinements", "weight_rule", "beta", "n_draws", "n_weight_draws", "folds",
            "test_fraction", "chains", "nan_policy", "seed", "device", "timeout", "out",
        )
    },
}  # fmt: skip
"""The flag for each argument of the library that the command line has."""


def flags_for_arguments(message: str) -> str:
    """Write a message of the library with flags in place of arguments of Python.

    The library writes an argument as ``name=`` or ``name=value``.

    Examples:
        >>> flags_for_arguments("beta= must be in [0, 1); or give nan_policy='omit'")
        '--beta must be in [0, 1); or give --nan-policy omit'
    """

    def flag(match: re.Match[str]) -> str:
        name, value = match.group("name"), (match.group("value") or "").strip("'")
        if name not in FLAGS:
            return match.group()
        return FLAGS[name] if value in ("", "True") else f"{FLAGS[name]} {value}"

    return re.sub(r"\b(?P<name>[a-z_]+)=(?P<value>'[^']*'|[\w.+-]*\w)?", flag, message)


def split_names(text: str) -> list[str]:
    """Split comma-separated names; commas inside brackets belong to a name.

    Examples:
        >>> split_names("tau, theta[1,2],mu")
        ['tau', 'theta[1,2]', 'mu']
    """
    return [name.strip() for name in re.split(r",(?![^\[]*\])", text) if name.strip()]


def parse_bounds(positive: str, bounds: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Read ``--positive tau,sigma`` and ``--bounds p=0:1`` as (lower, upper) by name.

    Raises:
        UsageError: not of that form.

    Examples:
        >>> parse_bounds("tau", ["p=0:1"])
        {'tau': (0.0, inf), 'p': (0.0, 1.0)}
    """
    constraints = {name: (0.0, math.inf) for name in split_names(positive)}
    for item in (part for text in bounds for part in split_names(text)):
        name, equals, interval = item.rpartition("=")
        low, colon, high = interval.partition(":")
        try:
            pair = (float(low or "-inf"), float(high or "inf"))
        except ValueError:
            colon = ""
        if not equals or not colon:
            raise UsageError(f"--bounds wants NAME=LOW:HIGH, found {item!r}")
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
        (pair,) = parse_bounds("", [f"all={items[0]}"]).values()
        return [pair] * (dim or 1)
    pairs = parse_bounds("", items)
    if names is None or set(pairs) != set(names):
        raise UsageError("--box wants LOW:HIGH for all, or NAME=LOW:HIGH for each of --names")
    return [pairs[name] for name in names]
