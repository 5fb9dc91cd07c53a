"""The log of a run: lines with their time, and warnings among them."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from amfvi.errors import AmfviWarning
from amfvi.reporting import Reporter

__all__ = ["RunLog", "SamplerPath"]


@dataclass(frozen=True)
class SamplerPath:
    """What one run of the sampler reported, step by step; a resumed one from where it went on.

    Attributes:
        betas: inverse temperatures up to 1.
        log_zs: estimates of log Z so far, nats.
        n_evaluations: evaluations of the density so far, those of earlier runs included.

    Examples:
        >>> SamplerPath([0.1, 1.0], [-2.0, -3.0], [2000, 4000]).betas[-1]
        1.0
    """

    betas: list[float] = field(default_factory=list)
    log_zs: list[float] = field(default_factory=list)
    n_evaluations: list[int] = field(default_factory=list)


class RunLog(Reporter):
    """Keep the lines of ``log.txt`` and pass everything on to another reporter.

    Attributes:
        lines: log lines and warnings, each with its time.
        warned: the warnings alone.
        sampler_paths: one for each run of the sampler.

    Examples:
        >>> log = RunLog(Reporter())
        >>> with log.catching_warnings():
        ...     warnings.warn("few draws", AmfviWarning)
        >>> log.warned
        ['few draws']
    """

    def __init__(self, reporter: Reporter) -> None:
        self.lines: list[str] = []
        self.warned: list[str] = []
        self.sampler_paths: list[SamplerPath] = []
        self._reporter = reporter
        self._started = time.monotonic()

    def log(self, line: str) -> None:
        timed = self._with_time(line)
        self.lines.append(timed)
        self._reporter.log(timed)

    def warn(self, line: str) -> None:
        self.warned.append(line)
        timed = self._with_time(f"warning: {line}")
        self.lines.append(timed)
        self._reporter.warn(timed)

    def expert_progress(self, expert: str, fraction: float, heldout_nll: float) -> None:
        self._reporter.expert_progress(expert, fraction, heldout_nll)

    def sampler_progress(self, beta: float, log_z: float, n_evaluations: int) -> None:
        if not self.sampler_paths or beta <= self.sampler_paths[-1].betas[-1]:
            self.sampler_paths.append(SamplerPath())
        path = self.sampler_paths[-1]
        path.betas.append(beta)
        path.log_zs.append(log_z)
        path.n_evaluations.append(n_evaluations)
        self._reporter.sampler_progress(beta, log_z, n_evaluations)

    def simulation_progress(self, done: int, total: int) -> None:
        self._reporter.simulation_progress(done, total)

    @contextmanager
    def catching_warnings(self) -> Iterator[None]:
        """Make amfvi's own warnings lines of the log; others stay warnings."""
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", AmfviWarning)
                yield
        finally:
            for warning in caught:
                if issubclass(warning.category, AmfviWarning):
                    self.warn(str(warning.message))
                else:
                    warnings.warn_explicit(
                        warning.message, warning.category, warning.filename, warning.lineno
                    )

    def _with_time(self, line: str) -> str:
        return f"[{time.monotonic() - self._started:7.2f} s] {line}"
