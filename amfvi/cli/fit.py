"""The command ``amfvi fit``."""

from __future__ import annotations

from typing import Any

import typer

from amfvi.cli import options as opt
from amfvi.cli.conditional import fit_conditional, is_conditional_fit
from amfvi.cli.values import parse_bounds, parse_box, split_names
from amfvi.diagnostics.report import Verdict
from amfvi.errors import ExitCode
from amfvi.two_stage.worker import MIN_ROWS_FOR_A_PROCESS, prestart

__all__ = ["HELP", "fit"]

HELP = """Fit a mixture to draws, to a log density or to a target.

Give --draws, --log-density or --target; or --draws and the --log-density they are from, for a
verdict and an evidence without sampling; or --draws and the --given columns that are conditions,
for every posterior p(y | c) at once; or a --simulator and its --prior, for the same. The fit is
scored and saved with figures in a run directory, which 'amfvi summary', 'evaluate', 'sample',
'log-prob' and 'calibrate' read.
"""


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
    timeout: opt.Timeout = None,
    out: opt.OutDirectory = None,
    force: opt.Force = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    no_figures: opt.NoFigures = False,
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
    _prestart_worker(given)
    if is_conditional_fit(given):
        fit_conditional(given)
    else:
        _fit(given)


def _fit(given: dict[str, Any]) -> None:
    """Run ``amfvi fit`` for draws, a log density or a target.

    Raises:
        typer.Exit: the verdict is not to trust the fit.
    """
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
    if (metrics["density"] or {}).get("verdict") == Verdict.DO_NOT_TRUST:
        raise typer.Exit(ExitCode.NOT_TRUSTED)


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
    if has_input and several and large and given["device"] in ("auto", "cpu"):
        prestart()


def _settings(given: dict[str, Any]) -> Any:
    """The settings of the run that the flags describe."""
    from amfvi.runs.settings import InputSettings, RunSettings
    from amfvi.two_stage.options import FitOptions

    names = None if given["names"] is None else tuple(split_names(given["names"]))
    options = FitOptions(
        experts=split_names(given["experts"]),
        **{
            name: given[name]
            for name in (
                "weight_rule", "beta", "n_draws", "n_weight_draws", "folds", "test_fraction",
                "max_evaluations", "max_refinements", "timeout", "seed", "device",
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
