"""What a posterior is fitted to: recognized, read and validated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amfvi import targets
from amfvi.constraints.constraints import default_names
from amfvi.density.log_density import LogDensity
from amfvi.draws.draws import Draws, DrawsLike
from amfvi.draws.from_table import draws_from_frame, is_frame
from amfvi.draws.readers import read_draws
from amfvi.errors import UsageError
from amfvi.targets import ExactTarget, Target
from amfvi.two_stage.options import FitOptions, InputKind
from amfvi.two_stage.split import Split, split_draws, split_target

__all__ = [
    "DensityLike",
    "DrawsWithDensity",
    "InputLike",
    "Source",
    "kind_of",
    "pair",
    "recognize",
    "split_source",
    "to_source",
]

InputLike = str | Path | Target | LogDensity | DrawsLike
"""What :func:`amfvi.fit` takes as data."""

DensityLike = LogDensity | Callable[[Any], Any]
"""What it takes as the density of given draws."""


@dataclass(frozen=True, kw_only=True)
class DrawsWithDensity:
    """Given draws and the log density that they are from.

    Attributes:
        draws: of any sampler.
        density: with the same parameters.

    Examples:
        >>> sorted(DrawsWithDensity.__dataclass_fields__)
        ['density', 'draws']
    """

    draws: Draws
    density: LogDensity


Source = ExactTarget | Draws | LogDensity | DrawsWithDensity
"""What can be fitted: exact draws of a target, given draws, a log density, or both."""


def recognize(data: Any) -> Any:
    """A target for its name, a path for anything like one; other data as they are.

    Examples:
        >>> recognize("rings").name, recognize("draws.csv").name
        ('rings', 'draws.csv')
    """
    if not isinstance(data, str):
        return data
    if data not in targets.TARGETS and (Path(data).suffix or Path(data).is_file()):
        return Path(data)
    return targets.get(data)


def kind_of(data: Any, density: Any = None) -> InputKind:
    """The kind of input that a target, a log density, or draws in any form are.

    Args:
        density: the log density of given draws, if there is one.

    Raises:
        UsageError: a log density beside anything but draws.

    Examples:
        >>> print(kind_of(targets.get("banana")))
        exact draws of a target
    """
    kind = InputKind.DRAWS
    if isinstance(data, LogDensity):
        kind = InputKind.DENSITY
    elif isinstance(data, Target):
        kind = InputKind.TARGET
    if density is None:
        return kind
    if kind is not InputKind.DRAWS:
        raise UsageError(f"density= goes with given draws, the input is {kind}")
    return InputKind.DRAWS_WITH_DENSITY


def to_source(data: Any, of_draws: Mapping[str, Any], density: DensityLike | None) -> Source:
    """What is to be fitted, with draws read and validated.

    Args:
        of_draws: arguments of :meth:`amfvi.Draws.from_array`.

    Raises:
        UsageError: a target without exact draws, or a density of other parameters.
        InputError: invalid draws.

    Examples:
        >>> import torch
        >>> draws = torch.randn(100, 1, generator=torch.Generator().manual_seed(0)).double()
        >>> to_source(draws, {"names": ["mu"]}, None).names
        ('mu',)
    """
    if isinstance(data, ExactTarget | LogDensity):
        return data
    if isinstance(data, Target):
        raise UsageError(
            f"{data.name} has no exact draws; fit its log density, "
            "amfvi.LogDensity(target.log_density, target.dim)"
        )
    described = dict(of_draws)
    if isinstance(density, LogDensity) and not isinstance(data, Draws):
        described.setdefault("constraints", density.constraints)
        has_names = isinstance(data, Path) or is_frame(data)
        if not has_names and density.names != default_names(density.dim):
            described.setdefault("names", density.names)
    if isinstance(data, Path):
        data = read_draws(data, **described)
    elif is_frame(data):
        data = draws_from_frame(data, **described)
    elif not isinstance(data, Draws):
        data = Draws.from_array(data, **described)
    return data if density is None else pair(data, density)


def pair(draws: Draws, density: DensityLike) -> DrawsWithDensity:
    """Put given draws and their log density together.

    A function becomes a log density of the parameters of the draws.

    Raises:
        UsageError: the density has other parameters, or other constraints on them.

    Examples:
        >>> import torch
        >>> x = torch.randn(100, 1, generator=torch.Generator().manual_seed(0)).double()
        >>> draws = Draws.from_array(x, names=["mu"])
        >>> pair(draws, lambda x: -0.5 * (x**2).sum(dim=1)).density.names
        ('mu',)
    """
    dim = draws.values.shape[1]
    if not isinstance(density, LogDensity):
        density = LogDensity(density, dim, variables=draws.variables, constraints=draws.constraints)
    if density.dim != dim:
        raise UsageError(f"the log density has {density.dim} parameters, the draws have {dim}")
    unnamed = default_names(dim)
    if draws.names != density.names and unnamed not in (draws.names, density.names):
        raise UsageError(
            f"the log density is of {', '.join(density.names)}, the draws of "
            f"{', '.join(draws.names)}: give both the same names, in the same order"
        )
    if draws.constraints != density.constraints:
        raise UsageError(
            "the log density and the draws have different constraints; give them to one alone, "
            "the LogDensity, and the draws as an array or a file"
        )
    return DrawsWithDensity(draws=draws, density=density)


def split_source(source: ExactTarget | Draws, options: FitOptions) -> Split:
    """The draws of a target, or given draws, by role.

    Raises:
        InputError: too few distinct draws.

    Examples:
        >>> from amfvi import targets
        >>> len(split_source(targets.get("bimodal"), FitOptions(n_draws=200)).draws)
        200
    """
    if isinstance(source, Draws):
        return split_draws(source, options.test_share, options.seed, options.folds)
    return split_target(
        source,
        options.draws_wanted,
        seed=options.seed,
        n_weight_draws=options.n_weight_draws,
        folds=options.folds,
    )
