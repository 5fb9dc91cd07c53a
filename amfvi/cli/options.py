"""The options of the command line: flags with their help, in groups."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer


class From(enum.StrEnum):
    """What of a named target is fitted."""

    draws = "draws"
    density = "density"


def _option(
    *flags: str,
    help: str,
    metavar: str | None = None,
    min: int | None = None,
    panel: str | None = None,
) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        *flags, help=help, metavar=metavar, min=min, rich_help_panel=panel
    )
    return option


SOURCE = "What to fit"
OF_DENSITY = "For a log density"
HOW = "How to fit"
COMPUTING = "Computing"
PARAMETERS = "Parameters and draws"
OUTPUT = "Output"

Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.", show_default=False)]
AsJson = Annotated[
    bool, _option("--json", help="Print one JSON object to stdout, and no tables.", panel=OUTPUT)
]
Debug = Annotated[bool, _option("--debug", help="Show the Python traceback of an error.")]
Device = Annotated[
    str,
    _option(
        metavar="DEVICE", help="Where to compute: auto, cpu, cuda, cuda:1, ...", panel=COMPUTING
    ),
]
Cluster = Annotated[
    str | None,
    _option(
        "--ray",
        metavar="ADDRESS",
        help="Share the work among a Ray cluster: auto, ray://HOST:PORT, or local.",
        panel=COMPUTING,
    ),
]
Force = Annotated[
    bool, _option("--force", help="Replace a file or a run that already exists.", panel=OUTPUT)
]
OutFile = Annotated[
    Path | None,
    _option(
        metavar="FILE",
        help="The file to write: .csv, .npy, .npz or .parquet.  [default: CSV to stdout]",
        panel=OUTPUT,
    ),
]

Target = Annotated[
    str | None,
    _option(
        metavar="NAME",
        help="Fit a named posterior with a known answer; 'amfvi targets' lists them.",
        panel=SOURCE,
    ),
]
FromOption = Annotated[
    From,
    _option(
        "--from",
        help="Fit the target to its exact draws, or by its log density.",
        panel=SOURCE,
    ),
]
DrawsFile = Annotated[
    str | None,
    _option(
        "--draws",
        "--data",
        metavar="FILE",
        help="Fit posterior draws, or pairs: a .csv, .npy, .npz, .parquet or .nc file.",
        panel=SOURCE,
    ),
]
GivenColumns = Annotated[
    str | None,
    _option(
        "--given",
        metavar="COLUMNS",
        help="Columns of the draws that are conditions c, such as c1,c2: fit p(y | c). For a "
        "simulator, the names of its data.",
        panel=SOURCE,
    ),
]
Condition = Annotated[
    str | None,
    typer.Option(
        "--given",
        metavar="VALUES",
        help="The condition at which a fit to pairs is sampled, such as c1=.3,c2=1.",
    ),
]
SimulatorName = Annotated[
    str | None,
    _option(
        "--simulator",
        metavar="FUNCTION",
        help="Fit p(y | c) to simulations, written MODULE:FUNCTION or FILE.py:FUNCTION. It is a "
        "function from parameters y to data c, or an amfvi.Simulator.",
        panel=SOURCE,
    ),
]
PriorName = Annotated[
    str | None,
    _option(
        "--prior",
        metavar="PRIOR",
        help="What the simulator's parameters are drawn from: a distribution or a function of n, "
        "written as the simulator.",
        panel=SOURCE,
    ),
]
Jobs = Annotated[
    int | None,
    _option(
        metavar="N",
        help="Simulate, or evaluate the log density, in this many processes.  [default: 1]",
        min=1,
        panel=SOURCE,
    ),
]
DensityName = Annotated[
    str | None,
    _option(
        metavar="FUNCTION",
        help="Fit a log density, written MODULE:FUNCTION or FILE.py:FUNCTION. It is a Python "
        "function or an amfvi.LogDensity. With --draws, their fit is judged by it.",
        panel=SOURCE,
    ),
]
Dim = Annotated[
    int | None,
    _option(metavar="N", help="The number of parameters of the function.", min=1, panel=OF_DENSITY),
]
Names = Annotated[
    str | None,
    _option(
        metavar="NAMES",
        help="The names of the function's parameters, such as mu,tau.  [default: x1,x2,...]",
        panel=OF_DENSITY,
    ),
]
Box = Annotated[
    list[str] | None,
    _option(
        metavar="INTERVAL",
        help="Start the sampler in LOW:HIGH for every parameter, or in NAME=LOW:HIGH "
        "for each. This may be repeated.",
        panel=OF_DENSITY,
    ),
]
MaxEvaluations = Annotated[
    int | None,
    _option(
        metavar="N",
        help="Evaluate the log density at most this often.  "
        "[default: 150,000 and 20,000 per parameter]",
        panel=OF_DENSITY,
    ),
]
MaxRefinements = Annotated[
    int | None,
    _option(
        metavar="N",
        help="Sample and fit again at most this often.  [default: 8]",
        panel=OF_DENSITY,
    ),
]
Experts = Annotated[
    str,
    _option(
        metavar="NAMES",
        help="The experts, separated by commas, or robust for all; 'amfvi experts' lists them.",
        panel=HOW,
    ),
]
WeightRule = Annotated[
    str,
    _option(
        metavar="RULE",
        help="How the weights are estimated: ema, em, batch-mean or uniform.",
        panel=HOW,
    ),
]
Beta = Annotated[
    float | None,
    _option(
        metavar="NUMBER",
        help="The momentum of the weight rules ema and batch-mean.  [default: 0.9]",
        panel=HOW,
    ),
]
NDraws = Annotated[
    int | None,
    _option(
        "-n",
        "--n-draws",
        metavar="N",
        help="How many draws of the target or of the sampler, or simulations, to fit to.  "
        "[default: 10000]",
        panel=HOW,
    ),
]
NWeightDraws = Annotated[
    int,
    _option(metavar="N", help="Further draws of the target, for the weights alone.", panel=HOW),
]
Folds = Annotated[
    int,
    _option(
        metavar="N",
        help="Members of each expert; each is trained without one fold of the draws.",
        panel=HOW,
    ),
]
TestFraction = Annotated[
    float | None,
    _option(
        metavar="NUMBER",
        help="The share of the draws that is set aside for scores.  [default: 0.15]",
        panel=PARAMETERS,
    ),
]
Positive = Annotated[
    str,
    _option(
        metavar="NAMES", help="Parameters that are positive, such as tau,sigma.", panel=PARAMETERS
    ),
]
Bounds = Annotated[
    list[str] | None,
    _option(
        metavar="INTERVAL",
        help="Bounds of a parameter, NAME=LOW:HIGH, of which one may be empty. This may be "
        "repeated.",
        panel=PARAMETERS,
    ),
]
Chains = Annotated[
    bool,
    _option(
        "--chains", help="The array of draws is chains x draws x parameters.", panel=PARAMETERS
    ),
]
NanPolicy = Annotated[
    str | None,
    _option(
        metavar="POLICY",
        help="What to do with draws of NaN or infinity: raise or omit.  [default: raise]",
        panel=PARAMETERS,
    ),
]
Seed = Annotated[
    int,
    _option(
        metavar="N",
        help="The seed of all random numbers; the same seed gives the same numbers.",
        panel=COMPUTING,
    ),
]
Timeout = Annotated[
    float | None,
    _option(
        metavar="SECONDS",
        help="Stop after this many seconds with the best fit so far.  [default: no limit]",
        panel=COMPUTING,
    ),
]
OutDirectory = Annotated[
    str | None,
    _option(
        metavar="FOLDER",
        help="The run directory to write.  [default: runs/<name>-<seed>]",
        panel=OUTPUT,
    ),
]
Quiet = Annotated[bool, _option("--quiet", help="Show no progress and no log.", panel=OUTPUT)]
NoFigures = Annotated[bool, _option("--no-figures", help="Draw no figures.", panel=OUTPUT)]
