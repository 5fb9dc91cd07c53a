"""What the command line does with pairs: fit them, and read conditions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from amfvi.cli import options as opt
from amfvi.errors import UsageError

__all__ = ["fit_conditional", "is_conditional_fit", "parse_condition"]

DEFAULT_EXPERTS = "maf,realnvp,rbig"
"""The flag's default, which stands for the experts of pairs here."""

NOT_FOR_PAIRS = (
    "log_density", "dim", "names", "box", "max_evaluations", "max_refinements", "n_weight_draws",
    "chains", "nan_policy",
)  # fmt: skip
"""Flags of ``amfvi fit`` that pairs have no use for."""


def is_conditional_fit(flags: dict[str, Any]) -> bool:
    """Whether the flags of ``amfvi fit`` are for pairs.

    Examples:
        >>> is_conditional_fit({"given_columns": "c1", "target": None})
        True
    """
    if flags["given_columns"] is not None:
        return True
    if flags["target"] is None:
        return False
    from amfvi.targets.conditional import CONDITIONAL

    return flags["target"] in CONDITIONAL


def fit_conditional(flags: dict[str, Any]) -> None:
    """Run ``amfvi fit`` for pairs.

    Raises:
        UsageError, InputError, FitError: as :func:`amfvi.runs.conditional_run.run_conditional`.

    Examples:
        >>> fit_conditional({"given_columns": "c", "draws": None, "target": None})
        Traceback (most recent call last):
        amfvi.errors.UsageError: given= names columns of a file of pairs: give draws=FILE
    """
    if flags["given_columns"] is not None and flags["draws"] is None:
        raise UsageError("given= names columns of a file of pairs: give draws=FILE")
    for name in NOT_FOR_PAIRS:
        if flags[name]:
            raise UsageError(f"{name}= does not go with pairs")
    if flags["by"] is not opt.From.draws:
        raise UsageError("by_density= does not go with pairs")
    from amfvi.cli import console
    from amfvi.cli.tables import weights_line
    from amfvi.runs.conditional_run import ConditionalRun, run_conditional
    from amfvi.two_stage.options import FitOptions

    chosen = flags["experts"]
    settings = ConditionalRun(
        data=flags["draws"] if flags["given_columns"] else flags["target"],
        given=tuple(opt.split_names(flags["given_columns"])) if flags["given_columns"] else None,
        constraints=opt.parse_bounds(flags["positive"], flags["bounds"] or []),
        options=FitOptions(
            experts="conditional" if chosen == DEFAULT_EXPERTS else opt.split_names(chosen),
            **{
                name: flags[name]
                for name in (
                    "weight_rule", "beta", "n_draws", "folds", "test_fraction", "timeout", "seed",
                    "device",
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
        return
    show_calibration(metrics["calibration"])
    console.show(weights_line(metrics), f"saved:   {settings.directory}")


def show_calibration(calibration: dict[str, Any] | None) -> None:
    """Print the verdict of a calibration, and why.

    Examples:
        >>> show_calibration(None)
    """
    from amfvi.cli import console

    if calibration is not None:
        console.show(f"{calibration['verdict']}: {'; '.join(calibration['reasons'])}")


def parse_condition(text: str) -> dict[str, float]:
    """Read ``--given c1=.3,c2=1`` as numbers by name.

    Raises:
        UsageError: not of that form.

    Examples:
        >>> parse_condition("c1=.3, c2=1")
        {'c1': 0.3, 'c2': 1.0}
    """
    return dict(_pairs(opt.split_names(text)))


def _pairs(parts: Iterable[str]) -> Iterable[tuple[str, float]]:
    for part in parts:
        name, _, value = part.partition("=")
        try:
            yield name.strip(), float(value)
        except ValueError:
            raise UsageError(
                f"a condition is written name=number,name=number, found {part!r}"
            ) from None
