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
    """Count evaluations and watch the time, from the moment it is made.

    Args:
        max_evaluations: the most evaluations allowed; None for no limit.
        timeout: seconds allowed; None for no limit.
        reserved_evaluations: share of the evaluations that is kept back until
            :meth:`release`.
        reserved_time: share of the seconds that is kept back until then.

    Attributes:
        spent: evaluations so far.

    Examples:
        >>> budget = Budget(max_evaluations=10)
        >>> budget.spend(8)
        >>> budget.spend(8)
        Traceback (most recent call last):
        amfvi.density.budget.OutOfBudgetError: max_evaluations=10
    """

    def __init__(
        self,
        max_evaluations: int | None = None,
        timeout: float | None = None,
        *,
        reserved_evaluations: float = 0.0,
        reserved_time: float = 0.0,
    ) -> None:
        self.max_evaluations = max_evaluations
        self.timeout = timeout
        self.spent = 0
        self._started = time.monotonic()
        self._reserved = int(reserved_evaluations * (max_evaluations or 0))
        self._seconds = None if timeout is None else (1 - reserved_time) * timeout

    @property
    def left(self) -> int | None:
        """Evaluations left but for those kept back; None where there is no limit."""
        if self.max_evaluations is None:
            return None
        return self.max_evaluations - self._reserved - self.spent

    def release(self, *, timed: bool = True, kept: float = 0.0) -> None:
        """Allow what was kept back, but for a share ``kept`` of all evaluations.

        Without ``timed``, whatever time it takes.
        """
        self._reserved = int(kept * (self.max_evaluations or 0))
        self._seconds = self.timeout if timed else None

    def require(self, evaluations: int) -> None:
        """Require that so many evaluations are left.

        Raises:
            OutOfBudgetError: they are not; it names the whole limit.
        """
        if self.left is not None and evaluations > self.left:
            raise OutOfBudgetError("max_evaluations", float(self.max_evaluations or 0))

    def spend(self, evaluations: int) -> None:
        """Take ``evaluations`` from what is left.

        Raises:
            OutOfBudgetError: fewer are left, or the time is up; it names the whole limit.
        """
        self.require(evaluations)
        if self._seconds is not None and time.monotonic() - self._started > self._seconds:
            raise OutOfBudgetError("timeout", float(self.timeout or 0.0))
        self.spent += evaluations
