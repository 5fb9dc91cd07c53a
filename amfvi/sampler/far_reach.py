"""How far a density reaches where it falls more slowly than its curvature at a mode says.

At a cusp, such as that of exp(−√|x|), the curvature tells of a width many orders of magnitude
below that of the mass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.sampler.factors import factorize_covariance
from amfvi.sampler.modes import Mode
from amfvi.sampler.resolution import evaluate_where_possible

__all__ = ["far_covariances"]

FALL = 8.0
"""Nats, beside half of one per parameter, that a density falls within what is to be reached."""

REACHED = 40.0
"""Widths of the curvature that are reached anyway."""

MAX_DOUBLINGS = 60
"""Doublings after which a density that does not fall is left to the check of its integral."""

STEP = 6.0
"""Ratio of one width to the next."""

BEYOND = 3.0
"""The last width, as a multiple of that of a Gaussian that has fallen as far."""


def far_covariances(density: UnconstrainedDensity, modes: Sequence[Mode]) -> list[Tensor]:
    """Covariances (d, d) of Gaussians around the heaviest mode that reach as far as the density.

    Along both directions of each axis of that mode's Gaussian; none where the density has
    fallen as soon as the Gaussian, forty times widened. Two evaluations for each parameter,
    and some tens more where there is something to reach.

    Raises:
        OutOfBudgetError: a limit was reached.

    Examples:
        >>> from amfvi.density.log_density import LogDensity
        >>> def at_zero(sd):
        ...     return Mode(point=torch.zeros(1).double(), log_density=0.0,
        ...                 covariance=sd**2 * torch.eye(1).double())
        >>> normal = UnconstrainedDensity(LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), 1))
        >>> far_covariances(normal, [at_zero(1.0)])
        []
        >>> cusp = UnconstrainedDensity(LogDensity(lambda x: -x.abs().sqrt().sum(dim=1), 1))
        >>> float(far_covariances(cusp, [at_zero(1e-3)])[-1].sqrt()) > 20
        True
    """
    if not modes:
        return []
    d = len(modes[0].point)
    fall = FALL + 0.5 * d
    unit = math.sqrt(2 * fall)  # where a standard normal has fallen as far
    widths = _widths(density, modes[0], fall, unit)
    furthest = float(widths.max())
    if not furthest > REACHED:
        return []
    factor = factorize_covariance(modes[0].covariance[None])[0]
    n = math.ceil(math.log(BEYOND * furthest / REACHED) / math.log(STEP))
    covariances = []
    for k in range(1, n + 1):
        reached = REACHED * (BEYOND * widths / REACHED) ** (k / n)
        columns = factor * torch.where(widths > REACHED, reached, 1.0)
        covariances.append(columns @ columns.T)
    return covariances


def _widths(density: UnconstrainedDensity, mode: Mode, fall: float, unit: float) -> Tensor:
    """How many times wider than the mode's Gaussian the density is along its axes, (d,).

    Up to ``REACHED`` it is 1; so it is where the density falls nowhere.
    """
    d = len(mode.point)
    columns = factorize_covariance(mode.covariance[None])[0].T  # one axis a row
    directions = torch.cat([columns, -columns])
    steps = torch.full((2 * d,), REACHED * unit, dtype=torch.float64)
    is_up = torch.ones(2 * d, dtype=torch.bool)
    for _ in range(MAX_DOUBLINGS):
        rows = is_up.nonzero().squeeze(1)
        points = mode.point + steps[rows, None] * directions[rows]
        # No draw is needed so far out: where the function fails there, nothing is to be reached.
        log_p = evaluate_where_possible(density, points, gradient=False, max_magnitude=0.0)[0]
        is_up[rows] = log_p > mode.log_density - fall
        if not bool(is_up.any()):
            break
        steps[is_up] *= 2
    reached = torch.where(is_up | (steps <= REACHED * unit), 1.0, steps / unit)
    return reached.view(2, d).amax(dim=0)
