"""A fit that consists of several in turn, of which the best on held-out draws is kept."""

from __future__ import annotations

import time
from dataclasses import replace

from amfvi.experts.reports import FitReport, Progress

__all__ = ["Attempts"]


class Attempts:
    """One time limit, one progress and one report for all fits of an expert.

    Args:
        progress: callback of the whole.
        timeout: seconds from now at which the whole is out of time.

    Examples:
        >>> fractions = []
        >>> attempts = Attempts(lambda fraction, nll: fractions.append(fraction), timeout=None)
        >>> attempts.progress(0.5, 0.6)(1.0, 0.0)
        >>> fractions, attempts.seconds_left
        ([0.6], None)
    """

    def __init__(self, progress: Progress | None, timeout: float | None) -> None:
        self._progress, self._timeout = progress, timeout
        self._started = time.monotonic()

    @property
    def seconds_left(self) -> float | None:
        """Seconds to the end; None without a limit."""
        if self._timeout is None:
            return None
        return max(self._timeout - (time.monotonic() - self._started), 0.0)

    def progress(self, start: float, end: float) -> Progress | None:
        """The callback of a fit that takes the whole from one fraction to another."""
        whole = self._progress
        if whole is None:
            return None
        return lambda fraction, heldout_nll: whole(start + fraction * (end - start), heldout_nll)

    def report(self, report: FitReport) -> FitReport:
        """The report of the fit that is kept, with the time of all of them."""
        return replace(report, seconds=time.monotonic() - self._started)
