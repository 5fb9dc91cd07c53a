"""What a fit in progress tells its caller: lines of a log, warnings, and how far it is."""

from __future__ import annotations

import sys
import time
from typing import TextIO

__all__ = ["PrintReporter", "Reporter"]


class Reporter:
    """Receive news of a fit; override what is of interest, the rest is ignored.

    Methods are called from the threads that do the work, one call at a time per expert.

    Examples:
        >>> class Printer(Reporter):
        ...     def log(self, line):
        ...         print(line)
        >>> Printer().log("stage one done")
        stage one done
    """

    def log(self, line: str) -> None:
        """Receive a line on what was done or found."""

    def warn(self, line: str) -> None:
        """Receive a line on something the user should look at."""

    def expert_progress(self, expert: str, fraction: float, heldout_nll: float) -> None:
        """Receive how far an expert is, a fraction of its longest possible fit.

        ``heldout_nll`` is the lowest held-out negative log density so far, nats.
        """

    def sampler_progress(self, beta: float, log_z: float, n_evaluations: int) -> None:
        """Receive the inverse temperature β in [0, 1] that the sampler has reached.

        ``log_z`` is the estimate so far, nats.
        """

    def simulation_progress(self, done: int, total: int) -> None:
        """Receive how many simulations of those asked for have been made."""


class PrintReporter(Reporter):
    """Print the log of a fit, each line with the seconds since the reporter was made.

    Args:
        file: where to; standard error if not given.

    Examples:
        >>> PrintReporter(sys.stdout).log("stage one done")
        [   0.00 s] stage one done
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file
        self._started = time.monotonic()

    def log(self, line: str) -> None:
        seconds = time.monotonic() - self._started
        print(f"[{seconds:7.2f} s] {line}", file=self._file or sys.stderr, flush=True)

    def warn(self, line: str) -> None:
        self.log(f"warning: {line}")
