"""ArviZ data in, and mixtures out as ArviZ data."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from amfvi.density.log_density import LogDensity
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.diagnostics.comparison import importance_sample
from amfvi.diagnostics.importance import psis
from amfvi.draws.draws import Draws
from amfvi.errors import InputError, UsageError
from amfvi.mixture import Mixture
from amfvi.randomness import generator_for

__all__ = ["from_arviz", "to_arviz"]

OVERSAMPLING = 4  # draws of the mixture for each that resampling by weights keeps


def from_arviz(data: Any, *, names: Sequence[str] | None = None, **checks: Any) -> Draws:
    """The draws of a posterior group, chains kept apart.

    Args:
        data: an ``InferenceData``, a ``DataTree``, or anything with a group ``posterior``
            of variables over (chain, draw, …).
        names: variables to take; all if not given. Entries of a vector are called
            ``theta[1]``, ``theta[2]``, …
        checks: as for :meth:`Draws.from_array`.

    Raises:
        InputError: no posterior group, no such variable, or draws that are not valid.
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
        np.concatenate(columns, axis=2), names=labels, chains=True, source="ArviZ data", **checks
    )


def to_arviz(
    mixture: Mixture,
    n: int = 4000,
    *,
    density: LogDensity | None = None,
    seed: int = 0,
) -> Any:
    """Draws of the mixture as ArviZ data, one chain.

    With a log density, ``n`` draws resampled by their smoothed importance weights: draws of
    the posterior, as ArviZ knows no weights. ``sample_stats`` holds ``lp``, the log density
    (of the mixture, if that is all there is), and ``log_weight``, the logarithm of the
    normalised weight that each was resampled by.

    Args:
        density: as the mixture was fitted to; by default the one it was fitted to in this
            process, if it was.

    Raises:
        UsageError: no ArviZ.
    """
    try:
        import arviz
    except ImportError as error:
        raise UsageError("this needs ArviZ: pip install 'amfvi[arviz]'") from error
    density = density if density is not None else mixture.log_density
    generator = generator_for(seed, "arviz")
    if density is None:
        x = mixture.sample((n,), generator)
        lp, log_weight = mixture.log_prob(x), torch.zeros(n, dtype=torch.float64)
    else:
        found = importance_sample(
            mixture, UnconstrainedDensity(density), OVERSAMPLING * n, generator
        )
        smoothed = torch.from_numpy(psis(found.log_weights.numpy())[0])
        smoothed = smoothed - smoothed.logsumexp(dim=0) + math.log(len(smoothed))
        rows = torch.multinomial(smoothed.exp(), n, replacement=True, generator=generator)
        x, log_weight = found.x[rows], smoothed[rows]
        lp = found.log_weights[rows] + mixture.log_prob(x)
    posterior = _variables(x.numpy(), mixture.names)
    stats = {"lp": lp.numpy()[None], "log_weight": log_weight.numpy()[None]}
    if int(arviz.__version__.split(".")[0]) >= 1:
        return arviz.from_dict({"posterior": posterior, "sample_stats": stats})
    return arviz.from_dict(posterior=posterior, sample_stats=stats)


def _variables(x: NDArray[np.float64], names: tuple[str, ...]) -> dict[str, NDArray[np.float64]]:
    """Arrays (1, n, …) by variable; ``theta[1]``, ``theta[2]``, … become one vector."""
    stems: dict[str, list[int]] = {}
    for column, name in enumerate(names):
        match = re.fullmatch(r"(.+)\[(\d+)\]", name)
        stems.setdefault(match.group(1) if match else name, []).append(column)
    variables: dict[str, NDArray[np.float64]] = {}
    for stem, columns in stems.items():
        in_order = [f"{stem}[{i}]" for i in range(1, len(columns) + 1)]
        if [names[c] for c in columns] == in_order:
            variables[stem] = x[None][:, :, columns]
        else:
            variables |= {names[c]: x[None][:, :, c] for c in columns}
    return variables
