"""The commands. Heavy modules are imported when a command runs, not for ``--help``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amfvi.cli import options as opt
from amfvi.cli.conditional import parse_condition, show_scores_of_pairs, show_summary_of_pairs
from amfvi.cli.config_file import describe_options
from amfvi.cli.fit import EXAMPLES, HELP, fit
from amfvi.cli.flags import flags_for_arguments
from amfvi.cli.lists import experts, targets
from amfvi.cli.terminal import (
    GroupedCommand,
    GroupedCommands,
    announce,
    example,
    print_version,
)
from amfvi.errors import ExitCode, UsageError

__all__ = ["app"]

EXIT_CODES = {
    ExitCode.GOOD: "success",
    ExitCode.UNEXPECTED: "a bug in amfvi",
    ExitCode.USAGE: "wrong options",
    ExitCode.INPUT: "wrong or missing input",
    ExitCode.FIT: "a fit failed",
    ExitCode.NOT_TRUSTED: "a fit was written, its verdict is 'do not trust'",
    ExitCode.INTERRUPTED: "interrupted",
    ExitCode.BROKEN_PIPE: "stdout was closed",
    ExitCode.TERMINATED: "terminated",
}
"""What each exit code means."""

FITTING, READING, USING, LISTS = (
    "Fit", "Look at a saved run", "Use a saved run", "What there is to fit",
)  # fmt: skip

app = typer.Typer(
    cls=GroupedCommands,
    help="Fit a mixture of normalizing flows to a posterior, and measure how good it is.",
    epilog="Exit codes: " + ", ".join(f"{int(code)} {text}" for code, text in EXIT_CODES.items()),
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _start(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Hold the options of the program itself."""


app.command(help=HELP, cls=GroupedCommand, rich_help_panel=FITTING, epilog=example(*EXAMPLES))(fit)


@app.command(
    cls=GroupedCommand,
    rich_help_panel=FITTING,
    epilog=example("amfvi init fit.toml", "amfvi fit --config fit.toml --seed 3"),
)
def init(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")] = Path(
        "fit.toml"
    ),
    force: opt.Force = False,
    debug: opt.Debug = False,
) -> None:
    """Write a file with all options of a fit, to be changed."""
    from amfvi.files import new_file

    commands = context.find_root().command
    text = describe_options(commands.get_command(context, "fit"), file.name)  # type: ignore[attr-defined]
    with new_file(file, overwrite=force) as temporary:
        temporary.write_text(text, encoding="utf-8")
    typer.echo(f"written: {file}")


@app.command(
    cls=GroupedCommand,
    rich_help_panel=READING,
    epilog=example("amfvi evaluate runs/banana-0 --draws more.csv"),
)
def evaluate(
    run: opt.Run,
    target: Annotated[
        str | None, typer.Option(metavar="NAME", help="Score on exact draws of this target.")
    ] = None,
    draws: Annotated[
        str | None, typer.Option(metavar="FILE", help="Score on the draws of this file.")
    ] = None,
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> None:
    """Score a saved run again, or on other draws.

    Without --target or --draws it is scored as when it was fitted; of pairs on those held back.
    """
    announce(f"scoring {run}")
    from amfvi.cli import console
    from amfvi.runs.conditional_saved import is_run_of_pairs
    from amfvi.runs.saved import SavedRun

    if is_run_of_pairs(run):
        if target is not None or draws is not None:
            raise UsageError(f"{run}: a run of pairs is scored on those it held back")
        show_scores_of_pairs(run, as_json)
        return

    saved = SavedRun.open(run)
    scores = saved.evaluate(target, draws, floor_cache=console.floor_cache()).to_json()
    if as_json:
        console.print_json(scores)
    else:
        console.show_scores(scores)


@app.command(
    cls=GroupedCommand,
    rich_help_panel=READING,
    epilog=example("amfvi summary runs/banana-0 --json"),
)
def summary(run: opt.Run, as_json: opt.AsJson = False, debug: opt.Debug = False) -> None:
    """Show the parameters, weights and scores of a saved run."""
    from amfvi.cli import console
    from amfvi.runs.conditional_saved import is_run_of_pairs

    if is_run_of_pairs(run):
        show_summary_of_pairs(run, as_json)
        return
    from amfvi.cli.summary import summarize
    from amfvi.cli.tables import posterior_table
    from amfvi.runs.saved import SavedRun

    saved = SavedRun.open(run)
    draws, names = saved.draws()
    rows, metrics = summarize(draws, names), saved.metrics
    if as_json:
        console.print_json({"parameters": rows, "metrics": metrics})
        return
    console.show(posterior_table(rows))
    console.show_run(metrics)
    for line in metrics["warnings"]:
        console.show(f"warning: {flags_for_arguments(line)}")


@app.command(
    cls=GroupedCommand, rich_help_panel=READING, epilog=example("amfvi report runs/banana-0")
)
def report(run: opt.Run, debug: opt.Debug = False) -> None:
    """Write the report of a saved run again and print its path.

    A fit writes it too: one page, report.html in the run directory, with the verdict and what to
    do next, the evidence, parameters, scores, figures and settings. It loads nothing.
    """
    from amfvi.cli.report import write_report

    typer.echo(write_report(run))


@app.command(
    cls=GroupedCommand,
    rich_help_panel=READING,
    epilog=example("amfvi compare runs/banana-0 runs/banana-1 --html compared.html"),
)
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Two run directories or more.")],
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the table as a page too.", rich_help_panel=opt.OUTPUT
        ),
    ] = None,
    force: opt.Force = False,
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> None:
    """Put saved runs beside each other.

    Shows verdicts, evidence with Bayes factors, scores, seconds and evaluations, and how far
    means of shared parameters differ from those of the first run.
    """
    from amfvi.cli.report import show_comparison

    show_comparison(runs, html, force, as_json)


@app.command(
    cls=GroupedCommand,
    rich_help_panel=USING,
    epilog=example("amfvi sample runs/banana-0 -n 10000 --out draws.csv"),
)
def sample(
    run: opt.Run,
    n: Annotated[
        int, typer.Option("-n", "--n", metavar="N", min=1, help="Number of draws.")
    ] = 1000,
    given: opt.Condition = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the draws.")] = 0,
    out: opt.OutFile = None,
    device: opt.Device = "auto",
    force: opt.Force = False,
    debug: opt.Debug = False,
) -> None:
    """Draw from the mixture of a saved run."""
    announce(f"sampling {run}")
    from amfvi.device import resolve_device
    from amfvi.draws.writers import check_writable, write_columns
    from amfvi.loading import load, load_posterior
    from amfvi.posterior import Posterior
    from amfvi.randomness import generator_for

    check_writable(out, overwrite=force)
    on = resolve_device(device)
    posterior = load_posterior(run, device=on) if given is None else load(run, device=on)
    generator = generator_for(seed, "sample")
    if given is None and isinstance(posterior, Posterior):
        draws = posterior.sample((n,), generator).numpy()
    elif given is not None and not isinstance(posterior, Posterior):
        draws = posterior.sample(n, given=parse_condition(given), generator=generator).numpy()
    else:
        raise UsageError(f"{run}: given= goes with a fit to pairs, and this is none")
    write_columns(out, draws, posterior.names, array_name="draws", overwrite=force)


@app.command(
    cls=GroupedCommand, rich_help_panel=READING, epilog=example("amfvi calibrate runs/pairs-0")
)
def calibrate(
    run: opt.Run,
    n_draws: Annotated[
        int, typer.Option(metavar="N", min=10, help="Draws at each condition.")
    ] = 200,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the draws.")] = 0,
    figures: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Draw its figures into this folder.")
    ] = None,
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> None:
    """Measure the calibration of a fit to pairs."""
    announce(f"calibrating {run}")
    from amfvi.cli import console
    from amfvi.runs.conditional_saved import SavedConditionalRun

    saved = SavedConditionalRun(run)
    calibration = saved.calibrate(n_draws=n_draws, seed=seed, figures=figures)
    if as_json:
        console.print_json(calibration.to_json())
    else:
        console.show(str(calibration))


@app.command(
    cls=GroupedCommand,
    rich_help_panel=USING,
    epilog=example("amfvi log-prob runs/banana-0 --points points.csv"),
)
def log_prob(
    run: opt.Run,
    points: Annotated[
        Path, typer.Option(metavar="FILE", help="Evaluate at the points of a file, as for draws.")
    ],
    out: opt.OutFile = None,
    device: opt.Device = "auto",
    force: opt.Force = False,
    debug: opt.Debug = False,
) -> None:
    """Evaluate the log density of a saved run, in nats."""
    announce(f"evaluating {run}")
    from amfvi.device import resolve_device
    from amfvi.draws.readers import read_points
    from amfvi.draws.writers import check_writable, write_columns
    from amfvi.loading import load_posterior as load

    check_writable(out, overwrite=force)
    posterior = load(run, device=resolve_device(device))
    values = read_points(points, posterior.names)
    log_density = posterior.log_prob(values).numpy()[:, None]
    write_columns(out, log_density, ("log_prob",), array_name="log_prob", overwrite=force)


for _list, _example in ((targets, "amfvi targets"), (experts, "amfvi experts")):
    app.command(cls=GroupedCommand, rich_help_panel=LISTS, epilog=example(_example))(_list)
