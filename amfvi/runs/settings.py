"""The settings of a run: what is fitted, how, and where the results go."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amfvi.errors import UsageError
from amfvi.two_stage.options import FitOptions, InputKind

__all__ = ["InputSettings", "RunSettings", "name_of_function"]


USUAL_NAMES = ("log_prob", "log_density", "simulate", "simulator")
"""Names of functions that tell less than those of their modules."""


def name_of_function(spec: str) -> str:
    """The name of ``module:function``, or the module's where the function's is a usual one.

    Examples:
        >>> name_of_function("models/epidemic.py:simulate"), name_of_function("epidemic:waves")
        ('epidemic', 'waves')
    """
    where, _, name = spec.rpartition(":")
    module = Path(where).stem if where.endswith(".py") else where.rpartition(".")[-1]
    return module if name in USUAL_NAMES else name


@dataclass(frozen=True, kw_only=True)
class InputSettings:
    """What to fit: a target, a file of draws, a log density, or draws with their log density.

    Attributes:
        target: name of a target.
        by_density: hand the target's log density to the sampler instead of exact draws.
        draws: path of a file of draws.
        chains: whether its array is chains × draws × parameters.
        nan_policy: "raise", or "omit" to leave rows with NaN or infinity out.
        log_density: ``module:name`` of a function or of a ``LogDensity``.
        dim, names, box: of a log density that is a function, without draws.
        jobs: processes that evaluate a log density; None: this one.
        constraints: (lower, upper) by parameter name.

    Raises:
        UsageError: a target beside another input, no input, or a setting that the input has
            no use for.

    Examples:
        >>> InputSettings(target="banana").name
        'banana'
        >>> InputSettings()
        Traceback (most recent call last):
        amfvi.errors.UsageError: give target=, draws=, log_density=, or draws= and log_density=
    """

    target: str | None = None
    by_density: bool = False
    draws: str | None = None
    chains: bool = False
    nan_policy: str | None = None
    log_density: str | None = None
    dim: int | None = None
    names: tuple[str, ...] | None = None
    box: Any = None
    jobs: int | None = None
    constraints: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        others = [one for one in (self.draws, self.log_density) if one is not None]
        if (self.target is None) == (not others):
            raise UsageError("give target=, draws=, log_density=, or draws= and log_density=")
        if self.by_density and self.target is None:
            raise UsageError("by_density= goes with target=")
        self._require("log_density", "dim", "names", "box")
        self._require("draws", "chains", "nan_policy")
        for name in ("dim", "names", "box"):
            if self.draws is not None and getattr(self, name) is not None:
                raise UsageError(f"{name}= goes with log_density= alone; draws= have their own")
        if self.jobs is not None and self.log_density is None and not self.by_density:
            raise UsageError("jobs= goes with log_density=, by_density= or simulator=")
        if self.constraints and self.target is not None:
            raise UsageError("constraints= goes with draws; a target has its own")

    @property
    def kind(self) -> InputKind:
        """The kind of input, for options that apply to some kinds only."""
        if self.draws is not None and self.log_density is not None:
            return InputKind.DRAWS_WITH_DENSITY
        if self.log_density is not None or self.by_density:
            return InputKind.DENSITY
        return InputKind.TARGET if self.target is not None else InputKind.DRAWS

    @property
    def name(self) -> str:
        """The target's name, the file's without its ending, or the function's."""
        if self.target is not None:
            return self.target
        if self.draws is not None:
            return Path(self.draws).stem
        return name_of_function(str(self.log_density))

    def to_json(self) -> dict[str, Any]:
        """Describe the input in JSON values."""
        described = dataclasses.asdict(self)
        described["constraints"] = {n: list(pair) for n, pair in self.constraints.items()}
        return described

    def _require(self, source: str, *names: str) -> None:
        for name in names:
            if getattr(self, name) not in (None, False) and getattr(self, source) is None:
                raise UsageError(f"{name}= goes with {source}=")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """A run: its input, its options, and its directory.

    Attributes:
        input: what to fit.
        options: how to fit.
        out: the run directory; ``runs/<name>-<seed>`` if None.
        force: whether a run directory that is already there may be replaced.
        figures: whether to draw figures.

    Raises:
        UsageError: an option that the input has no use for.

    Examples:
        >>> settings = RunSettings(input=InputSettings(target="rings"), options=FitOptions(seed=3))
        >>> settings.directory.as_posix()
        'runs/rings-3'
    """

    input: InputSettings
    options: FitOptions = field(default_factory=FitOptions)
    out: str | None = None
    force: bool = False
    figures: bool = True

    def __post_init__(self) -> None:
        self.options.check_for(self.input.kind)

    @property
    def directory(self) -> Path:
        """The run directory."""
        default = Path("runs") / f"{self.input.name}-{self.options.seed}"
        return Path(self.out) if self.out else default

    @property
    def checkpoint(self) -> Path:
        """The directory in which the sampler saves its state, beside the run directory."""
        return self.directory.parent / f".{self.directory.name}.sampler"

    def to_json(self) -> dict[str, Any]:
        """Describe the run in JSON values."""
        return {
            **self.input.to_json(),
            **self.options.to_json(),
            "out": self.out,
            "force": self.force,
            "figures": self.figures,
        }
