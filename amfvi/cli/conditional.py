"""What the command line does with pairs: fit them, and read conditions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from amfvi.cli import options as opt
from amfvi.cli.flags import flags_for_arguments
from amfvi.cli.values import choose_experts, parse_bounds, split_names
from amfvi.errors import UsageError

__all__ = [
    "fit_conditional",
    "is_conditional_fit",
    "parse_condition",
    "show_scores_of_pairs",
    "show_summary_of_pairs",
]

DEFAULT_EXPERTS = "maf,realnvp,rbig"
"""The flag's default, which stands for the experts of pairs here."""

NOT_FOR_PAIRS = (
    "log_density", "dim", "box", "max_evaluations", "max_refinements", "n_weight_draws",
    "chains", "nan_policy",
)  # fmt: skip
"""Flags of ``amfvi fit`` that pairs have no use for."""


def is_conditional_fit(flags: dict[str, Any]) -> bool:
    """Whether the flags of ``amfvi fit`` are for pairs.

    Examples:
        >>> flags = dict.fromkeys(["given_columns", "simulator", "prior", "target"])
        >>> is_conditional_fit({**flags, "given_columns": "c1"})
        True
    """
    if any(flags[name] is not None for name in ("given_columns", "simulator", "prior")):
        return True
    if flags["target"] is None:
        return False
    from amfvi.targets.conditional import CONDITIONAL

    return flags["target"] in CONDITIONAL


def fit_conditional(flags: dict[str, Any]) -> Path:
    """Run ``amfvi fit`` for pairs; the run directory.

    Raises:
        UsageError, InputError, FitError: as :func:`amfvi.runs.conditional_run.run_conditional`.

    Examples:
        >>> flags = dict.fromkeys(["simulator", "prior", "jobs", "draws", "target"])
        >>> fit_conditional({**flags, "given_columns": "c"})
        Traceback (most recent call last):
        amfvi.errors.UsageError: given= names columns of a file of pairs: give draws=FILE
    """
    _check(flags)
    from amfvi.cli import console
    from amfvi.cli.tables import weights_line
    from amfvi.runs.conditional_run import ConditionalRun, run_conditional
    from amfvi.two_stage.options import FitOptions

    chosen = flags["experts"]
    settings = ConditionalRun(
        **_source(flags),
        options=FitOptions(
            experts=choose_experts(
                ["conditional"] if chosen == DEFAULT_EXPERTS else split_names(chosen),
                flags["settings"],
            ),
            **{
                name: flags[name]
                for name in (
                    "weight_rule", "beta", "n_draws", "folds", "test_fraction", "timeout", "seed",
                    "device", "cluster",
                )
            },
        ),
        out=flags["out"],
        force=flags["force"],
        figures=not flags["no_figures"],
    )  # fmt: skip
    with console.prints_on_stderr(), console.reporting(flags["quiet"]) as reporter:
        metrics = run_conditional(settings, reporter=reporter)
    if flags["as_json"]:
        console.print_json(metrics)
        return settings.directory
    show_calibration(metrics["calibration"])
    console.show(*_failed_line(metrics), weights_line(metrics), f"saved:   {settings.directory}")
    return settings.directory


def _check(flags: dict[str, Any]) -> None:
    """Check that the flags of ``amfvi fit`` go with pairs, and with each other.

    Raises:
        UsageError: one does not.
    """
    if flags["simulator"] is not None:
        for name in ("draws", "target"):
            if flags[name] is not None:
                raise UsageError(f"give simulator= or {name}=, not both")
    else:
        for name in ("prior", "jobs"):
            if flags[name] is not None:
                raise UsageError(f"{name}= goes with simulator=")
        if flags["given_columns"] is not None and flags["draws"] is None:
            raise UsageError("given= names columns of a file of pairs: give draws=FILE")
    for name in (*NOT_FOR_PAIRS, *["names"] * (flags["simulator"] is None)):
        if flags[name]:
            raise UsageError(f"{name}= does not go with pairs")
    if flags["by"] is not opt.From.draws:
        raise UsageError("by_density= does not go with pairs")


def _source(flags: dict[str, Any]) -> dict[str, Any]:
    """What gives the pairs, as arguments of ``ConditionalRun``."""
    from amfvi.runs.simulations import SimulatorSettings

    constraints = parse_bounds(flags["positive"], flags["bounds"] or [])
    names, given = (
        None if flags[name] is None else tuple(split_names(flags[name]))
        for name in ("names", "given_columns")
    )
    if flags["simulator"] is not None:
        simulator = SimulatorSettings(
            simulator=flags["simulator"], prior=flags["prior"], names=names, given_names=given,
            constraints=constraints, jobs=flags["jobs"] or 1,
        )  # fmt: skip
        return {"simulator": simulator}
    data = flags["draws"] if given else flags["target"]
    return {"data": data, "given": given, "constraints": constraints}


def show_calibration(calibration: dict[str, Any] | None) -> None:
    """Print the verdict of a calibration, and why.

    Examples:
        >>> show_calibration(None)
    """
    from amfvi.cli import console

    if calibration is not None:
        console.show(f"{calibration['verdict']}: {'; '.join(calibration['reasons'])}")


def _failed_line(metrics: Mapping[str, Any]) -> list[str]:
    if not metrics.get("n_failed"):
        return []
    return [f"failed:  {metrics['n_failed']} of {metrics['n_simulated']} simulations"]


def show_summary_of_pairs(run: Path, as_json: bool) -> None:
    """Print what a run of pairs was fitted to, its calibration, weights and files.

    Raises:
        InputError: a file that is missing or damaged.

    Examples:
        >>> show_summary_of_pairs(Path("no-such-run"), as_json=False)
        Traceback (most recent call last):
        amfvi.errors.MissingFileError: no-such-run/config.json: no such file
    """
    from amfvi.cli import console
    from amfvi.cli.tables import weights_line
    from amfvi.runs.conditional_saved import SavedConditionalRun

    metrics = SavedConditionalRun(run).metrics
    files = sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
    if as_json:
        console.print_json({"metrics": metrics, "files": files})
        return
    console.show(
        f"p({', '.join(metrics['names'])} | {', '.join(metrics['given_names'])})",
        f"pairs:   {metrics['n_fitted']} fitted, {metrics['n_held_back']} held back",
        *_failed_line(metrics),
        weights_line(metrics),
        f"files:   {', '.join(files)}",
    )
    show_calibration(metrics["calibration"])
    for line in metrics["warnings"]:
        console.show(f"warning: {flags_for_arguments(line)}")


def show_scores_of_pairs(run: Path, as_json: bool) -> None:
    """Print negative log densities of the pairs that a run held back.

    Raises:
        InputError: a file that is missing or damaged, or no pairs were held back.

    Examples:
        >>> show_scores_of_pairs(Path("no-such-run"), as_json=False)
        Traceback (most recent call last):
        amfvi.errors.MissingFileError: no-such-run: no such model or run directory
    """
    from amfvi.cli import console
    from amfvi.runs.conditional_saved import SavedConditionalRun

    scores = SavedConditionalRun(run).evaluate()
    if as_json:
        console.print_json(scores)
        return
    console.show(f"NLL of {scores['n_test']} held-back pairs, nats:")
    for name, each in {**scores["experts"], "mixture": scores["mixture"]}.items():
        weight = f"  (weight {each['weight']:.3f})" if "weight" in each else ""
        console.show(f"{name:<12} {each['nll']:.3f} ± {each['nll_se']:.3f}{weight}")


def parse_condition(text: str) -> dict[str, float]:
    """Read ``--given c1=.3,c2=1`` as numbers by name.

    Raises:
        UsageError: not of that form.

    Examples:
        >>> parse_condition("c1=.3, c2=1")
        {'c1': 0.3, 'c2': 1.0}
    """
    return dict(_pairs(split_names(text)))


def _pairs(parts: Iterable[str]) -> Iterable[tuple[str, float]]:
    for part in parts:
        name, _, value = part.partition("=")
        try:
            yield name.strip(), float(value)
        except ValueError:
            raise UsageError(
                f"a condition is written name=number,name=number, found {part!r}"
            ) from None
