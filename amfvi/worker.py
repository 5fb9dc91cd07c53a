"""A second process that fits experts, so that Python's lock does not make them take turns.

Small networks spend most of a step inside the interpreter: two of them in two threads
of one process are no faster than one after the other. A :class:`Worker` is a fresh
interpreter that imports this package and nothing of the caller's, so that a script
needs no ``if __name__ == "__main__"``.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from typing import Any, Self

import torch

from amfvi.errors import AmfviError, AmfviWarning, FitError
from amfvi.experts import Expert, ExpertConfig, FitReport, Folds, Progress

__all__ = ["Worker", "WorkerError", "fit_on_one_thread"]


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
                [sys.executable, "-P", "-m", "amfvi.worker", str(far_end.fileno())],
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
        job = (config, folds.draws, folds.fold, generator.get_state(), time_limit)
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


def fit_on_one_thread(
    config: ExpertConfig, folds: Folds, **options: Any
) -> tuple[Expert, FitReport]:
    """Fit with one thread inside each operation, wherever: the sums then round alike."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return config.fit(folds, **options)
    finally:
        torch.set_num_threads(before)


def serve(pipe: Connection) -> None:
    """Fit what comes down the pipe until it is closed."""

    def send(kind: str, content: Any) -> None:
        pipe.send_bytes(pickle.dumps((kind, content)))

    while True:
        try:
            config, draws, fold, state, time_limit = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        generator = torch.Generator()
        generator.set_state(state)
        with warnings.catch_warnings():
            warnings.showwarning = _to_caller(send)
            warnings.simplefilter("always", AmfviWarning)
            try:
                fitted = fit_on_one_thread(
                    config,
                    Folds(draws, fold),
                    generator=generator,
                    progress=lambda fraction, nll: send("progress", (fraction, nll)),
                    time_limit=time_limit,
                )
            except AmfviError as error:
                send("error", error)
            except Exception as error:
                send("error", FitError(f"{config.kind}: {type(error).__name__}: {error}"))
            else:
                send("done", fitted)


def _to_caller(send: Callable[[str, Any], None]) -> Callable[..., None]:
    def show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        if issubclass(category, AmfviWarning):
            send("warning", str(message))

    return show


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started us will end us
    serve(Connection(int(sys.argv[1])))
