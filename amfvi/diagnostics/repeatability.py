"""Call a density twice at one point, many times, to see whether it is random."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from amfvi.density.budget import OutOfBudgetError
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.density.vectorize import require_reproducible

__all__ = ["require_repeatable"]

N_REPEATED = 1000
"""Points at which the density is evaluated twice: what is random in one call of 200 is missed in
less than one case of a hundred."""

MAX_SECONDS = 10.0
"""Seconds after which no more points are evaluated twice, where calls for one point may cost
much more than points of a batch, or where time is limited."""

POINTS_PER_WORKER = 8
"""Points that are called for at a time, per worker."""

MIN_EVALUATIONS_LEFT = 2_000
"""Evaluations that must be left in the budget for such a check."""


def require_repeatable(density: UnconstrainedDensity, x: Tensor, log_p: Tensor) -> None:
    """Require that a density gives the same values again, one call per point.

    One point at a time, since what is random may be a call and not a point.

    Args:
        x: points (n, d) in the user's parameters.
        log_p: their log densities, (n,), nats.

    Raises:
        InputError: a value differs by more than rounding.

    Examples:
        >>> from amfvi.density.log_density import LogDensity
        >>> density = UnconstrainedDensity(LogDensity(lambda x: -x.square().sum(dim=1), 1))
        >>> require_repeatable(density, torch.ones(1, 1).double(), torch.tensor([-2.0]).double())
        Traceback (most recent call last):
        amfvi.errors.InputError: the log density is random: -2 and -1 in two calls at one point...
    """
    if density.budget.left is not None and density.budget.left < MIN_EVALUATIONS_LEFT:
        return
    rows = torch.arange(0, len(x), max(1, len(x) // N_REPEATED))[:N_REPEATED]
    rows = rows[log_p[rows] > -math.inf]
    vectorized = density.log_density.vectorized
    # A function of one point costs the same for every call, before and here.
    is_timed = not vectorized.why_singly or density.budget.timeout is not None
    at_once = POINTS_PER_WORKER * density.n_workers
    if density.n_workers == 1 and not vectorized.why_singly:
        at_once = 1
    ends_at = time.monotonic() + MAX_SECONDS
    singly = density.calling_singly()
    for some in rows.split(at_once) if len(rows) else ():
        try:
            again = singly.log_prob_constrained(x[some])
        except OutOfBudgetError:
            return
        require_reproducible(log_p[some], again, vectorized.resolution)
        if is_timed and time.monotonic() > ends_at:
            return
