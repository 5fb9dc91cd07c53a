"""The commands. Heavy modules are imported when a command runs, not for ``--help``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from amfvi.cli import options as opt
from amfvi.cli.fit import fit

__all__ = ["app"]

app = typer.Typer(
    help="Fit a mixture of normalizing flows to a posterior, and find out how good it is.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(fit)


@app.command()
def evaluate(
    run: opt.Run,
    target: Annotated[str | None, typer.Option(help="Score on this target.")] = None,
    draws: Annotated[str | None, typer.Option(help="Score on these draws.")] = None,
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> None:
    """Score a saved run again, as it was scored at first or on other draws."""
    from amfvi.cli import console
    from amfvi.runs.saved import SavedRun

    saved = SavedRun.open(run)
    scores = saved.evaluate(target, draws, floor_cache=console.floor_cache()).to_json()
    if as_json:
        console.print_json(scores)
    else:
        console.show_scores(scores)


@app.command()
def summary(run: opt.Run, as_json: opt.AsJson = False, debug: opt.Debug = False) -> None:
    """Show the posterior of each parameter, the weights and the scores of a saved run."""
    from amfvi.cli import console
    from amfvi.cli.summary import summarize
    from amfvi.runs.saved import SavedRun

    saved = SavedRun.open(run)
    draws, names = saved.draws()
    rows, metrics = summarize(draws, names), saved.metrics
    if as_json:
        console.print_json({"parameters": rows, "metrics": metrics})
        return
    console.show(console.posterior_table(rows))
    console.show_run(metrics)
    for line in metrics["warnings"]:
        console.show(f"warning: {line}")


@app.command()
def sample(
    run: opt.Run,
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="How many draws.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
    out: opt.OutFile = None,
    device: opt.Device = "auto",
    force: opt.Force = False,
    debug: opt.Debug = False,
) -> None:
    """Draw from a saved mixture."""
    from amfvi.device import resolve_device
    from amfvi.draws.writers import check_writable, write_columns
    from amfvi.posterior import load
    from amfvi.randomness import generator_for

    check_writable(out, overwrite=force)
    posterior = load(run, device=resolve_device(device))
    draws = posterior.sample((n,), generator_for(seed, "sample")).numpy()
    write_columns(out, draws, posterior.names, array_name="draws", overwrite=force)


@app.command()
def log_prob(
    run: opt.Run,
    points: Annotated[Path, typer.Option(help="A CSV, NPY or NPZ file of points.")],
    out: opt.OutFile = None,
    device: opt.Device = "auto",
    force: opt.Force = False,
    debug: opt.Debug = False,
) -> None:
    """Log density in nats of a saved mixture at the points of a file."""
    from amfvi.device import resolve_device
    from amfvi.draws.readers import read_points
    from amfvi.draws.writers import check_writable, write_columns
    from amfvi.posterior import load

    check_writable(out, overwrite=force)
    posterior = load(run, device=resolve_device(device))
    values = read_points(points, posterior.names)
    log_density = posterior.log_prob(values).numpy()[:, None]
    write_columns(out, log_density, ("log_prob",), array_name="log_prob", overwrite=force)


@app.command()
def targets(as_json: opt.AsJson = False, debug: opt.Debug = False) -> None:
    """List the targets: posteriors with known answers."""
    from amfvi.cli import console
    from amfvi.targets import TARGETS, ExactTarget, get

    rows = {}
    for name, kind in TARGETS.items():
        target = get(name)
        rows[name] = {
            "dim": target.dim,
            "exact draws": isinstance(target, ExactTarget),
            "entropy": target.entropy,
            "definition": (kind.__doc__ or "").splitlines()[0].strip(),
            "source": target.source,
        }
    console.show_listing("target", rows, as_json)


@app.command()
def experts(as_json: opt.AsJson = False, debug: opt.Debug = False) -> None:
    """List the experts and their settings."""
    from amfvi.cli import console
    from amfvi.experts import EXPERTS

    rows = {}
    for name, kind in EXPERTS.items():
        module = sys.modules[kind.__module__]
        settings = {k: v for k, v in kind().to_json().items() if k != "kind"}
        rows[name] = {
            "family": (module.__doc__ or "").splitlines()[0],
            "settings": settings if as_json else ", ".join(f"{k} {v}" for k, v in settings.items()),
        }
    console.show_listing("expert", rows, as_json)
