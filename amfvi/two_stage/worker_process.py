"""The program of the second process of :mod:`amfvi.two_stage.worker`."""

from __future__ import annotations

import pickle
import signal
import sys
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

from amfvi.errors import AmfviError, AmfviWarning, FitError
from amfvi.experts import Expert, ExpertConfig, FitReport, Folds
from amfvi.experts.parallel import one_thread
from amfvi.two_stage.job import Job

__all__ = ["fit_on_one_thread", "run_job"]


def fit_on_one_thread(
    config: ExpertConfig, folds: Folds, **options: Any
) -> tuple[Expert, FitReport]:
    """Fit with one thread inside each operation, so that sums round alike in any process.

    Examples:
        >>> from amfvi.experts import GMM
        >>> draws = torch.randn(100, 1, generator=torch.Generator().manual_seed(0)).double()
        >>> folds = Folds(draws, torch.arange(100) % 2)
        >>> expert, report = fit_on_one_thread(GMM(), folds, generator=torch.Generator())
        >>> expert.dim
        1
    """
    with one_thread():
        return config.fit_folds(folds, **options)


def run_job(job: Job, tell: Callable[[str, Any], None]) -> tuple[str, Any]:
    """Fit an expert as :class:`Job` describes: ("done", what it gave) or ("error", what it raised).

    Args:
        tell: receives ("progress", (fraction, held-out NLL)) and ("warning", text) meanwhile.

    Examples:
        >>> from amfvi.experts import GMM
        >>> draws = torch.randn(100, 1, generator=torch.Generator().manual_seed(0)).double()
        >>> job = Job.of(GMM(), Folds(draws, torch.arange(100) % 2), torch.Generator(), None)
        >>> run_job(job, lambda kind, content: None)[0]
        'done'
    """
    generator = torch.Generator()
    generator.set_state(job.generator_state)
    with warnings.catch_warnings():
        warnings.showwarning = _to_caller(tell)
        warnings.simplefilter("always", AmfviWarning)
        try:
            fitted = fit_on_one_thread(
                job.config,
                Folds(*job.data),
                generator=generator,
                progress=lambda fraction, nll: tell("progress", (fraction, nll)),
                timeout=job.timeout,
            )
        except AmfviError as error:
            return "error", error
        except Exception as error:
            return "error", FitError(f"{job.config.kind}: {type(error).__name__}: {error}")
        return "done", fitted


def serve(pipe: Connection) -> None:
    """Fit the jobs that arrive by a pipe until it is closed."""

    def send(kind: str, content: Any) -> None:
        pipe.send_bytes(pickle.dumps((kind, content)))

    while True:
        try:
            job = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        send(*run_job(job, send))


def _to_caller(send: Callable[[str, Any], None]) -> Callable[..., None]:
    def show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        if issubclass(category, AmfviWarning):
            send("warning", str(message))

    return show


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it
    serve(Connection(int(sys.argv[1])))
