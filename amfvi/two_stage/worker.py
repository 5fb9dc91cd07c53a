"""A second process that fits experts, so that Python's global lock does not serialize them.

Small networks spend most of a step inside the interpreter: two of them in two threads
of one process are no faster than one after the other. A :class:`Worker` is a fresh
interpreter that imports this package and nothing of the caller's, so that a script
needs no ``if __name__ == "__main__"``. This side of it imports nothing heavy, so that
the process can start before torch is imported here.
"""

from __future__ import annotations

import atexit
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Pipe
from typing import TYPE_CHECKING, Any, Self

from amfvi.errors import AmfviWarning
from amfvi.two_stage.job import Job

if TYPE_CHECKING:
    import torch

    from amfvi.experts import Expert, ExpertConfig, FitReport, Folds, Progress

__all__ = [
    "MIN_ROWS_FOR_A_PROCESS",
    "Worker",
    "WorkerError",
    "acquire",
    "discard_prestarted",
    "prestart",
]

MIN_ROWS_FOR_A_PROCESS = 20_000
"""Rows times members from which starting a process, about a second, pays."""


class WorkerError(Exception):
    """Signal a process that could not be started or is gone; the caller does the work."""


class Worker:
    """One process, started when made; a context manager that ends it.

    Raises:
        WorkerError: this system cannot start it.

    Examples:
        >>> with Worker() as worker:
        ...     pass
    """

    def __init__(self) -> None:
        if os.name != "posix":
            raise WorkerError("handing a pipe to a process is for POSIX systems")
        self._pipe, far_end = Pipe()
        try:
            self._process = subprocess.Popen(
                # -P: do not put the caller's folder on sys.path.
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "amfvi.two_stage.worker_process",
                    str(far_end.fileno()),
                ],
                pass_fds=[far_end.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            raise WorkerError(str(error)) from None
        finally:
            far_end.close()

    def fit(
        self,
        config: ExpertConfig,
        folds: Folds,
        *,
        generator: torch.Generator,
        progress: Progress,
        timeout: float | None,
    ) -> tuple[Expert, FitReport]:
        """As :meth:`ExpertConfig.fit_folds` on the CPU, in the process.

        Raises:
            FitError: as there.
            WorkerError: the process is gone.
        """
        job = Job.of(config, folds, generator, timeout)
        self._over_the_pipe(lambda: self._pipe.send_bytes(pickle.dumps(job)))
        while True:
            kind, content = pickle.loads(self._over_the_pipe(self._pipe.recv_bytes))
            if kind == "progress":
                progress(*content)
            elif kind == "warning":
                warnings.warn(content, AmfviWarning, stacklevel=2)
            elif kind == "error":
                raise content
            else:
                return content

    @staticmethod
    def _over_the_pipe(call: Callable[[], Any]) -> Any:
        """``call``; what it raises is the pipe's doing, never that of a caller's progress."""
        try:
            return call()
        except (EOFError, OSError) as error:
            raise WorkerError(f"the worker process ended: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._pipe.close()


_prestarted: list[Worker] = []


def prestart() -> None:
    """Start a process now, for the next :func:`acquire` to find with its imports done.

    Call before slow imports. A process that is not acquired ends with
    :func:`discard_prestarted`, at the latest with this process.

    Examples:
        >>> prestart()
        >>> discard_prestarted()
    """
    if not _prestarted and (os.cpu_count() or 1) > 1:
        with suppress(WorkerError):  # acquire will raise it again
            _prestarted.append(Worker())


def acquire() -> Worker:
    """Take the process started before, or start one.

    Raises:
        WorkerError: this system cannot start any.

    Examples:
        >>> with acquire() as worker:
        ...     type(worker).__name__
        'Worker'
    """
    return _prestarted.pop() if _prestarted else Worker()


@atexit.register
def discard_prestarted() -> None:
    """End the process that was started early, if it was not acquired.

    Examples:
        >>> discard_prestarted()
    """
    while _prestarted:
        _prestarted.pop().close()
