"""The time that an inference has taken and has left."""

from __future__ import annotations

import time

__all__ = ["Clock"]


class Clock:
    """Seconds since the start, and the seconds left of a timeout.

    Args:
        timeout: seconds; None for no limit.

    Examples:
        >>> Clock(None).left() is None
        True
        >>> 0 < Clock(100.0).left() <= 100.0
        True
    """

    def __init__(self, timeout: float | None) -> None:
        self._started = time.monotonic()
        self._timeout = timeout

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def left(self) -> float | None:
        """Seconds left of the timeout, always positive; None without one."""
        return None if self._timeout is None else max(self._timeout - self.elapsed, 1e-3)
