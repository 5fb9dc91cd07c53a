"""What a conditional mixture is fitted to: arrays, a file, a simulator or a conditional target."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from amfvi.cluster import share
from amfvi.conditional.pairs import Pairs
from amfvi.draws.readers import read_draws
from amfvi.errors import AmfviWarning, UsageError
from amfvi.randomness import generator_for
from amfvi.reporting import Reporter
from amfvi.simulation.prior import Prior
from amfvi.simulation.simulations import Simulations
from amfvi.simulation.simulator import Simulator
from amfvi.targets.conditional import CONDITIONAL, ConditionalTarget, SimulatorTarget, get
from amfvi.two_stage.options import FitOptions, InputKind

__all__ = ["GivenLike", "PairsLike", "recognize_pairs", "to_pairs"]

GivenLike = ArrayLike | Tensor | Sequence[str]
"""What :func:`amfvi.fit` takes as ``given``: conditions, or the names of a file's columns."""

PairsLike = Simulator | Simulations | ConditionalTarget
"""What it takes as data that have conditions of their own."""

OF_ARRAYS = ("names", "constraints", "sample_weight")
"""Settings of draws that pairs have, too."""


def recognize_pairs(data: Any, given: Any) -> InputKind | None:
    """The kind of input, if it is one with a condition; None if it is not.

    Examples:
        >>> print(recognize_pairs("sinus", None), recognize_pairs("banana", None))
        a simulator None
    """
    is_name = isinstance(data, str) and data in CONDITIONAL
    if is_name or isinstance(data, Simulator | ConditionalTarget):
        return InputKind.SIMULATOR
    return InputKind.PAIRS if given is not None or isinstance(data, Simulations) else None


def to_pairs(
    data: Any,
    given: Any,
    given_names: Sequence[str] | None,
    of_draws: Mapping[str, Any],
    options: FitOptions,
    reporter: Reporter | None = None,
    checkpoint: str | Path | None = None,
) -> Pairs:
    """Validate pairs, reading or simulating them first.

    Args:
        data: as :data:`PairsLike`, the name of a target, a path, or parameters.
        given: as :data:`GivenLike`, or None.
        checkpoint: a directory where a simulator keeps what it made.

    Raises:
        UsageError: arguments that do not go together.
        InputError: pairs that nothing can be fitted to.

    Examples:
        >>> to_pairs("sinus", None, None, {}, FitOptions(n_draws=100))
        <Pairs: 100 rows, 1 parameter given 1>
    """
    for name in of_draws:
        if name not in OF_ARRAYS:
            raise UsageError(f"{name}= goes with draws, the input is pairs")
    if recognize_pairs(data, given) is InputKind.SIMULATOR or isinstance(data, Simulations):
        if given is not None or of_draws or given_names is not None:
            raise UsageError(
                "given=, given_names= and what describes an array go with arrays or a file of "
                "pairs: a simulator or a target has its own"
            )
        return _make(data, options, reporter, checkpoint)
    if isinstance(data, str | Path):
        return _read(Path(data), given, of_draws)
    return Pairs.from_arrays(data, given, given_names=given_names, **of_draws)


def _make(
    data: Any, options: FitOptions, reporter: Reporter | None, checkpoint: str | Path | None
) -> Pairs:
    """Pairs of a simulator, of what it made, or of a conditional target."""
    if isinstance(data, Simulator):
        share(data, options.cluster)
        data = data.simulate(
            options.draws_wanted, seed=options.seed, reporter=reporter, checkpoint=checkpoint
        )
    if isinstance(data, Simulations):
        return Pairs.from_arrays(
            data.y, data.given, names=data.names, given_names=data.given_names,
            constraints=data.constraints, prior=data.prior,
        )  # fmt: skip
    target = get(data) if isinstance(data, str) else data
    c, y = target.sample(options.draws_wanted, generator_for(options.seed, "pairs"))
    return Pairs.from_arrays(
        y, c, names=target.names, given_names=target.given_names, constraints=target.constraints,
        prior=_prior_of(target),
    )  # fmt: skip


def _prior_of(target: ConditionalTarget) -> Prior | None:
    """The prior of a target that has one."""
    if not isinstance(target, SimulatorTarget):
        return None
    return Prior(_PriorOfTarget(target), names=target.names, constraints=target.constraints)


@dataclass(frozen=True)
class _PriorOfTarget:
    """The prior of a target, as a torch distribution is called."""

    target: SimulatorTarget

    def sample(self, sample_shape: torch.Size) -> Tensor:
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        return self.target.sample_prior(sample_shape.numel(), generator)

    def log_prob(self, y: Tensor) -> Tensor:
        return self.target.log_prior(y)


def _read(path: Path, given: Any, of_draws: Mapping[str, Any]) -> Pairs:
    """Pairs of a file, whose columns ``given`` names."""
    names = [given] if isinstance(given, str) else list(given)
    if not all(isinstance(name, str) for name in names):
        found = type(names[0]).__name__
        raise UsageError(f"given= of a file of pairs are names of its columns, found {found}")
    constraints = of_draws.get("constraints")
    if constraints is not None and not isinstance(constraints, Mapping):
        raise UsageError("constraints= of a file of pairs map names of columns to constraints")
    with warnings.catch_warnings():  # of the parameters alone, below
        warnings.simplefilter("ignore", AmfviWarning)
        table = read_draws(path, **of_draws)
    if missing := [name for name in names if name not in table.names]:
        raise UsageError(f"{path}: no column {missing[0]!r} (columns: {', '.join(table.names)})")
    others = [name for name in table.names if name not in names]
    if not others:
        raise UsageError(f"{path}: all columns are given, expected one at least to be fitted")
    place = {name: i for i, name in enumerate(table.names)}
    return Pairs.from_arrays(
        table.values[:, [place[name] for name in others]],
        table.values[:, [place[name] for name in names]],
        names=others,
        given_names=names,
        constraints=constraints,
        sample_weight=table.sample_weight,
    )
