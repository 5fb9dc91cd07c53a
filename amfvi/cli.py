"""The commands. Heavy modules are imported when a command runs, not for --help."""

from __future__ import annotations

import enum
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from amfvi.diagnostics import DO_NOT_TRUST
from amfvi.errors import UsageError
from amfvi.outputs import without_nonfinite
from amfvi.worker import WORTH_A_PROCESS, start_early

__all__ = ["app"]

app = typer.Typer(
    help="Fit a mixture of normalizing flows to a posterior, and find out how good it is.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

NOT_TO_BE_TRUSTED = 5  # exit code of a fit whose diagnostics say so


class By(enum.StrEnum):
    """What of a named target is fitted."""

    draws = "draws"
    density = "density"


Run = Annotated[Path, typer.Argument(help="A run directory.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the trace of an error.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, ...")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]


@app.command()
def fit(
    target: Annotated[
        str | None, typer.Option(help="A named posterior; see 'amfvi targets'.")
    ] = None,
    by: Annotated[
        By, typer.Option("--from", help="Fit a target to its exact draws or by its density.")
    ] = By.draws,
    draws: Annotated[
        str | None, typer.Option(help="A CSV, NPY or NPZ file of posterior draws.")
    ] = None,
    log_density: Annotated[
        str | None,
        typer.Option(help="MODULE:FUNCTION or FILE.py:FUNCTION, a log density or a LogDensity."),
    ] = None,
    dim: Annotated[
        int | None, typer.Option(min=1, help="Number of parameters of a log density.")
    ] = None,
    names: Annotated[str | None, typer.Option(help="Their names: mu,tau")] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(help="Where its sampler starts: LOW:HIGH for all, or NAME=LOW:HIGH."),
    ] = None,
    max_calls: Annotated[int | None, typer.Option(min=1, help="Most calls of it.")] = None,
    rounds: Annotated[
        int | None, typer.Option(min=0, help="Most refinements of its fit.  [default: 2]")
    ] = None,
    experts: Annotated[
        str, typer.Option(help="Comma-separated, or robust; see 'amfvi experts'.")
    ] = ("maf,realnvp,rbig"),
    weights: Annotated[str, typer.Option(help="ema, em, batch-mean or uniform.")] = "ema",
    beta: Annotated[
        float | None, typer.Option(help="Momentum of ema and batch-mean.  [default: 0.9]")
    ] = None,
    n_draws: Annotated[
        int | None, typer.Option(help="Draws of a target to fit to.  [default: 10000]")
    ] = None,
    n_fresh: Annotated[int, typer.Option(help="Further draws for the weights alone.")] = 0,
    folds: Annotated[
        int, typer.Option(help="Members of each expert, each blind to one fold of the draws.")
    ] = 5,
    test_fraction: Annotated[
        float | None, typer.Option(help="Part of a file kept for scores.  [default: 0.15]")
    ] = None,
    positive: Annotated[str, typer.Option(help="Parameters above 0: tau,sigma")] = "",
    bounds: Annotated[
        list[str] | None, typer.Option(help="NAME=LOW:HIGH, either may be empty; repeatable.")
    ] = None,
    chains: Annotated[
        bool, typer.Option("--chains", help="The array is chains x draws x parameters.")
    ] = False,
    nonfinite: Annotated[
        str | None, typer.Option(help="Rows with NaN or infinity: error or drop.  [default: error]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    device: Device = "auto",
    timeout: Annotated[
        float | None, typer.Option(help="Seconds after which training stops at its best.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="The run directory.  [default: runs/<name>-<seed>]")
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no log.")] = False,
    no_figures: Annotated[bool, typer.Option("--no-figures", help="Draw no figures.")] = False,
    debug: Debug = False,
) -> None:
    """Fit a mixture to a target, to draws or to a log density, score it and save it."""
    if sum(given is not None for given in (target, draws, log_density)) != 1:
        raise UsageError(
            "give exactly one of --target NAME, --draws FILE and --log-density MODULE:FUNCTION"
        )
    # Guesses, to be right or to cost little: what is known for sure takes seconds to import.
    rows = 10_000 if n_draws is None else n_draws
    several = "," in experts or experts in ("paper", "robust")
    if several and device in ("auto", "cpu") and (draws or rows * folds >= WORTH_A_PROCESS):
        start_early()  # both processes then import torch at the same time
    from amfvi import console
    from amfvi.bounds import parse_bounds, parse_box, split_names
    from amfvi.experts import resolve
    from amfvi.run import run
    from amfvi.run_settings import RunSettings

    parameters = None if names is None else tuple(split_names(names))
    settings = RunSettings(
        experts=resolve(split_names(experts)),
        target=target,
        draws=draws,
        log_density=log_density,
        by_density=by is By.density,
        dim=dim,
        names=parameters,
        box=parse_box(box, dim, parameters),
        max_calls=max_calls,
        rounds=rounds,
        weights=weights,
        beta=beta,
        n_draws=n_draws,
        n_fresh=n_fresh,
        folds=folds,
        test_fraction=test_fraction,
        bounds=parse_bounds(positive, bounds or []),
        chains=chains,
        nonfinite=nonfinite,
        seed=seed,
        device=device,
        timeout=timeout,
        out=out,
        force=force,
        figures=not no_figures,
    )
    with console.watch(quiet) as watch:
        metrics = run(
            settings,
            progress=watch.progress,
            sampler_progress=watch.sampler_progress,
            say=watch.say,
        )
    if as_json:
        _print_json(without_nonfinite(metrics))
    else:
        if metrics["n_test"]:
            _show_scores(metrics)
        console.show(console.weights_line(metrics))
        console.show(*console.density_lines(metrics["density"]))
        console.show(f"saved:   {settings.directory}")
    if metrics["density"] is not None and metrics["density"]["verdict"] == DO_NOT_TRUST:
        raise typer.Exit(NOT_TO_BE_TRUSTED)


@app.command()
def evaluate(
    run: Run,
    target: Annotated[str | None, typer.Option(help="Score on this target.")] = None,
    draws: Annotated[str | None, typer.Option(help="Score on these draws.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Score a saved run again, as it was scored at first or on other draws."""
    from amfvi.saved_run import SavedRun

    scores = SavedRun.open(run).evaluate(target, draws).to_json()
    if as_json:
        _print_json(without_nonfinite(scores))
    else:
        _show_scores(scores)


@app.command()
def summary(run: Run, as_json: AsJson = False, debug: Debug = False) -> None:
    """Show each parameter's posterior, the weights and the scores of a saved run."""
    from amfvi import console
    from amfvi.posterior_summary import summarise
    from amfvi.saved_run import SavedRun

    saved = SavedRun.open(run)
    draws, names = saved.draws()
    rows, metrics = summarise(draws, names), saved.metrics
    if as_json:
        _print_json({"parameters": rows, "metrics": metrics})
        return
    console.show(console.posterior_table(rows))
    if metrics["n_test"]:
        _show_scores(metrics)
    console.show(console.weights_line(metrics))
    console.show(*console.density_lines(metrics.get("density")))
    for line in metrics["warnings"]:
        console.show(f"warning: {line}")


@app.command()
def sample(
    run: Run,
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="How many draws.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="A .csv, .npy or .npz file; CSV on stdout if not given.")
    ] = None,
    device: Device = "cpu",
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Draw from a saved mixture."""
    from amfvi.checkpoint import load
    from amfvi.randomness import stream
    from amfvi.two_stages import resolve_device
    from amfvi.writers import check_writable, write_columns

    check_writable(out, overwrite=force)
    mixture = load(run, device=resolve_device(device))
    draws = mixture.sample((n,), stream(seed, "sample")).numpy()
    write_columns(out, draws, mixture.names, array_name="draws", overwrite=force)


@app.command()
def log_prob(
    run: Run,
    points: Annotated[Path, typer.Option(help="A CSV, NPY or NPZ file of points.")],
    out: Annotated[
        Path | None, typer.Option(help="A .csv, .npy or .npz file; CSV on stdout if not given.")
    ] = None,
    device: Device = "auto",
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Log density in nats of a saved mixture at the points of a file."""
    from amfvi.checkpoint import load
    from amfvi.errors import InputError
    from amfvi.readers import columns_for, read_table
    from amfvi.two_stages import resolve_device
    from amfvi.writers import check_writable, write_columns

    check_writable(out, overwrite=force)
    mixture = load(run, device=resolve_device(device))
    values = columns_for(read_table(points), mixture.names, points)
    import numpy as np

    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        raise InputError(
            f"{points}: {int((~finite).sum())} points hold NaN or infinity, the first at row "
            f"{int(finite.argmin())}"
        )
    log_density = mixture.log_prob(values).numpy()[:, None]
    write_columns(out, log_density, ("log_prob",), array_name="log_prob", overwrite=force)


@app.command()
def targets(as_json: AsJson = False, debug: Debug = False) -> None:
    """List the posteriors with known answers."""
    from amfvi.targets import TARGETS, Target, get

    rows = {
        name: {
            "dim": kind.dim,
            "exact draws": issubclass(kind, Target),
            "entropy": get(name).entropy,
            "definition": (kind.__doc__ or "").splitlines()[0].strip(),
            "source": kind.source,
        }
        for name, kind in TARGETS.items()
    }
    _list("target", rows, as_json)


@app.command()
def experts(as_json: AsJson = False, debug: Debug = False) -> None:
    """List the families of experts and their settings."""
    from amfvi.experts import EXPERTS

    rows = {}
    for name, kind in EXPERTS.items():
        module = sys.modules[kind.__module__]
        settings = {k: v for k, v in kind().to_json().items() if k != "kind"}
        shown = settings if as_json else ", ".join(f"{k} {v}" for k, v in settings.items())
        rows[name] = {
            "family": (module.__doc__ or "").splitlines()[0],
            "settings": shown,
        }
    _list("expert", rows, as_json)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, allow_nan=False))


def _show_scores(scores: dict[str, Any]) -> None:
    from amfvi import console

    console.show(
        console.score_table(
            scores["mixture"], scores["experts"], scores["floor"], scores["entropy"]
        )
    )


def _list(what: str, rows: dict[str, dict[str, Any]], as_json: bool) -> None:
    from amfvi import console

    if as_json:
        _print_json(rows)
        return
    columns = list(next(iter(rows.values())))
    cells = [[name, *map(_cell, row.values())] for name, row in rows.items()]
    console.show(console.listing([what, *columns], cells))


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "–"
    return f"{value:.5f}" if isinstance(value, float) else str(value)
