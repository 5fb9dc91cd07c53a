"""A second process: the same expert to the last bit, its errors and warnings, and its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import torch

from amfvi.errors import AmfviWarning, FitError
from amfvi.experts import MAF, Folds
from amfvi.two_stage import experts as stage_one
from amfvi.two_stage import worker
from amfvi.two_stage.worker import Worker, WorkerError, acquire, discard_prestarted, prestart
from amfvi.two_stage.worker_process import fit_on_one_thread

ENDLESS = MAF(max_steps=10**6, patience=10**6)


def seeded(number):
    return torch.Generator().manual_seed(number)


def ignore(fraction, nll):
    """No progress is wanted."""


@pytest.fixture(scope="module")
def process():
    """A worker that the tests here share; none of them ends it."""
    with Worker() as shared:
        yield shared


def test_a_worker_returns_the_same_expert_to_the_last_bit(kind, small, folds, curved, process):
    here, report = fit_on_one_thread(small[kind], folds, generator=seeded(3))
    told = []
    there, other = process.fit(
        small[kind], folds, generator=seeded(3),
        progress=lambda *news: told.append(news), timeout=None,
    )  # fmt: skip
    x = curved(2, 300, 5)
    assert torch.equal(here.log_prob(x), there.log_prob(x))
    assert report.history == other.history
    assert told
    assert told[-1][1] == pytest.approx(report.heldout_nll)


def test_a_worker_knows_the_weights_of_the_draws(small, folds, process):
    weighted = Folds(folds.draws, folds.fold, torch.linspace(0, 2, len(folds)).double())
    options = {"progress": ignore, "timeout": None}
    there = process.fit(small["gmm"], weighted, generator=seeded(0), **options)[0].tensors()
    here = fit_on_one_thread(small["gmm"], weighted, generator=seeded(0))[0].tensors()
    plain = fit_on_one_thread(small["gmm"], folds, generator=seeded(0))[0].tensors()
    assert all(torch.equal(there[name], here[name]) for name in here)
    assert not torch.equal(there["means"], plain["means"])


def test_an_error_in_a_worker_is_raised_here(small, folds, process):
    broken = Folds(folds.draws * float("nan"), folds.fold)
    with pytest.raises(FitError, match="maf: the draws hold NaN"):
        process.fit(small["maf"], broken, generator=seeded(0), progress=ignore, timeout=None)


def test_a_worker_that_was_prestarted_is_acquired_once(small, folds, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    discard_prestarted()
    prestart()
    prestart()
    (early,) = worker._prestarted
    with acquire() as first, acquire() as second:
        assert first is early
        assert first is not second
        expert, _ = first.fit(
            small["gmm"], folds, generator=seeded(0), progress=ignore, timeout=None
        )
    assert expert.dim == 2


def test_a_fit_without_use_for_a_prestarted_worker_ends_it(small, folds, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    prestart()
    (early,) = worker._prestarted
    stage_one.fit_experts({"gmm": small["gmm"]}, folds, seed=0)
    assert not worker._prestarted
    assert early._process.poll() is not None


def test_a_worker_that_is_never_acquired_ends_with_the_process_that_started_it():
    script = "import os; os.cpu_count = lambda: 2; from amfvi.two_stage import worker; "
    script += "worker.prestart(); print(worker._prestarted[0]._process.pid)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


def test_a_worker_that_is_killed_in_a_fit_is_noticed(folds):
    with Worker() as victim:

        def kill(fraction, nll):
            os.kill(victim._process.pid, signal.SIGKILL)

        with pytest.raises(WorkerError, match="the worker process ended"):
            victim.fit(ENDLESS, folds, generator=seeded(0), progress=kill, timeout=60)


def test_progress_may_end_a_fit_in_a_worker(folds):
    """So that the failure of one expert ends the others, wherever they are fitted."""

    class EnoughError(Exception):
        pass

    def stop(fraction, nll):
        raise EnoughError

    with Worker() as busy:
        with pytest.raises(EnoughError):
            busy.fit(ENDLESS, folds, generator=seeded(0), progress=stop, timeout=60)
        assert busy._process.poll() is None
    assert busy._process.poll() is not None


def test_a_worker_that_cannot_be_started_is_a_worker_error(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(WorkerError, match="nonexistent"):
        Worker()


def test_fits_side_by_side_leave_the_number_of_threads_as_it_was():
    """The fit that began last restored the single thread that it had found."""
    began, may_end = [threading.Event() for _ in range(2)], [threading.Event() for _ in range(2)]
    of_a_later_thread = []

    def fit_folds(folds, *, number):
        assert torch.get_num_threads() == 1
        began[number].set()
        assert may_end[number].wait(60)

    def fit(number):
        fit_on_one_thread(SimpleNamespace(fit_folds=fit_folds), None, number=number)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        threads = [threading.Thread(target=fit, args=[number]) for number in range(2)]
        for thread, has_begun in zip(threads, began, strict=True):
            thread.start()
            assert has_begun.wait(60)
        for thread, end in zip(threads, may_end, strict=True):
            end.set()
            thread.join()
        later = threading.Thread(target=lambda: of_a_later_thread.append(torch.get_num_threads()))
        later.start()
        later.join()
        assert of_a_later_thread == [2]
    finally:
        torch.set_num_threads(before)


def test_a_warning_in_a_worker_is_given_here(folds, process):
    """From the process to the caller's own filters."""
    wild = MAF(layers=1, hidden_features=8, max_steps=60, learning_rate=1e8)
    with pytest.warns(AmfviWarning, match="maf: non-finite loss by step"):
        process.fit(wild, folds, generator=seeded(0), progress=ignore, timeout=None)
