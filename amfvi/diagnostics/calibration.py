"""Calibration of a conditional density on held-back pairs of conditions and parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from amfvi.constraints.constraints import default_names
from amfvi.diagnostics.calibration_report import Calibration
from amfvi.diagnostics.rank_dependence import RankDependence
from amfvi.diagnostics.reference_points import earlier_neighbors, whitened_distances
from amfvi.diagnostics.uniformity import ranks_among_draws
from amfvi.errors import InputError, UsageError
from amfvi.randomness import generator_for

__all__ = ["ConditionalDensity", "measure_calibration"]

MAX_POINTS = 2**16
"""Most draws that are asked for or evaluated in one call, which bounds the memory."""

MIN_PAIRS = 10
"""Fewest pairs from which calibration is measured."""


class ConditionalDensity(Protocol):
    """A density q(y | c) that can be evaluated and drawn from for many conditions at once.

    Both methods are called with ``given`` and ``generator`` by name.

    Examples:
        The normal with mean c and unit variance:

        >>> class Normal:
        ...     def log_prob(self, y, given):
        ...         return torch.distributions.Normal(given, 1.0).log_prob(y).sum(dim=1)
        ...     def sample(self, n_draws, given, generator):
        ...         shape = (n_draws, *given.shape)
        ...         return given + torch.randn(shape, generator=generator, dtype=given.dtype)
        >>> normal: ConditionalDensity = Normal()
    """

    def log_prob(self, y: Tensor, /, *, given: Tensor) -> Tensor:
        """Log q(y | c) in nats, (n,), of rows y (n, dim) and c (n, given_dim)."""
        ...

    def sample(self, n_draws: int, /, *, given: Tensor, generator: torch.Generator) -> Tensor:
        """Draws (n_draws, n, dim) from q(· | c) for each row of c (n, given_dim)."""
        ...


def measure_calibration(
    density: ConditionalDensity,
    given: Tensor,
    y: Tensor,
    *,
    n_draws: int = 200,
    seed: int = 0,
    names: Sequence[str] | None = None,
) -> Calibration:
    """Measure how a conditional density agrees with pairs that it was not fitted to.

    A right density is called miscalibrated in at most 0.5% of cases; :class:`Calibration`
    says by which rule, and what each diagnostic cannot see. The order of the pairs makes no
    difference. Densities are called with at most 65,536 points, which bounds the memory.

    Args:
        given: conditions c, (n, given_dim), finite.
        y: parameters, (n, dim), finite; pairs must be independent and held back from the fit.
        n_draws: draws for each pair. Tests are exact for any number; more make them sharper.
        seed: of draws, reference points and ties.
        names: of the parameters; ``x1, x2, …`` if not given.

    Raises:
        InputError: pairs that are too few, not finite or of wrong shape; or a density that
            returns numbers of wrong shape, NaN, or draws that are not finite.
        UsageError: fewer than one draw, or names that do not fit ``y``.

    Examples:
        >>> class Normal:
        ...     def __init__(self, sd):
        ...         self.sd = sd
        ...     def log_prob(self, y, given):
        ...         return torch.distributions.Normal(given, self.sd).log_prob(y).sum(dim=1)
        ...     def sample(self, n_draws, given, generator):
        ...         noise = torch.randn(n_draws, *given.shape, generator=generator).double()
        ...         return given + self.sd * noise
        >>> generator = torch.Generator().manual_seed(0)
        >>> given = torch.randn(500, 1, generator=generator, dtype=torch.float64)
        >>> y = given + torch.randn(500, 1, generator=generator, dtype=torch.float64)
        >>> measure_calibration(Normal(0.6), given, y).confidence.value
        'overconfident'
    """
    given, y = _checked_pairs(given, y)
    labels = _labels(names, y.shape[1])
    if n_draws < 1:
        raise UsageError(f"n_draws={n_draws}: expected at least 1")
    # In an order of their own, so that the order of the rows makes no difference.
    order = torch.from_numpy(np.lexsort(torch.cat([y, given], dim=1).numpy().T))
    columns = torch.empty(len(y), y.shape[1] + 3, dtype=torch.float64)
    columns[order] = _ranks_and_log_prob(density, given[order], y[order], n_draws, seed)
    return Calibration(
        names=labels,
        n_draws=n_draws,
        ranks=columns[:, :-3],
        hpd_ranks=columns[:, -3],
        tarp_ranks=columns[:, -2],
        given_dependence=RankDependence.from_ranks(columns[:, :-3], given),
        log_prob=columns[:, -1],
    )


def _ranks_and_log_prob(
    density: ConditionalDensity, given: Tensor, y: Tensor, n_draws: int, seed: int
) -> Tensor:
    """Ranks of each parameter, of the density, of the distance, and log q: (n, dim + 3)."""
    neighbors = earlier_neighbors(given, generator_for(seed, "calibration", "references"))
    for_draws = generator_for(seed, "calibration", "draws")
    for_ties = generator_for(seed, "calibration", "ties")
    rows = max(MAX_POINTS // (n_draws + 1), 1)
    parts = []
    for c, observed, chosen in zip(
        given.split(rows), y.split(rows), neighbors.split(rows), strict=True
    ):
        draws = _draws(density, c, n_draws, y.shape[1], for_draws)
        points = torch.cat([observed[None], draws])
        log_q = _log_prob(density, points, c)
        distances = whitened_distances(points, y[chosen])
        # The pair without an earlier one has no reference point: all is tied.
        distances[:, chosen < 0] = 0.0
        values = torch.cat([points, -log_q[..., None], distances[..., None]], dim=2)
        parts.append(torch.cat([ranks_among_draws(values, for_ties), log_q[0, :, None]], dim=1))
    return torch.cat(parts)


def _draws(
    density: ConditionalDensity, given: Tensor, n_draws: int, dim: int, generator: torch.Generator
) -> Tensor:
    """Draws (n_draws, n, dim) for conditions (n, given_dim), checked."""
    expected = (n_draws, len(given), dim)
    with torch.no_grad():
        draws = density.sample(n_draws, given=given, generator=generator)
    if draws.shape != expected:
        raise InputError(f"sample returned shape {tuple(draws.shape)}, expected {expected}")
    draws = draws.to("cpu", torch.float64)
    wrong = int((~draws.isfinite()).any(dim=2).sum())
    if wrong:
        raise InputError(f"{wrong} of {n_draws * len(given)} draws are not finite; check sample")
    return draws


def _log_prob(density: ConditionalDensity, points: Tensor, given: Tensor) -> Tensor:
    """Log q of points (m, n, dim), each with its row of the conditions, (m, n), checked.

    Observed values and draws are evaluated together, so that rounding treats them alike.
    """
    repeated = given.expand(len(points), *given.shape).reshape(-1, given.shape[1])
    flat = points.reshape(-1, points.shape[2])
    with torch.no_grad():
        log_q = density.log_prob(flat, given=repeated)
    if log_q.shape != (len(flat),):
        raise InputError(f"log_prob returned shape {tuple(log_q.shape)}, expected ({len(flat)},)")
    log_q = log_q.to("cpu", torch.float64)
    wrong = int(log_q.isnan().sum())
    if wrong:
        raise InputError(f"log_prob is NaN at {wrong} of {len(flat)} points; check the density")
    return log_q.reshape(points.shape[:2])


def _labels(names: Sequence[str] | None, dim: int) -> tuple[str, ...]:
    labels = tuple(names) if names is not None else default_names(dim)
    if len(labels) != dim:
        raise UsageError(f"names: found {len(labels)}, expected {dim}, one per column of y")
    return labels


def _checked_pairs(given: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Finite pairs in float64 on the CPU, as many as are needed."""
    given, y = _checked(given, "given"), _checked(y, "y")
    if len(given) != len(y):
        raise InputError(f"given has {len(given)} rows, y has {len(y)}: expected as many")
    if len(y) < MIN_PAIRS:
        raise InputError(f"{len(y)} pairs are too few: expected at least {MIN_PAIRS}")
    return given, y


def _checked(values: Tensor, name: str) -> Tensor:
    """A finite array (n, columns) in float64 on the CPU."""
    if values.ndim != 2 or values.shape[1] == 0:
        raise InputError(f"{name} has shape {tuple(values.shape)}, expected (rows, columns)")
    values = values.detach().to("cpu", torch.float64)
    wrong = int((~values.isfinite()).any(dim=1).sum())
    if wrong:
        raise InputError(f"{wrong} of {len(values)} rows of {name} are not finite; drop them")
    return values
