"""Early stopping by the held-out negative log density, for every family of experts."""

from __future__ import annotations

import math
import time
from enum import StrEnum

from amfvi.experts.reports import FitReport, Progress, TrainingRecord

__all__ = ["EarlyStopping", "StopReason"]


class StopReason(StrEnum):
    """Reason for the end of a fit; the value is its default text.

    Examples:
        >>> StopReason.TIMEOUT.value
        'timeout'
    """

    CONVERGED = "no further improvement on held-out draws"
    MAX_STEPS = "max_steps"
    TIMEOUT = "timeout"
    NONFINITE = "non-finite loss"
    OUT_OF_REACH = "another fit of the same draws was out of reach"


MIN_SHARE_BEFORE_REACH = 0.3
"""Share of the steps before it is asked whether a fit can still reach another."""

MIN_STEPS_BEFORE_REACH = 4
"""Steps before that is asked of a fit whose gains are counted by doublings."""


class EarlyStopping:
    """The training curve of a fit, its best step, and whether to go on.

    After each step or check call :meth:`record`, and keep a copy of the state if it
    returns True. A fit of one phase then asks :meth:`should_stop`; a fit of several
    reads ``out_of_patience`` and ``timed_out`` and calls :meth:`stop` itself.

    Args:
        patience: records without improvement after which patience is at its end.
        max_steps: the step at which the fit ends at the latest; progress is the
            fraction of it.
        limit_name: the setting that gives ``max_steps``, for the report.
        progress: called at each record but that of step 0.
        timeout: seconds from now at which the fit is out of time.
        rival_nll: held-out NLL (nats) of another fit, below which this one has to get.
        by_doublings: whether steps are sizes, such as numbers of components, of which each
            doubling gains no more than the one before; otherwise no step does.

    Attributes:
        history: the records so far.
        best_step, best_nll: step and NLL (nats) of the lowest held-out NLL so far.
        reason: why the fit has ended; None while it has not.

    Examples:
        >>> stopping = EarlyStopping(patience=2, max_steps=100)
        >>> nlls = iter([3.0, 1.0, 2.0, 2.0, 0.5])
        >>> for step in range(5):
        ...     improved = stopping.record(step, train_nll=0.0, heldout_nll=next(nlls))
        ...     if stopping.should_stop():
        ...         break
        >>> step, stopping.best_step, stopping.report().stopped_by
        (3, 1, 'no further improvement on held-out draws')
    """

    def __init__(
        self,
        *,
        patience: int,
        max_steps: int,
        limit_name: str = "max_steps",
        progress: Progress | None = None,
        timeout: float | None = None,
        rival_nll: float | None = None,
        by_doublings: bool = False,
    ) -> None:
        self.history: list[TrainingRecord] = []
        self.best_step, self.best_nll = 0, math.inf
        self.reason: StopReason | None = None
        self._patience, self._without_improvement = patience, 0
        self._max_steps, self._limit_name = max_steps, limit_name
        self._progress = progress
        self._timeout = timeout
        self._rival_nll, self._by_doublings = rival_nll, by_doublings
        self._started = time.monotonic()
        self._last_step = 0

    def record(self, step: int, train_nll: float, heldout_nll: float) -> bool:
        """Add one point to the curve; True if its held-out NLL is the lowest so far."""
        self.history.append(TrainingRecord(step=step, train_nll=train_nll, heldout_nll=heldout_nll))
        self._last_step = step
        improved = heldout_nll < self.best_nll  # false for NaN
        if improved:
            self.best_step, self.best_nll, self._without_improvement = step, heldout_nll, 0
        else:
            self._without_improvement += 1
        if self._progress is not None and step > 0:
            self._progress(min(step / self._max_steps, 1.0), self.best_nll)
        return improved

    @property
    def out_of_patience(self) -> bool:
        """Whether the last ``patience`` records brought no improvement."""
        return self._without_improvement >= self._patience

    @property
    def timed_out(self) -> bool:
        """Whether the time limit has passed."""
        return self._timeout is not None and time.monotonic() - self._started > self._timeout

    @property
    def out_of_reach(self) -> bool:
        """Whether the gain of the last half of the steps, carried on, falls short of the rival.

        By steps, or by doublings. Curves of training flatten, so that this is the most that can
        be hoped for.
        """
        step, last = self._last_step, self._max_steps
        first = MIN_STEPS_BEFORE_REACH if self._by_doublings else MIN_SHARE_BEFORE_REACH * last
        if self._rival_nll is None or step < first:
            return False
        middle = min(self.history, key=lambda record: abs(record.step - step / 2))
        if middle.step == step:  # the first of sizes that do not begin with one
            return False
        gain = middle.heldout_nll - self.best_nll
        if self._by_doublings:
            repeats = math.log(last / step) / math.log(step / middle.step)
        else:
            repeats = (last - step) / (step - middle.step)
        return self.best_nll - gain * repeats > self._rival_nll

    def restart_patience(self, patience: int) -> None:
        """Count records without improvement anew, up to ``patience`` of them."""
        self._patience, self._without_improvement = patience, 0

    def should_stop(self) -> bool:
        """End the fit if it has converged, timed out, reached its last step or lost its rival."""
        if self.out_of_patience:
            self.stop(StopReason.CONVERGED)
        elif self.timed_out:
            self.stop(StopReason.TIMEOUT)
        elif self._last_step >= self._max_steps:
            self.stop(StopReason.MAX_STEPS)
        elif self.out_of_reach:
            self.stop(StopReason.OUT_OF_REACH)
        return self.reason is not None

    def stop(self, reason: StopReason, step: int | None = None) -> None:
        """End the fit for a ``reason``, met by ``step`` (default: the last recorded)."""
        self.reason = reason
        self._last_step = self._last_step if step is None else step

    def report(self) -> FitReport:
        """The report of a fit that has ended.

        Raises:
            RuntimeError: it has not.
        """
        if self.reason is None:
            raise RuntimeError("the fit has not ended: call stop or should_stop first")
        text = {
            StopReason.MAX_STEPS: self._limit_name,
            StopReason.NONFINITE: f"{StopReason.NONFINITE} by step {self._last_step}",
        }.get(self.reason, str(self.reason))
        return FitReport(
            history=tuple(self.history),
            best_step=self.best_step,
            converged=self.reason is StopReason.CONVERGED,
            stopped_by=text,
            seconds=time.monotonic() - self._started,
        )
