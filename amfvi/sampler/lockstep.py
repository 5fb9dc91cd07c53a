"""Optimizations that advance together, so that all their points are evaluated at once.

A library's optimizer asks for one point after the other. Several in threads, each waiting for
its values, ask for as many at a time, which a pool of workers shares.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, minimize

__all__ = ["EvaluateAll", "minimize_together"]

Array = NDArray[np.float64]

ValueAndGradient = tuple[float, Array]

EvaluateAll = Callable[[Sequence[Array]], Sequence[ValueAndGradient]]
"""From points (d,) to values and gradients (d,) of each."""


Answers = SimpleQueue[ValueAndGradient | None]
"""Values for one optimizer; None: there are no more."""


class _StoppedError(BaseException):
    """Signal an optimizer that nothing will be evaluated any more."""


@dataclass(frozen=True)
class _Report:
    """What a thread has to say: a point to evaluate, or its result, or its exception."""

    number: int
    content: Any


def minimize_together(
    evaluate_all: EvaluateAll, starts: Sequence[Array], **options: Any
) -> list[OptimizeResult]:
    """Minimize from each start, as :func:`scipy.optimize.minimize` does from each alone.

    In rounds: all that have not ended ask for a point, and all points are evaluated, by this
    thread, in the order of the starts.

    Args:
        evaluate_all: from points (d,) to values and gradients (d,) of each.
        starts: points (d,).
        options: keyword arguments of ``minimize`` beside ``jac``.

    Raises:
        Exception: what ``evaluate_all`` or ``minimize`` raise.

    Examples:
        >>> def evaluate_all(points):
        ...     return [(float(x @ x), 2 * x) for x in points]
        >>> results = minimize_together(evaluate_all, [np.ones(2), np.zeros(2)], method="BFGS")
        >>> [round(float(result.fun), 6) for result in results]
        [0.0, 0.0]
    """
    reports: SimpleQueue[_Report] = SimpleQueue()
    answers: list[Answers] = [SimpleQueue() for _ in starts]
    results: list[Any] = [None] * len(starts)
    running = len(starts)
    try:
        for number, start in enumerate(starts):
            arguments = (number, start, reports, answers[number], options)
            threading.Thread(target=_run, args=arguments, daemon=True).start()
        while running:
            points: dict[int, Array] = {}
            for _ in range(running):
                report = reports.get()
                if isinstance(report.content, BaseException):
                    raise report.content
                if isinstance(report.content, OptimizeResult):
                    results[report.number] = report.content
                else:
                    points[report.number] = report.content
            running = len(points)
            order = sorted(points)
            with np.errstate(all="ignore"):
                values = evaluate_all([points[number] for number in order]) if order else []
            for number, value in zip(order, values, strict=True):
                answers[number].put(value)
    finally:
        for answer in answers:  # those that still wait; others are not there to read it
            answer.put(None)
    return results


def _run(
    number: int,
    start: Array,
    reports: SimpleQueue[_Report],
    answers: Answers,
    options: dict[str, Any],
) -> None:
    """Minimize in a thread, whose values come from the one that reads its reports."""

    def objective(x: Array) -> ValueAndGradient:
        reports.put(_Report(number, x.copy()))
        answer = answers.get()
        if answer is None:
            raise _StoppedError
        return answer

    try:
        with np.errstate(all="ignore"):
            result: Any = minimize(objective, start, jac=True, **options)
    except BaseException as error:  # raised again by the thread that waits
        result = error
    reports.put(_Report(number, result))
