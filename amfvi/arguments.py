"""Arguments of ``amfvi.fit``: which there are, and which go with which input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypedDict

from amfvi.constraints.constraints import ConstraintsLike
from amfvi.device import resolve_device
from amfvi.draws.draws import Draws, WeightsLike
from amfvi.errors import UsageError, unknown_name
from amfvi.two_stage.options import FitOptions, FitSettings, InputKind

__all__ = [
    "DRAWS_SETTINGS",
    "FIT_SETTINGS",
    "DrawsSettings",
    "Settings",
    "check_checkpoint",
    "check_condition",
    "check_names",
    "check_options",
    "sort_settings",
]


class DrawsSettings(TypedDict, total=False):
    """Keyword arguments of :func:`amfvi.fit` that describe given draws.

    Examples:
        >>> settings: DrawsSettings = {"names": ["mu"], "nan_policy": "omit"}
    """

    names: Sequence[str] | None
    constraints: ConstraintsLike
    sample_weight: WeightsLike | None
    chains: bool
    nan_policy: str


class Settings(FitSettings, DrawsSettings, total=False):
    """All keyword arguments of :func:`amfvi.fit` beside ``options`` and ``reporter``.

    Examples:
        >>> settings: Settings = {"experts": "gmm", "names": ["mu"]}
    """


FIT_SETTINGS = tuple(field.name for field in fields(FitOptions))
"""Keyword arguments of :func:`amfvi.fit` that are options."""

DRAWS_SETTINGS = tuple(DrawsSettings.__annotations__)
"""Keyword arguments of :func:`amfvi.fit` that describe given draws."""


def check_checkpoint(kind: InputKind, checkpoint: str | Path | None) -> None:
    """Check that there is something to keep in a checkpoint.

    Raises:
        UsageError: there is not.

    Examples:
        >>> check_checkpoint(InputKind.DENSITY, "state")
    """
    if not isinstance(checkpoint, str | Path | None):
        raise UsageError(f"checkpoint= must be a directory, found {checkpoint!r}")
    if checkpoint is not None and kind not in (InputKind.DENSITY, InputKind.SIMULATOR):
        raise UsageError(f"checkpoint= goes with a log density or a simulator, the input is {kind}")


def check_options(options: FitOptions, kind: InputKind) -> FitOptions:
    """Options that go with the input, checked before any draw is made.

    Raises:
        UsageError: one does not, or an unknown device.

    Examples:
        >>> check_options(FitOptions(seed=1), InputKind.DRAWS).seed
        1
    """
    options.check_for(kind)
    resolve_device(options.device)
    return options


def check_condition(kind: InputKind | None, given_names: Any, density: Any) -> None:
    """Check the arguments that go only with a condition, or not with one.

    Raises:
        UsageError: one does not go with the input.

    Examples:
        >>> check_condition(None, ["c"], None)
        Traceback (most recent call last):
        amfvi.errors.UsageError: given_names= goes with given=
    """
    if kind is None and given_names is not None:
        raise UsageError("given_names= goes with given=")
    if kind is not None and density is not None:
        raise UsageError(f"density= goes with given draws, the input is {kind}")


def check_names(
    of_draws: Mapping[str, Any], data: Any, kind: InputKind, options: FitOptions
) -> None:
    """Check the options, and that what describes an array or a file of draws is given with one.

    Raises:
        UsageError: one does not go with the input.

    Examples:
        >>> check_names({}, None, InputKind.DRAWS, FitOptions())
    """
    check_options(options, kind)
    for name in of_draws:
        if kind in (InputKind.TARGET, InputKind.DENSITY) or isinstance(data, Draws):
            source = "amfvi.Draws, which have their own" if isinstance(data, Draws) else kind
            raise UsageError(
                f"{name}= goes with an array or a file of draws, the input is {source}"
            )


def sort_settings(
    settings: Mapping[str, Any], options: FitOptions | None
) -> tuple[dict[str, Any], FitOptions]:
    """The settings that describe draws, and those of the fit.

    Raises:
        UsageError: an unknown one, or a fit's beside ``options``.

    Examples:
        >>> of_draws, options = sort_settings({"names": ["mu"], "seed": 1}, None)
        >>> of_draws, options.seed
        ({'names': ['mu']}, 1)
    """
    of_draws = {key: value for key, value in settings.items() if key in DRAWS_SETTINGS}
    of_fit = {key: value for key, value in settings.items() if key not in DRAWS_SETTINGS}
    for name in of_fit:
        if name not in FIT_SETTINGS:
            raise unknown_name("option of fit", name, [*FIT_SETTINGS, *DRAWS_SETTINGS])
    if options is None:
        return of_draws, FitOptions(**of_fit)
    if of_fit:
        raise UsageError(f"give options= or {next(iter(of_fit))}=, not both")
    return of_draws, options
