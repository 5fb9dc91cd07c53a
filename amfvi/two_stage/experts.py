"""Stage one: fit every expert alone, on the same draws, and freeze it."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from queue import Queue

import torch

from amfvi.cluster import Cluster
from amfvi.errors import AmfviWarning
from amfvi.experts import EXPERTS, Expert, ExpertConfig, FitReport, Folds, Progress
from amfvi.randomness import generator_for
from amfvi.reporting import Reporter
from amfvi.two_stage.remote import fit_on_cluster
from amfvi.two_stage.worker import (
    MIN_ROWS_FOR_A_PROCESS,
    Worker,
    WorkerError,
    acquire,
    discard_prestarted,
)
from amfvi.two_stage.worker_process import fit_on_one_thread

__all__ = ["FittedExpert", "fit_experts"]


@dataclass(frozen=True)
class FittedExpert:
    """An expert with the report of its fit.

    Examples:
        See :func:`fit_experts`, which makes them:

        >>> FittedExpert.__dataclass_fields__.keys()
        dict_keys(['expert', 'report'])
    """

    expert: Expert
    report: FitReport


def fit_experts(
    configs: Mapping[str, ExpertConfig],
    folds: Folds,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    reporter: Reporter | None = None,
    timeout: float | None = None,
    cluster: str | None = None,
) -> dict[str, FittedExpert]:
    """Fit each expert to the same folds.

    Each expert has a random generator of its own, named after it, so that its fit depends
    neither on which others are fitted nor on their order. On a CPU experts are fitted side
    by side, and from a few thousand draws on in processes of their own. ``timeout``, in
    seconds, is for all of them: each gets a fair share of what is left when its turn comes.

    Workers of a Ray ``cluster``, given by its address, fit all at once, to the same result.

    Raises:
        FitError: an expert could not be fitted; the message names it.

    Examples:
        >>> from amfvi.experts import resolve
        >>> draws = torch.randn(200, 2, generator=generator_for(0, "example")).double()
        >>> folds = Folds(draws, torch.arange(200) % 2)
        >>> fitted = fit_experts(resolve(["gmm"]), folds, seed=0)
        >>> fitted["gmm"].expert.dim
        2
    """
    reporter = reporter or Reporter()
    if cluster is not None:
        there = Cluster(cluster), configs, folds, seed, device
        remote = fit_on_cluster(*there, reporter=reporter, timeout=timeout)
        return {name: FittedExpert(*fitted) for name, fitted in remote.items()}
    # Small networks leave a second core idle; an accelerator takes them in turn.
    on_cpu = torch.device(device).type == "cpu"
    n_workers = min(len(configs), os.cpu_count() or 1) if on_cpu else 1
    own_processes = len(folds) * folds.n_members >= MIN_ROWS_FOR_A_PROCESS
    workers = _this_process()
    stage = _StageOne(folds, seed, device, reporter, workers)
    with ExitStack() as stack, ThreadPoolExecutor(n_workers) as pool:
        try:
            for _ in range(n_workers - 1):
                workers.put(_start_worker(stack) if own_processes else None)
            discard_prestarted()
            deadline = _Deadline(timeout, len(configs), n_workers)
            jobs = {
                name: pool.submit(stage.fit, name, config, deadline, position)
                for position, (name, config) in enumerate(configs.items())
            }
            wait(jobs.values(), return_when=FIRST_EXCEPTION)
            for job in jobs.values():
                if job.done():
                    job.result()  # raise the first failure before waiting for the rest
            return {name: job.result() for name, job in jobs.items()}
        except BaseException:  # a failed expert or an interrupt ends the others too
            stage.cancelled.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _this_process() -> Queue[Worker | None]:
    """A queue of what fits experts, with this process in it alone."""
    workers: Queue[Worker | None] = Queue()
    workers.put(None)
    return workers


@dataclass(frozen=True)
class _Deadline:
    """A limit on the time of several jobs, and the share of each."""

    timeout: float | None
    n_jobs: int
    n_workers: int
    started: float = field(default_factory=time.monotonic)

    def share(self, position: int) -> float | None:
        """Seconds for the job at ``position``, beginning now."""
        if self.timeout is None:
            return None
        left = max(self.timeout - (time.monotonic() - self.started), 0.0)
        return left * min(1.0, self.n_workers / (self.n_jobs - position))


@dataclass(frozen=True)
class _StageOne:
    """What the fits of all experts share."""

    folds: Folds
    seed: int
    device: torch.device | str
    reporter: Reporter
    workers: Queue[Worker | None]
    cancelled: threading.Event = field(default_factory=threading.Event)

    def fit(
        self, name: str, config: ExpertConfig, deadline: _Deadline, position: int
    ) -> FittedExpert:
        timeout = deadline.share(position)
        worker = self.workers.get()
        try:
            expert, report = self._fit_in(worker, name, config, timeout)
        finally:
            self.workers.put(worker)
        self.reporter.expert_progress(name, 1.0, report.heldout_nll)
        return FittedExpert(expert, report)

    def _fit_in(
        self, worker: Worker | None, name: str, config: ExpertConfig, timeout: float | None
    ) -> tuple[Expert, FitReport]:
        progress = self._progress(name)
        # A family defined in the caller's script is unknown to another process.
        if worker is not None and EXPERTS.get(config.kind) is type(config):
            try:
                return worker.fit(
                    config,
                    self.folds,
                    generator=generator_for(self.seed, "expert", name),
                    progress=progress,
                    timeout=timeout,
                )
            except WorkerError as error:
                warnings.warn(f"{name}: {error}; fitting here", AmfviWarning, stacklevel=2)
        return fit_on_one_thread(
            config,
            self.folds,
            generator=generator_for(self.seed, "expert", name),
            device=self.device,
            progress=progress,
            timeout=timeout,
        )

    def _progress(self, name: str) -> Progress:
        def tell(fraction: float, heldout_nll: float) -> None:
            if self.cancelled.is_set():
                raise _CancelledError
            self.reporter.expert_progress(name, fraction, heldout_nll)

        return tell


def _start_worker(stack: ExitStack) -> Worker | None:
    try:
        return stack.enter_context(acquire())
    except WorkerError:  # then this process does the work in one more thread
        return None


class _CancelledError(Exception):
    """End the fit of an expert after another one has failed."""
