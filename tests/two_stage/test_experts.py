"""Stage one: whoever fits an expert, here or in another process, it is the same expert."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

import amfvi
from amfvi import stage_one, worker
from amfvi.errors import AmfviWarning, FitError
from amfvi.experts import MAF, Expert, ExpertConfig, FitReport, Folds
from amfvi.experts.base import TrainingRecord
from amfvi.two_stage.worker import Worker, WorkerError, end_early, start_early, take
from amfvi.two_stage.worker_process import fit_on_one_thread


class Memory(Expert):
    """A narrow kernel on every draw a member has seen: superb there, hopeless elsewhere."""

    def __init__(self, config, seen, width=0.02):
        super().__init__(config, seen[0].shape[1], len(seen))
        self.seen, self.width = seen, width

    def _log_prob(self, x):
        return torch.stack([
            torch.logsumexp(-0.5 * (torch.cdist(points, seen) / self.width).square(), dim=1)
            - torch.tensor(len(seen) * (2 * torch.pi * self.width**2) ** (self.dim / 2)).log()
            for points, seen in zip(x, self.seen, strict=True)
        ])  # fmt: skip

    def _sample(self, n, generator, dtype):
        raise NotImplementedError

    def tensors(self):
        return {}

    def to(self, device):
        return self

    @property
    def device(self):
        return torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Memorising(ExpertConfig):
    """A family that only this file knows."""

    kind: ClassVar[str] = "memory"

    def fit(self, folds, **options):
        history = (TrainingRecord(step=0, train_nll=0.0, heldout_nll=0.0),)
        report = FitReport(history=history, best_step=0, converged=True, stopped_by="", seconds=0)
        return Memory(self, [folds.draws[rows] for rows in folds.train_rows]), report

    def restore(self, dim, tensors):
        raise NotImplementedError


def test_an_overfitted_expert_gets_no_weight_from_the_draws_it_has_seen():
    posterior = amfvi.fit("bimodal", n_draws=1000, experts=[Memorising(), "gmm"], seed=0)
    x = posterior.summary.split.draws
    in_sample = posterior.expert_log_probs(x).mean(dim=0)
    assert in_sample[0] > in_sample[1] + 0.5
    assert posterior.weights[0] < 0.01


@pytest.fixture
def folds(curved, folded):
    return folded(curved(2, 600, 0), 5)


def seed(number):
    return torch.Generator().manual_seed(number)


def ignore(fraction, nll):
    """No progress is wanted."""


def test_a_worker_returns_the_same_expert_to_the_last_bit(kind, small, folds, curved):
    here, report = fit_on_one_thread(small[kind], folds, generator=seed(3))
    told = []
    with Worker() as worker:
        there, other = worker.fit(
            small[kind], folds, generator=seed(3),
            progress=lambda *news: told.append(news), timeout=None,
        )  # fmt: skip
    x = curved(2, 300, 5)
    assert torch.equal(here.log_prob(x), there.log_prob(x))
    assert report.history == other.history
    assert told
    assert told[-1][1] == pytest.approx(report.heldout_nll)


def test_a_worker_knows_the_weights_of_the_draws(small, folds):
    weighted = Folds(folds.draws, folds.fold, torch.linspace(0, 2, len(folds)).double())
    options = {"progress": ignore, "timeout": None}
    with Worker() as worker:
        there = worker.fit(small["gmm"], weighted, generator=seed(0), **options)[0].tensors()
    here = fit_on_one_thread(small["gmm"], weighted, generator=seed(0))[0].tensors()
    plain = fit_on_one_thread(small["gmm"], folds, generator=seed(0))[0].tensors()
    assert all(torch.equal(there[name], here[name]) for name in here)
    assert not torch.equal(there["means"], plain["means"])


def test_an_error_in_a_worker_is_raised_here(small, folds):
    broken = Folds(folds.draws * float("nan"), folds.fold)
    with Worker() as worker, pytest.raises(FitError, match="maf: the draws hold NaN"):
        worker.fit(small["maf"], broken, generator=seed(0), progress=ignore, timeout=None)


def test_a_worker_started_early_is_taken_once(small, folds, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    end_early()
    start_early()
    start_early()
    (early,) = worker._early
    with take() as first, take() as second:
        assert first is early
        assert first is not second
        for one in (first, second):
            one.fit(small["gmm"], folds, generator=seed(0), progress=ignore, timeout=None)


def test_a_fit_that_has_no_use_for_an_early_worker_ends_it(small, folds, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    start_early()
    (early,) = worker._early
    stage_one.fit_experts({"gmm": small["gmm"]}, folds, seed=0)
    assert not worker._early
    assert early._process.poll() is not None


def test_a_worker_that_nobody_takes_ends_with_the_process_that_started_it():
    script = "import os; os.cpu_count = lambda: 2; from amfvi import worker; worker.start_early(); "
    script += "print(worker._early[0]._process.pid)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


def test_a_killed_worker_is_noticed(folds):
    with Worker() as worker:
        stop = threading.Timer(2.0, os.kill, (worker._process.pid, signal.SIGKILL))
        stop.start()
        with pytest.raises(WorkerError):
            worker.fit(
                MAF(max_steps=10**6, patience=10**6), folds, generator=seed(0), progress=ignore,
                timeout=60,
            )  # fmt: skip


def test_work_of_a_lost_worker_is_done_here(small, folds, monkeypatch):
    class Lost:
        def fit(self, *args, **options):
            raise WorkerError("gone")

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(stage_one, "take", Lost)
    monkeypatch.setattr(stage_one, "WORTH_A_PROCESS", 0)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    configs = {name: small[name] for name in ("rbig", "gmm", "tmm")}
    with pytest.warns(AmfviWarning, match="gone; fitting here"):
        fitted = stage_one.fit_experts(configs, folds, seed=1)
    assert list(fitted) == ["rbig", "gmm", "tmm"]


def test_experts_are_the_same_with_and_without_processes(small, folds, monkeypatch):
    alone = stage_one.fit_experts(small, folds, seed=1)
    monkeypatch.setattr(stage_one, "WORTH_A_PROCESS", 0)
    together = stage_one.fit_experts(small, folds, seed=1)
    for name in small:
        x = folds.draws
        assert torch.equal(alone[name].expert.log_prob(x), together[name].expert.log_prob(x))


def test_the_callers_own_families_are_fitted_here(folds, monkeypatch):
    monkeypatch.setattr(stage_one, "WORTH_A_PROCESS", 0)
    fitted = stage_one.fit_experts({"a": Memorising(), "b": Memorising()}, folds, seed=1)
    assert isinstance(fitted["b"].expert, Memory)


def test_a_failure_ends_the_others_soon(folds, small, monkeypatch):
    monkeypatch.setattr(stage_one, "WORTH_A_PROCESS", 0)

    class Failing(Memorising):
        def fit(self, folds, **options):
            raise FitError("memory: lost it")

    endless = MAF(max_steps=10**6, patience=10**6)
    started = time.monotonic()
    with pytest.raises(FitError, match="lost it"):
        stage_one.fit_experts({"endless": endless, "failing": Failing()}, folds, seed=1)
    assert time.monotonic() - started < 30
