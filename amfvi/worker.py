"""A second process that fits experts, so that Python's lock does not make them take turns.

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

if TYPE_CHECKING:
    import torch

    from amfvi.experts import Expert, ExpertConfig, FitReport, Folds, Progress

__all__ = ["WORTH_A_PROCESS", "Worker", "WorkerError", "end_early", "start_early", "take"]

# Rows times members from which starting a process, about a second, is soon won back.
WORTH_A_PROCESS = 20_000


class WorkerError(Exception):
    """The process could not be started or is gone; the work can be done elsewhere."""


class Worker:
    """One process; use it as a context, which ends it."""

    def __init__(self) -> None:
        """Start the process.

        Raises:
            WorkerError: this system cannot.
        """
        if os.name != "posix":
            raise WorkerError("handing a pipe to a process is for POSIX systems")
        self._pipe, far_end = Pipe()
        try:
            self._process = subprocess.Popen(
                # -P: the caller's folder is none of the worker's.
                [sys.executable, "-P", "-m", "amfvi.worker_process", str(far_end.fileno())],
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
        time_limit: float | None,
    ) -> tuple[Expert, FitReport]:
        """As :meth:`ExpertConfig.fit` on the CPU, in the process.

        Raises:
            FitError: as there.
            WorkerError: the process is gone.
        """
        data = (folds.draws, folds.fold, folds.weight)
        job = (config, data, generator.get_state(), time_limit)
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
        self._process.kill()
        self._process.wait()
        self._pipe.close()


_early: list[Worker] = []


def start_early() -> None:
    """Start a process now, that the next :func:`take` finds with its imports done.

    For a caller that has imports of its own ahead. One that nobody takes ends by
    :func:`end_early`, at the latest with this process.
    """
    if not _early and (os.cpu_count() or 1) > 1:
        with suppress(WorkerError):  # then take will say why
            _early.append(Worker())


def take() -> Worker:
    """The process started early, or a new one.

    Raises:
        WorkerError: this system cannot start any.
    """
    return _early.pop() if _early else Worker()


@atexit.register
def end_early() -> None:
    """End the process that was started early if nobody has taken it."""
    while _early:
        _early.pop().__exit__()
