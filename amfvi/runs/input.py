"""The input that the settings of a run name: loaded, read and validated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amfvi import targets
from amfvi.constraints.constraints import ConstraintsLike
from amfvi.density.log_density import LogDensity
from amfvi.draws.readers import read_draws
from amfvi.errors import UsageError
from amfvi.runs.log import RunLog
from amfvi.runs.process_state import UserState
from amfvi.runs.settings import InputSettings
from amfvi.runs.user_function import load_object
from amfvi.sources import DrawsWithDensity, Source, pair
from amfvi.targets import ExactTarget

__all__ = ["RunInput", "load_function", "load_input"]


@dataclass(frozen=True, kw_only=True)
class RunInput:
    """What is fitted, and where it came from.

    Attributes:
        source: exact draws of a target, given draws, or a log density.
        exact: the target, where its exact draws can score the fit.
        file: the file of draws, or of the user's function.
        n_dropped: rows with NaN or infinity that were left out.

    Examples:
        >>> RunInput(source=targets.get("rings")).n_dropped
        0
    """

    source: Source
    exact: ExactTarget | None = None
    file: Path | None = None
    n_dropped: int = 0


def load_input(settings: InputSettings, log: RunLog) -> RunInput:
    """Load the input of a run.

    Raises:
        UsageError: an unknown target, or settings that do not fit a user's density.
        InputError: a file or module that cannot be read, or invalid draws.

    Examples:
        >>> from amfvi.reporting import Reporter
        >>> load_input(InputSettings(target="banana"), RunLog(Reporter())).exact.name
        'banana'
    """
    loaded = _load(settings, log)
    if settings.jobs is not None:
        source = loaded.source
        density = source.density if isinstance(source, DrawsWithDensity) else source
        if isinstance(density, LogDensity):
            density.pool = settings.jobs
    return loaded


def _load(settings: InputSettings, log: RunLog) -> RunInput:
    if settings.target is not None:
        return _load_target(settings)
    if settings.draws is None:
        return _load_log_density(settings)
    path = Path(settings.draws)
    density: Any = None
    constraints: ConstraintsLike = settings.constraints or None
    if settings.log_density is not None:
        density, _ = load_function(settings.log_density)
        if isinstance(density, LogDensity) and constraints is None:
            constraints = density.constraints
    with log.catching_warnings():
        draws = read_draws(
            path,
            nan_policy=settings.nan_policy or "raise",
            constraints=constraints,
            chains=settings.chains,
        )
    if draws.n_omitted:
        log.log(f"left out {draws.n_omitted} rows with NaN or infinity")
    source: Source = draws if density is None else pair(draws, density)
    return RunInput(source=source, file=path, n_dropped=draws.n_omitted)


def _load_target(settings: InputSettings) -> RunInput:
    target = targets.get(str(settings.target))
    exact = target if isinstance(target, ExactTarget) else None
    if settings.by_density:
        density = LogDensity(
            target.log_density,
            target.dim,
            names=target.names,
            constraints=target.constraints,
            box=target.box,
        )
        return RunInput(source=density, exact=exact)
    if exact is None:
        raise UsageError(f"{target.name} has no exact draws; give by_density=True")
    return RunInput(source=exact, exact=exact)


def _load_log_density(settings: InputSettings) -> RunInput:
    loaded, file = load_function(str(settings.log_density))
    return RunInput(source=_to_log_density(loaded, settings), file=file)


def load_function(name: str, argument: str = "log_density") -> tuple[Any, Path | None]:
    """Load a function or an object by its name, its module's settings kept apart; and its file.

    Raises:
        UsageError, InputError: as :func:`~amfvi.runs.user_function.load_object`.

    Examples:
        >>> load_function("math:lgamma")[0](1.0)
        0.0
    """
    state = UserState()
    with state.active():
        loaded, file = load_object(name, argument)
    if isinstance(loaded, LogDensity):
        loaded.function = state.guard(loaded.function)
        if callable(loaded.value_and_grad):
            loaded.value_and_grad = state.guard(loaded.value_and_grad)
        return loaded, file
    return state.guard(loaded) if callable(loaded) else loaded, file


def _to_log_density(loaded: Any, settings: InputSettings) -> LogDensity:
    """The log density that a user's module holds.

    Raises:
        UsageError: settings that do not fit it.
    """
    if isinstance(loaded, LogDensity):
        for name in ("dim", "names", "box", "constraints"):
            if getattr(settings, name) not in (None, {}):
                raise UsageError(f"{name}= does not go with a LogDensity, which has its own")
        return loaded
    if settings.dim is None:
        raise UsageError("log_density= of a function needs its number of parameters: dim=")
    return LogDensity(
        loaded,
        settings.dim,
        box=settings.box,
        names=settings.names,
        constraints=settings.constraints or None,
    )
