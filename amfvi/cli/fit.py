"""The command ``amfvi fit``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from amfvi.cli import options as opt
from amfvi.cli.conditional import fit_conditional, is_conditional_fit
from amfvi.cli.config_file import Config, ExpertSettings
from amfvi.cli.report import try_to_write_report
from amfvi.cli.terminal import announce
from amfvi.cli.values import choose_experts, parse_bounds, parse_box, split_names
from amfvi.diagnostics.report import Verdict
from amfvi.errors import ExitCode
from amfvi.two_stage.worker import MIN_ROWS_FOR_A_PROCESS, prestart

__all__ = ["EXAMPLES", "HELP", "fit"]

HELP = """Fit a mixture to draws, to a log density or to a target.

Give --draws, --log-density or --target. With --draws and the log density they are from, the fit
has a verdict and an evidence without sampling. With --draws and --given, the columns that are
conditions c, or with a --simulator and its --prior, one fit gives every posterior p(y | c). The fit
is scored and saved in a run directory, with figures and a report, which the other commands read.
"""

EXAMPLES = (
    "amfvi fit --draws draws.csv --positive tau",
    "amfvi fit --log-density model.py:log_prob --dim 3 --seed 1",
)


def fit(
    target: opt.Target = None,
    by: opt.FromOption = opt.From.draws,
    draws: opt.DrawsFile = None,
    given_columns: opt.GivenColumns = None,
    simulator: opt.SimulatorName = None,
    prior: opt.PriorName = None,
    jobs: opt.Jobs = None,
    log_density: opt.DensityName = None,
    dim: opt.Dim = None,
    names: opt.Names = None,
    box: opt.Box = None,
    max_evaluations: opt.MaxEvaluations = None,
    max_refinements: opt.MaxRefinements = None,
    experts: opt.Experts = "maf,realnvp,rbig",
    settings: ExpertSettings = None,
    weight_rule: opt.WeightRule = "ema",
    beta: opt.Beta = None,
    n_draws: opt.NDraws = None,
    n_weight_draws: opt.NWeightDraws = 0,
    folds: opt.Folds = 5,
    test_fraction: opt.TestFraction = None,
    positive: opt.Positive = "",
    bounds: opt.Bounds = None,
    chains: opt.Chains = False,
    nan_policy: opt.NanPolicy = None,
    seed: opt.Seed = 0,
    device: opt.Device = "auto",
    cluster: opt.Cluster = None,
    timeout: opt.Timeout = None,
    out: opt.OutDirectory = None,
    force: opt.Force = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    no_figures: opt.NoFigures = False,
    config: Config = None,
    debug: opt.Debug = False,
) -> None:
    """Run the command ``amfvi fit``; its help is ``HELP``.

    Raises:
        UsageError, InputError, FitError: as :func:`amfvi.runs.run.run`.

    Examples:
        >>> fit(target="ring", experts="gmm", quiet=True)
        Traceback (most recent call last):
        amfvi.errors.UsageError: unknown target 'ring'; did you mean rings? ...
    """
    given = dict(locals())
    announce(f"fitting {simulator or log_density or draws or target or 'nothing'}", quiet)
    _prestart_worker(given)
    if is_conditional_fit(given):
        _report(fit_conditional(given), given)
    else:
        _fit_alone(given)


def _fit_alone(given: dict[str, Any]) -> None:
    """Run ``amfvi fit`` for one posterior."""
    settings = _settings(given)
    from amfvi.cli import console
    from amfvi.runs.run import run

    with console.prints_on_stderr(), console.reporting(given["quiet"]) as reporter:
        metrics = run(settings, reporter=reporter, floor_cache=console.floor_cache())
    if given["as_json"]:
        console.print_json(metrics)
    else:
        console.show_run(metrics)
        console.show(f"saved:   {settings.directory}")
    _report(settings.directory, given)
    if (metrics["density"] or {}).get("verdict") == Verdict.DO_NOT_TRUST:
        raise typer.Exit(ExitCode.NOT_TRUSTED)


def _report(directory: Path, given: dict[str, Any]) -> None:
    """Write the report of a fit; what goes wrong with it is one line on stderr."""
    path, error = try_to_write_report(directory)
    if error:
        typer.echo(f"warning: {error}", err=True)
    elif not given["as_json"]:
        typer.echo(f"report:  {path}")


def _prestart_worker(given: dict[str, Any]) -> None:
    """Start the second process early where a fit is likely to use it.

    Both processes then import torch at the same time. The guess costs little if wrong.
    """
    rows = 10_000 if given["n_draws"] is None else given["n_draws"]
    several = "," in given["experts"] or given["experts"] in ("paper", "robust")
    large = given["draws"] or rows * given["folds"] >= MIN_ROWS_FOR_A_PROCESS
    has_input = any(
        given[key] is not None for key in ("target", "draws", "log_density", "simulator")
    )
    here = given["device"] in ("auto", "cpu") and given["cluster"] is None
    if has_input and several and large and here:
        prestart()


def _settings(given: dict[str, Any]) -> Any:
    """The settings of the run that the flags describe."""
    from amfvi.runs.settings import InputSettings, RunSettings
    from amfvi.two_stage.options import FitOptions

    names = None if given["names"] is None else tuple(split_names(given["names"]))
    options = FitOptions(
        experts=choose_experts(split_names(given["experts"]), given["settings"]),
        **{
            name: given[name]
            for name in (
                "weight_rule", "beta", "n_draws", "n_weight_draws", "folds", "test_fraction",
                "max_evaluations", "max_refinements", "timeout", "seed", "device", "cluster",
            )
        },
    )  # fmt: skip
    source = InputSettings(
        target=given["target"],
        by_density=given["by"] is opt.From.density,
        draws=given["draws"],
        chains=given["chains"],
        nan_policy=given["nan_policy"],
        log_density=given["log_density"],
        dim=given["dim"],
        names=names,
        jobs=given["jobs"],
        box=parse_box(given["box"], given["dim"], names),
        constraints=parse_bounds(given["positive"], given["bounds"] or []),
    )
    return RunSettings(
        input=source,
        options=options,
        out=given["out"],
        force=given["force"],
        figures=not given["no_figures"],
    )
