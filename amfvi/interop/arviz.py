"""ArviZ data in, and mixtures out as ArviZ data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from amfvi.constraints.constraints import ConstraintsLike
from amfvi.draws.draws import Draws
from amfvi.errors import InputError, UsageError
from amfvi.mixture import Mixture
from amfvi.randomness import generator_for

__all__ = ["WeighsDraws", "WeightedSample", "from_arviz", "to_arviz"]

OVERSAMPLING = 4
"""Draws of the mixture for each draw that resampling by importance weights keeps."""


class WeightedSample(Protocol):
    """Draws with importance weights, as :meth:`amfvi.Posterior.weighted_draws` returns them.

    Examples:
        >>> sorted(name for name in dir(WeightedSample) if not name.startswith("_"))
        ['log_weights', 'smoothed_log_weights', 'x']
    """

    @property
    def x(self) -> Tensor:
        """Draws in the user's parameters, (m, d)."""

    @property
    def log_weights(self) -> Tensor:
        """Log p̃ − log q in nats, (m,)."""

    @property
    def smoothed_log_weights(self) -> Tensor:
        """The same after Pareto smoothing, of weights with mean one, (m,)."""


@runtime_checkable
class WeighsDraws(Protocol):
    """A mixture that may know the log density it was fitted to.

    Examples:
        >>> isinstance(torch.ones(1), WeighsDraws)
        False
    """

    @property
    def log_density(self) -> object | None:
        """The log density; None if it is not known."""

    def weighted_draws(self, n: int, *, seed: int) -> WeightedSample:
        """Draw ``n`` times, with importance weights towards the log density."""


def from_arviz(
    data: Any,
    *,
    names: Sequence[str] | None = None,
    constraints: ConstraintsLike = None,
    nan_policy: str = "raise",
) -> Draws:
    """Take the draws of a posterior group, chains kept apart.

    Args:
        data: an ``InferenceData``, a ``DataTree``, or anything with a group ``posterior``
            of variables over (chain, draw, …).
        names: variables to take; all if not given. Entries of a vector are called
            ``theta[1]``, ``theta[2]``, …
        constraints, nan_policy: see :meth:`Draws.from_array`.

    Raises:
        InputError: no posterior group, no such variable, or draws that are not valid.

    Examples:
        >>> from_arviz({})
        Traceback (most recent call last):
        amfvi.errors.InputError: found no group 'posterior' in dict
    """
    group = getattr(data, "posterior", None)
    if group is None:
        raise InputError(f"found no group 'posterior' in {type(data).__name__}")
    variables = list(group.data_vars) if names is None else list(names)
    columns, labels = [], []
    for name in variables:
        if name not in group.data_vars:
            raise InputError(f"no variable {name!r} in the posterior group")
        values = group[name].transpose("chain", "draw", ...).to_numpy()
        shape = values.shape[2:]
        columns.append(values.reshape(*values.shape[:2], -1))
        places = np.ndindex(*shape) if shape else [()]
        labels += [
            f"{name}[{','.join(str(i + 1) for i in place)}]" if shape else str(name)
            for place in places
        ]
    if not columns:
        raise InputError("the posterior group has no variables")
    return Draws.from_array(
        np.concatenate(columns, axis=2),
        names=labels,
        constraints=constraints,
        chains=True,
        nan_policy=nan_policy,
        source="ArviZ data",
    )


def to_arviz(mixture: Mixture, n: int = 4000, *, seed: int = 0) -> Any:
    """Draw from a mixture into an ArviZ ``InferenceData`` (``DataTree`` in ArviZ 1).

    For a posterior that knows the log density it was fitted to, more draws are made and
    resampled by their smoothed importance weights: draws of the posterior, as ArviZ knows
    no weights. ``sample_stats`` holds ``lp``, the log density (of the mixture, if that is
    all there is), and ``log_weight``, the logarithm of the normalized weight by which each
    draw was resampled.

    Args:
        n: number of draws.
        seed: of the draws.

    Raises:
        UsageError: ArviZ is not installed.

    Examples:
        >>> from amfvi.experts import GMM
        >>> draws = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> mixture = Mixture({"gmm": GMM().fit(draws)}, [1.0], names=("mu", "tau"))
        >>> to_arviz(mixture, 100).posterior["mu"].shape
        (1, 100)
    """
    try:
        import arviz
    except ImportError as error:
        raise UsageError("this needs ArviZ: pip install 'amfvi[arviz]'") from error
    generator = generator_for(seed, "arviz")
    if isinstance(mixture, WeighsDraws) and mixture.log_density is not None:
        weighted = mixture.weighted_draws(OVERSAMPLING * n, seed=seed)
        smoothed = weighted.smoothed_log_weights
        rows = torch.multinomial(smoothed.exp(), n, replacement=True, generator=generator)
        x, log_weight = weighted.x[rows], smoothed[rows]
        lp = weighted.log_weights[rows] + mixture.log_prob(x)
    else:
        x = mixture.sample((n,), generator)
        lp, log_weight = mixture.log_prob(x), torch.zeros(n, dtype=torch.float64)
    posterior = _group_variables(x.numpy(), mixture.names)
    stats = {"lp": lp.numpy()[None], "log_weight": log_weight.numpy()[None]}
    if int(arviz.__version__.split(".")[0]) >= 1:
        return arviz.from_dict({"posterior": posterior, "sample_stats": stats})
    return arviz.from_dict(posterior=posterior, sample_stats=stats)


def _group_variables(
    x: NDArray[np.float64], names: tuple[str, ...]
) -> dict[str, NDArray[np.float64]]:
    """Arrays (1, n, …) by variable.

    ``theta[1]``, ``theta[2]``, … become one vector; ``L[1,1]``, ``L[1,2]``, … one matrix.
    """
    columns_of: dict[str, list[int]] = {}
    places_of: dict[str, list[tuple[int, ...]]] = {}
    for column, name in enumerate(names):
        match = re.fullmatch(r"(.+)\[(\d+(?:,\d+)*)\]", name)
        stem, place = match.groups() if match else (name, "")
        columns_of.setdefault(stem, []).append(column)
        places_of.setdefault(stem, []).append(tuple(int(i) - 1 for i in place.split(",") if i))
    variables: dict[str, NDArray[np.float64]] = {}
    for stem, columns in columns_of.items():
        places = places_of[stem]
        shape = tuple(i + 1 for i in places[-1])
        if places == list(np.ndindex(*shape)):
            variables[stem] = x[None][:, :, columns].reshape(1, len(x), *shape)
        else:
            variables |= {names[column]: x[None][:, :, column] for column in columns}
    return variables
