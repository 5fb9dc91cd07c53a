"""The options of the command line: flags with their help, and their names in messages."""

from __future__ import annotations

import enum
import re
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["flags_for_arguments"]


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
        help="Columns of the draws that are conditions c, such as c1,c2: fit p(y | c). Of a "
        "simulator: names of its data.",
    ),
]
Condition = Annotated[
    str | None,
    typer.Option(
        "--given", metavar="VALUES", help="The condition, such as c1=.3,c2=1, of a fit to pairs."
    ),
]
SimulatorName = Annotated[
    str | None,
    _option(
        "--simulator",
        metavar="FUNCTION",
        help="Fit p(y | c) to simulations: MODULE:FUNCTION or FILE.py:FUNCTION, from parameters y "
        "to data c, or an amfvi.Simulator.",
    ),
]
PriorName = Annotated[
    str | None,
    _option(
        "--prior",
        metavar="PRIOR",
        help="What its parameters are drawn from: a distribution or a function of n, named as it.",
    ),
]
Jobs = Annotated[
    int | None, _option("--jobs", metavar="N", help="Processes that simulate.  [default: 1]", min=1)
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
    _option(
        "-n",
        "--n-draws",
        metavar="N",
        help="Draws of the target or of the sampler, or simulations, to fit to.  [default: 10000]",
    ),
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
    "given_names": "--given",
    "experts": "--experts",
    **{
        name: "--" + name.replace("_", "-")
        for name in (
            "target", "draws", "given", "simulator", "prior", "jobs", "log_density", "dim",
            "names", "box", "max_evaluations", "max_refinements", "weight_rule", "beta", "n_draws",
            "n_weight_draws", "folds",
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
