"""Limits on evaluations of a log density and on time."""

from __future__ import annotations

import time

__all__ = ["Budget", "OutOfBudgetError"]


class OutOfBudgetError(Exception):
    """Signal that a limit was reached; callers go on with what there is by then.

    Not a member of the :class:`~amfvi.errors.AmfviError` family: no user ever sees it.

    Attributes:
        limit: the option that was exceeded, "max_evaluations" or "timeout".

    Examples:
        >>> raise OutOfBudgetError("timeout", 60)
        Traceback (most recent call last):
        amfvi.density.budget.OutOfBudgetError: timeout=60
    """

    def __init__(self, limit: str, value: float) -> None:
        super().__init__(f"{limit}={value:g}")
        self.limit = limit


class Budget:
    """Count evaluations and watch the time.

    Attributes:
        max_evaluations: the most evaluations allowed; None for no limit.
        timeout: seconds allowed from now on; None for no limit.
        spent: evaluations so far.

    Examples:
        >>> budget = Budget(max_evaluations=10)
        >>> budget.spend(8)
        >>> budget.spend(8)
        Traceback (most recent call last):
        amfvi.density.budget.OutOfBudgetError: max_evaluations=10
    """

    def __init__(self, max_evaluations: int | None = None, timeout: float | None = None) -> None:
        self.max_evaluations = max_evaluations
        self.spent = 0
        self._started = time.monotonic()
        self._timeout = timeout

    @property
    def left(self) -> int | None:
        """Evaluations left; None where there is no limit."""
        return None if self.max_evaluations is None else self.max_evaluations - self.spent

    def limit(self, max_evaluations: int | None, timeout: float | None) -> None:
        """Replace both limits; seconds count from now, evaluations from the start."""
        self.max_evaluations = max_evaluations
        self._started, self._timeout = time.monotonic(), timeout

    def spend(self, evaluations: int) -> None:
        """Take ``evaluations`` from what is left.

        Raises:
            OutOfBudgetError: fewer are left, or the time is up.
        """
        if self.max_evaluations is not None and self.spent + evaluations > self.max_evaluations:
            raise OutOfBudgetError("max_evaluations", self.max_evaluations)
        if self._timeout is not None and time.monotonic() - self._started > self._timeout:
            raise OutOfBudgetError("timeout", self._timeout)
        self.spent += evaluations
