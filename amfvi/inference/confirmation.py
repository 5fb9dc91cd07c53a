"""A closer look at a mixture that seems right, by more weighted draws."""

from __future__ import annotations

from typing import TypeVar

from amfvi.density.budget import OutOfBudgetError
from amfvi.inference.attempt import Assessment
from amfvi.inference.limits import (
    CONFIRMATION_SHARE,
    LAST_EVALUATIONS,
    MAX_CONFIRMED,
    MAX_DRAWS_NEEDED,
)
from amfvi.inference.session import Session

__all__ = ["confirm"]

A = TypeVar("A", bound=Assessment)


def confirm(session: Session, attempt: A, number: int) -> A:
    """Add weighted draws to a mixture that seems right, the more the harder it was to find.

    At least so many that log Z and standard deviations are known to the precision that is
    wanted, if the limits allow.

    Args:
        number: of the refinement, for the random streams.

    Examples:
        >>> from amfvi.density.log_density import LogDensity
        >>> from amfvi.reporting import Reporter
        >>> from amfvi.two_stage.options import FitOptions
        >>> normal = LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), dim=1)
        >>> session = Session(normal, FitOptions(experts="gmm", n_draws=200), Reporter(), None)
        >>> attempt = session.fit(session.sample("sampler", "sampled"), 0)
        >>> len(confirm(session, attempt, 0).weighted.x)
        5000
    """
    share = min(round(CONFIRMATION_SHARE * session.budget.spent), MAX_CONFIRMED)
    for name in (f"confirm {number}", f"confirm {number} closer"):  # the first may show a need
        n = max(share, min(round(attempt.draws_needed), MAX_DRAWS_NEEDED))
        if session.budget.left is not None:
            affordable = max(session.budget.left - LAST_EVALUATIONS, 0)
            n = min(n, len(attempt.weighted.x) + affordable)
        try:
            attempt = session.add_draws(attempt, n, name)
        except OutOfBudgetError:
            break
    return attempt
