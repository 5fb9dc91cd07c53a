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


def _option(
    *flags: str, help: str, metavar: str | None = None, min: int | None = None
) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(*flags, help=help, metavar=metavar, min=min)
    return option


Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.", show_default=False)]
AsJson = Annotated[bool, _option("--json", help="Print one JSON object to stdout, no tables.")]
Debug = Annotated[bool, _option("--debug", help="Show the Python traceback of an error.")]
Device = Annotated[
    str, _option(metavar="DEVICE", help="Where to compute: auto, cpu, cuda, cuda:1, ...")
]
Force = Annotated[bool, _option("--force", help="Replace a file or run that already exists.")]
OutFile = Annotated[
    Path | None,
    _option(
        metavar="FILE",
        help="File to write: .csv, .npy, .npz or .parquet.  [default: CSV to stdout]",
    ),
]

Target = Annotated[
    str | None, _option(metavar="NAME", help="Fit a named posterior; see 'amfvi targets'.")
]
FromOption = Annotated[
    From, _option("--from", help="Fit the target to its exact draws, or by its log density.")
]
DrawsFile = Annotated[
    str | None,
    _option(metavar="FILE", help="Fit posterior draws: a .csv, .npy, .npz, .parquet or .nc file."),
]
GivenColumns = Annotated[
    str | None,
    typer.Option(
        "--given",
        metavar="COLUMNS",
        help="Columns of the draws that are conditions c, such as c1,c2: fit p(y | c).",
    ),
]
Condition = Annotated[
    str | None,
    typer.Option(
        "--given", metavar="VALUES", help="The condition, such as c1=.3,c2=1, of a fit to pairs."
    ),
]
DensityName = Annotated[
    str | None,
    _option(
        metavar="FUNCTION",
        help="Fit a log density: MODULE:FUNCTION or FILE.py:FUNCTION, "
        "a Python function or an amfvi.LogDensity. With --draws: judge their fit by it.",
    ),
]
Dim = Annotated[
    int | None, _option(metavar="N", help="Number of parameters of the function.", min=1)
]
Names = Annotated[
    str | None,
    _option(metavar="NAMES", help="Names of its parameters, such as mu,tau.  [default: x1,x2,...]"),
]
Box = Annotated[
    list[str] | None,
    _option(
        metavar="INTERVAL",
        help="Start the sampler in LOW:HIGH for every parameter, or in NAME=LOW:HIGH "
        "for each; may be repeated.",
    ),
]
MaxEvaluations = Annotated[
    int | None,
    _option(metavar="N", help="Evaluate the log density at most this often.  [default: no limit]"),
]
MaxRefinements = Annotated[
    int | None, _option(metavar="N", help="Sample and fit again at most this often.  [default: 2]")
]
Experts = Annotated[
    str,
    _option(
        metavar="NAMES",
        help="Experts, separated by commas, or robust for all; see 'amfvi experts'.",
    ),
]
WeightRule = Annotated[
    str,
    _option(metavar="RULE", help="How the weights are estimated: ema, em, batch-mean or uniform."),
]
Beta = Annotated[
    float | None, _option(metavar="NUMBER", help="Momentum of ema and batch-mean.  [default: 0.9]")
]
NDraws = Annotated[
    int | None,
    _option(metavar="N", help="Draws of the target or of the sampler to fit to.  [default: 10000]"),
]
NWeightDraws = Annotated[
    int, _option(metavar="N", help="Further draws of the target, for the weights alone.")
]
Folds = Annotated[
    int,
    _option(metavar="N", help="Members per expert; each is trained without one fold of the draws."),
]
TestFraction = Annotated[
    float | None,
    _option(metavar="NUMBER", help="Share of the draws set aside for scores.  [default: 0.15]"),
]
Positive = Annotated[
    str, _option(metavar="NAMES", help="Parameters that are positive, such as tau,sigma.")
]
Bounds = Annotated[
    list[str] | None,
    _option(
        metavar="INTERVAL",
        help="Bounds NAME=LOW:HIGH of a parameter; either may be empty; may be repeated.",
    ),
]
Chains = Annotated[
    bool, _option("--chains", help="The array of draws is chains x draws x parameters.")
]
NanPolicy = Annotated[
    str | None,
    _option(
        metavar="POLICY", help="What to do with NaN or infinity: raise or omit.  [default: raise]"
    ),
]
Seed = Annotated[
    int, _option(metavar="N", help="Seed of everything random; same seed, same numbers.")
]
Timeout = Annotated[
    float | None,
    _option(
        metavar="SECONDS",
        help="Stop after this many seconds with the best fit so far.  [default: no limit]",
    ),
]
OutDirectory = Annotated[
    str | None,
    _option(metavar="FOLDER", help="Run directory to write.  [default: runs/<name>-<seed>]"),
]
Quiet = Annotated[bool, _option("--quiet", help="Show no progress and no log.")]
NoFigures = Annotated[bool, _option("--no-figures", help="Draw no figures.")]


FLAGS = {
    "constraints": "--positive or --bounds",
    "by_density": "--from density",
    "overwrite": "--force",
    "experts": "--experts",
    **{
        name: "--" + name.replace("_", "-")
        for name in (
            "target", "draws", "given", "log_density", "dim", "names", "box", "max_evaluations",
            "max_refinements", "weight_rule", "beta", "n_draws", "n_weight_draws", "folds",
            "test_fraction", "chains", "nan_policy", "seed", "device", "timeout", "out",
        )
    },
}  # fmt: skip
"""The flag for each argument of the library that the command line has."""


ARGUMENT = re.compile(
    r"""(?<![\w/.'"-])           # not inside a path, a quotation or another word
    (?P<name>[a-z_]+)=
    (?P<value>(?>'[^']*'|"[^"]*"|[\w.+-]*\w)?)
    (?![\w/:=])                # not the beginning of a path""",
    re.VERBOSE,
)
"""An argument in a message of the library: ``name=`` or ``name=value``."""


def flags_for_arguments(message: str, *, verbatim: str = "") -> str:
    """Write a message of the library with flags in place of arguments of Python.

    The library writes an argument as ``name=`` or ``name=value``.

    Args:
        verbatim: a part of the message that is not the library's own, and stays as it is.

    Examples:
        >>> flags_for_arguments("beta= must be in [0, 1); or give nan_policy='omit'")
        '--beta must be in [0, 1); or give --nan-policy omit'
        >>> flags_for_arguments("runs/seed=1: exists; replace it with overwrite=True")
        'runs/seed=1: exists; replace it with --force'
    """

    def flag(match: re.Match[str]) -> str:
        name, value = match.group("name"), match.group("value").strip("'\"")
        if name not in FLAGS:
            return match.group()
        return FLAGS[name] if value in ("", "True") else f"{FLAGS[name]} {value}"

    if verbatim and verbatim in message:
        before, _, after = message.partition(verbatim)
        return flags_for_arguments(before) + verbatim + flags_for_arguments(after)
    return ARGUMENT.sub(flag, message)


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
