"""The simulations of a run: made by a user's functions, kept until the run is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from amfvi.errors import InputError, UsageError
from amfvi.files import file_hash
from amfvi.reporting import Reporter
from amfvi.runs.input import load_function
from amfvi.runs.settings import name_of_function
from amfvi.simulation.simulations import Simulations
from amfvi.simulation.simulator import Simulator

__all__ = ["SimulatorSettings", "load_simulator", "make_simulations", "write_simulations"]

SIMULATIONS = "simulations.npz"
"""The file of all pairs in the directory of a run of a simulator, which --draws reads, too."""


@dataclass(frozen=True, kw_only=True)
class SimulatorSettings:
    """A simulator and a prior, named as ``module:name`` or ``file.py:name``.

    Attributes:
        simulator: a function, or an ``amfvi.Simulator``.
        prior: a distribution or a function; None for an ``amfvi.Simulator``, which has one.
        names, given_names: of the parameters and of the data; None for what they are called.
        constraints: (lower, upper) by name of a parameter.
        jobs: processes that simulate.

    Raises:
        UsageError: no positive number of processes.

    Examples:
        >>> SimulatorSettings(simulator="epidemic.py:simulate", prior="epidemic.py:prior").name
        'epidemic'
    """

    simulator: str
    prior: str | None
    names: tuple[str, ...] | None = None
    given_names: tuple[str, ...] | None = None
    constraints: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    jobs: int = 1

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise UsageError(f"jobs= must be a positive number of processes, found {self.jobs}")

    @property
    def name(self) -> str:
        """The function's name, or its module's."""
        return name_of_function(self.simulator)

    def to_json(self) -> dict[str, Any]:
        """Describe the simulator in JSON values, with a hash of its file."""
        file = load_function(self.simulator, "simulator")[1]
        return {
            "simulator": self.simulator,
            "prior": self.prior,
            "names": self.names,
            "given": self.given_names,
            "constraints": {name: list(pair) for name, pair in self.constraints.items()},
            "jobs": self.jobs,
            "sha256": None if file is None else file_hash(file),
        }


def load_simulator(settings: SimulatorSettings) -> Simulator:
    """Load the functions that the settings name.

    Raises:
        UsageError: settings that do not go together.
        InputError: a module or a name that is missing, or a prior that cannot be sampled.

    Examples:
        >>> load_simulator(SimulatorSettings(simulator="math:sin", prior=None))
        Traceback (most recent call last):
        amfvi.errors.UsageError: a simulator that is a function needs a prior: give prior=
    """
    loaded, _ = load_function(settings.simulator, "simulator")
    if isinstance(loaded, Simulator):
        for name in ("prior", "names", "given_names", "constraints"):
            if getattr(settings, name):
                raise UsageError(f"{name}= does not go with an amfvi.Simulator, which has its own")
        loaded.pool = settings.jobs
        return loaded
    if not callable(loaded):
        raise InputError(
            f"{settings.simulator} is {type(loaded).__name__}, expected a function or an "
            "amfvi.Simulator"
        )
    if settings.prior is None:
        raise UsageError("a simulator that is a function needs a prior: give prior=")
    prior, _ = load_function(settings.prior, "prior")
    return Simulator(
        loaded,
        prior,
        names=settings.names,
        given_names=settings.given_names,
        constraints=settings.constraints or None,
        pool=settings.jobs,
    )


def make_simulations(
    settings: SimulatorSettings, n: int, seed: int, checkpoint: Path, reporter: Reporter
) -> Simulations:
    """Simulate n times, except for what is found in ``checkpoint``, where all of it is kept.

    Raises:
        UsageError, InputError: as :func:`load_simulator` and ``Simulator.simulate``.

    Examples:
        >>> settings = SimulatorSettings(simulator="no_such_module:f", prior="no_such_module:p")
        >>> make_simulations(settings, 100, 0, Path("kept"), Reporter())
        Traceback (most recent call last):
        amfvi.errors.InputError: no module 'no_such_module' here ...
    """
    simulator = load_simulator(settings)
    made = simulator.simulate(n, seed=seed, reporter=reporter, checkpoint=checkpoint)
    reporter.log(f"{len(made)} simulations succeeded, {made.n_failed} failed")
    return made


def write_simulations(simulations: Simulations, directory: Path) -> None:
    """Write all pairs as one table with names, which ``amfvi fit --draws`` reads.

    Examples:
        >>> import tempfile
        >>> simulator = Simulator(lambda y: y, prior=lambda n, rng: rng.normal(size=(n, 1)))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_simulations(simulator.simulate(20), Path(folder))
        ...     np.load(f"{folder}/simulations.npz")["names"].tolist()
        ['c1', 'y1']
    """
    np.savez_compressed(
        directory / SIMULATIONS,
        draws=np.concatenate([simulations.given.numpy(), simulations.y.numpy()], axis=1),
        names=np.array([*simulations.given_names, *simulations.names]),
    )
