"""The search for the modes of a density: where to start, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.sampler.far_reach import far_covariances
from amfvi.sampler.gaussians import GaussianMixture, gaussians_at
from amfvi.sampler.integrability import require_decay
from amfvi.sampler.modes import Mode, find_modes
from amfvi.sampler.pilot import PILOT_EVALUATIONS, are_stationary, walk_pilot
from amfvi.sampler.resolution import evaluate_where_possible

__all__ = ["search_modes"]

STARTS_PER_ROUND = 8
"""Optimizations in one round."""

MAX_ROUNDS = 4
"""Rounds in which one finds whether there are modes, and whether they can be counted."""

MAX_FURTHER_ROUNDS = 8
"""Further rounds where there are several."""

PATIENCE = 3
"""Rounds without a new mode that end the search where there are several."""

UNEQUAL = 1.25
"""Ratio of widths from which modes differ so that some may be hidden by others."""

N_FURTHER_POINTS = 64
"""Points tried among several modes, for more of them."""

STARTS_PER_MODE = 4
"""Optimizations that start among several modes from points of any density, per mode."""

N_MANY_POINTS = 2048
"""The same, where some modes may be hidden by wider ones."""

MAX_BATCHES = 4
"""Batches of such points at most, while they bring new modes."""

MAX_EVALUATIONS = (5_000, 600)
"""Evaluations after which no further round begins: a constant, and per parameter."""

MIN_LEFT = 40_000
"""Evaluations that must be left for a search beyond the first rounds."""

WELL_SEARCHED_DIM = 2
"""Dimension up to which random points come near every mode that has a share of the mass."""

MIN_PILOT_DIM = 10
"""Parameters from which pilot chains are tried; wide Gaussians find the mass of fewer, and reach
farther out into heavy tails."""

SPREAD = 1.2
"""Spread of these points, as a multiple of that of the modes."""


def search_modes(
    density: UnconstrainedDensity, points: Tensor, log_p: Tensor, generator: torch.Generator
) -> GaussianMixture:
    """Wide Gaussians around the modes that optimizations from some points find.

    Where several modes are found, some may be left: the search goes on until round after
    round brings no new one. A narrow mode beside wide ones is uphill from so few points that
    many more are tried where modes differ in width.

    Args:
        points: from which optimizations may start, (n, d), those of every scale first.
        log_p: their log densities, (n,), nats.

    Where the density still rises at all of them, there is no mode, and pilot chains show where
    the mass is.

    Raises:
        NotIntegrableError: there is none, and the density does not fall off.
        OutOfBudgetError: a limit was reached.
        InputError: the density is broken.

    Examples:
        >>> from amfvi.density.log_density import LogDensity
        >>> density = UnconstrainedDensity(LogDensity(lambda x: -x.square().sum(1), 1))
        >>> points = torch.linspace(-3, 3, 10, dtype=torch.float64)[:, None]
        >>> generator = torch.Generator().manual_seed(0)
        >>> search_modes(density, points, density.log_prob(points), generator).n_modes
        1
    """
    search = _Search(density, points, log_p)
    search.go_on(MAX_ROUNDS, patience=1)
    pilot = _pilot(search, points, log_p, generator)
    if pilot is not None:
        return replace(gaussians_at([pilot], density.dim), has_pilot=True)
    # With a new mode at nearly every start, their spread tells more than each of them.
    is_countable = len(search.modes) < search.n_starts / 2
    left = density.budget.left
    if is_countable and len(search.modes) > 1 and (left is None or left > MIN_LEFT):
        search.go_on(MAX_FURTHER_ROUNDS, patience=PATIENCE)
        for _ in range(MAX_BATCHES if density.dim > WELL_SEARCHED_DIM else 0):
            n_known = len(search.modes)
            n = N_MANY_POINTS if _are_unequal(search.modes) else N_FURTHER_POINTS
            n_random = STARTS_PER_MODE * n_known
            points = _points_among(search.modes, n_random + n, generator)
            search.start_from(points[:n_random])
            search.add_points(points[n_random:])
            search.go_on(MAX_FURTHER_ROUNDS, patience=1)
            if len(search.modes) == n_known or search.is_exhausted:
                break
    far = far_covariances(density, search.modes)
    return gaussians_at(search.modes, density.dim, each=is_countable, far=far)


def _pilot(
    search: _Search, points: Tensor, log_p: Tensor, generator: torch.Generator
) -> Mode | None:
    """Where pilot chains come to, as if it were a mode, if optimizations end at none."""
    density, left = search.density, search.density.budget.left
    if not (search.modes and density.differentiable) or density.dim < MIN_PILOT_DIM:
        return None
    if left is not None and left < PILOT_EVALUATIONS + MIN_LEFT:
        return None
    if bool(are_stationary(density, search.modes).any()):
        return None
    require_decay(density, points, log_p)  # which rises everywhere else too
    densest = log_p.argsort(descending=True)
    center, covariance = walk_pilot(density, points[densest], generator)
    return Mode(point=center, log_density=search.modes[0].log_density, covariance=covariance)


class _Search:
    """Modes found so far, and the points from which more may be."""

    def __init__(self, density: UnconstrainedDensity, points: Tensor, log_p: Tensor) -> None:
        self.density = density
        self.points = points
        self.log_p = log_p
        self.modes: list[Mode] = []
        self.n_starts = 0
        constant, per_parameter = MAX_EVALUATIONS
        self._limit = density.budget.spent + constant + per_parameter * density.dim
        self._is_used = torch.zeros(len(points), dtype=torch.bool)

    @property
    def is_exhausted(self) -> bool:
        """Whether so many evaluations were spent that no further round begins."""
        return self.density.budget.spent > self._limit

    def go_on(self, max_rounds: int, patience: int) -> None:
        """Optimize, round after round, until ``patience`` rounds bring no new mode."""
        unchanged = 0
        for _ in range(max_rounds):
            if self.n_starts and self.is_exhausted:
                break
            n_known, is_first = len(self.modes), not self.n_starts
            order = self._order()[:STARTS_PER_ROUND]
            self.start_from(self.points[order])
            self._is_used[order] = True
            unchanged = unchanged + 1 if len(self.modes) == n_known and not is_first else 0
            if unchanged >= patience:
                break

    def start_from(self, points: Tensor) -> None:
        """Optimize from points (k, d)."""
        self.modes = find_modes(self.density, points, self.modes)
        self.n_starts += len(points)

    def add_points(self, points: Tensor) -> None:
        """Evaluate the density at further points (k, d)."""
        log_p = evaluate_where_possible(self.density, points, gradient=False)[0]
        self.points = torch.cat([self.points, points])
        self.log_p = torch.cat([self.log_p, log_p])
        self._is_used = torch.cat([self._is_used, torch.zeros(len(points), dtype=torch.bool)])

    def _order(self) -> Tensor:
        """First points of every scale, then those whose density the modes explain least."""
        if not self.n_starts:
            return torch.arange(len(self.points))
        excess = self.log_p - gaussians_at(self.modes, self.density.dim).log_prob(self.points)
        return excess.masked_fill(self._is_used, -math.inf).argsort(descending=True)


def _are_unequal(modes: Sequence[Mode]) -> bool:
    """Whether some mode is much narrower than another, as one yet to be found may be."""
    d = len(modes[0].point)
    log_widths = [float(torch.linalg.slogdet(mode.covariance)[1]) / (2 * d) for mode in modes]
    return max(log_widths) - min(log_widths) > math.log(UNEQUAL)


def _points_among(modes: Sequence[Mode], n: int, generator: torch.Generator) -> Tensor:
    """Draws (n, d) of the Gaussian with the modes' mean and a larger spread than theirs."""
    centers = torch.stack([mode.point for mode in modes])
    within = torch.stack([mode.covariance.diagonal() for mode in modes]).amax(dim=0)
    apart = centers.var(dim=0) if len(modes) > 1 else torch.zeros_like(within)
    sd = (SPREAD**2 * apart + within).sqrt()
    noise = torch.randn(n, len(sd), generator=generator, dtype=torch.float64)
    return centers.mean(dim=0) + sd * noise
