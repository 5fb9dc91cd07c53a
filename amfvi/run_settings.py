"""What a run is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amfvi.errors import UsageError
from amfvi.experts import ExpertConfig
from amfvi.log_density import LogDensity
from amfvi.two_stages import FOLDS

__all__ = ["RunSettings"]


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What to fit, how, and where to; exactly one of target, draws and log density.

    Attributes:
        target: name of a target.
        draws: path of a file of draws.
        log_density: ``module:name`` of a function or of a ``LogDensity``.
        by_density: hand the target's log density to the sampler instead of exact draws.
        dim, names, box: of a log density that is a function.
        bounds: (lower, upper) by parameter name.
        max_calls, rounds: of a log density, see ``amfvi.fit``.
        timeout: seconds from the start of the run after which training stops.
        out: the run directory; ``runs/<name>-<seed>`` if None.
    """

    experts: Mapping[str, ExpertConfig]
    target: str | None = None
    draws: str | None = None
    log_density: str | None = None
    by_density: bool = False
    dim: int | None = None
    names: tuple[str, ...] | None = None
    box: Any = None
    max_calls: int | None = None
    rounds: int | None = None
    weights: str = "ema"
    beta: float | None = None
    n_draws: int | None = None
    n_fresh: int = 0
    folds: int = FOLDS
    test_fraction: float | None = None
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    chains: bool = False
    nonfinite: str | None = None
    seed: int = 0
    device: str = "auto"
    timeout: float | None = None
    out: str | None = None
    force: bool = False
    figures: bool = True

    @property
    def name(self) -> str:
        """The target's name, the file's without its ending, or the function's."""
        if self.target is not None:
            return self.target
        if self.log_density is not None:
            where, _, name = self.log_density.rpartition(":")
            return name if name not in ("log_prob", "log_density") else Path(where).stem
        return Path(str(self.draws)).stem

    @property
    def directory(self) -> Path:
        return Path(self.out) if self.out else Path("runs") / f"{self.name}-{self.seed}"

    @property
    def checkpoint(self) -> Path:
        """Where the sampler saves how far it is, beside the run directory."""
        return self.directory.parent / f".{self.directory.name}.sampler"

    def check(self) -> None:
        """Check what goes with what.

        Raises:
            UsageError: two inputs or none, or an option that the input has no use for.
        """
        given = [self.target, self.draws, self.log_density]
        if sum(one is not None for one in given) != 1:
            raise UsageError(
                "give exactly one of --target NAME, --draws FILE and --log-density MODULE:FUNCTION"
            )
        if self.by_density and self.target is None:
            raise UsageError("--from goes with --target")
        for_functions = {"dim": self.dim, "names": self.names, "box": self.box}
        for_densities = {"max-calls": self.max_calls, "rounds": self.rounds}
        for_draws = {"chains": self.chains or None, "nonfinite": self.nonfinite}
        of_density = self.log_density is not None or self.by_density
        _refuse(for_functions, self.log_density is not None, "--log-density")
        _refuse(for_densities, of_density, "a log density (--log-density, or --from density)")
        _refuse(for_draws, self.draws is not None, "--draws")
        _refuse({"n-fresh": self.n_fresh or None}, self.target is not None and not of_density,
                "exact draws of a target")  # fmt: skip
        _refuse({"n-draws": self.n_draws}, self.draws is None, "a target or a log density")
        _refuse(
            {"test-fraction": self.test_fraction}, self.target is None, "--draws or --log-density"
        )
        if self.bounds and self.target is not None:
            raise UsageError("--positive and --bounds go with draws; a target knows its own")

    def density_of(self, found: Any) -> LogDensity:
        """The log density that a user's module holds.

        Raises:
            UsageError: options that do not fit it.
        """
        if isinstance(found, LogDensity):
            given = {"dim": self.dim, "names": self.names, "box": self.box,
                     "bounds": self.bounds or None}  # fmt: skip
            for name, value in given.items():
                if value is not None:
                    raise UsageError(f"--{name} does not go with a LogDensity, which has its own")
            return found
        if self.dim is None:
            raise UsageError("--log-density of a function needs its number of parameters: --dim D")
        return LogDensity(
            found, self.dim, box=self.box, names=self.names, constraints=self.bounds or None
        )


def _refuse(given: Mapping[str, Any], fits: bool, wanted: str) -> None:
    for name, value in given.items():
        if value is not None and not fits:
            raise UsageError(f"--{name} goes with {wanted}")
