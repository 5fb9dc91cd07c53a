"""Stage one: whichever thread or process fits an expert, it is the same expert."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

import amfvi
from amfvi.errors import AmfviWarning, FitError
from amfvi.experts import EXPERTS, GMM, Expert, ExpertConfig, FitReport
from amfvi.experts.reports import TrainingRecord
from amfvi.two_stage import experts as stage_one
from amfvi.two_stage.worker import WorkerError
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
class Memorizing(ExpertConfig):
    """A family that only this file knows."""

    kind: ClassVar[str] = "memory"

    def fit_folds(self, folds, **options):
        history = (TrainingRecord(step=0, train_nll=0.0, heldout_nll=0.0),)
        report = FitReport(history=history, best_step=0, converged=True, stopped_by="", seconds=0)
        return Memory(self, [folds.draws[rows] for rows in folds.train_rows]), report

    def restore(self, dim, tensors):
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class OwnGMM(GMM):
    """A subclass of a family under its name, as a notebook may define one."""


@pytest.fixture
def always_a_process(monkeypatch):
    """However few the draws, experts are fitted in processes of their own."""
    monkeypatch.setattr(stage_one, "MIN_ROWS_FOR_A_PROCESS", 0)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


def test_an_overfitted_expert_gets_no_weight_from_the_draws_it_has_seen():
    posterior = amfvi.fit("bimodal", n_draws=1000, experts=[Memorizing(), "gmm"], seed=0)
    x = posterior.summary.split.draws
    in_sample = posterior.expert_log_probs(x).mean(dim=0)
    assert in_sample[0] > in_sample[1] + 0.5
    assert posterior.weights[0] < 0.01


class FakeWorker:
    """A worker that fits here and keeps the types of what it was asked to fit."""

    def __init__(self, error=None):
        self.kinds, self.error = [], error

    def fit(self, config, folds, **options):
        self.kinds.append(type(config))
        if self.error is not None:
            raise self.error
        return fit_on_one_thread(config, folds, **options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


@pytest.fixture
def fake_worker(always_a_process, monkeypatch):
    worker = FakeWorker()
    monkeypatch.setattr(stage_one, "acquire", lambda: worker)
    return worker


def test_what_a_lost_worker_leaves_is_done_here(small, folds, fake_worker):
    fake_worker.error = WorkerError("gone")
    configs = {name: small[name] for name in ("rbig", "gmm", "tmm")}
    with pytest.warns(AmfviWarning, match="gone; fitting here"):
        fitted = stage_one.fit_experts(configs, folds, seed=1)
    assert list(fitted) == ["rbig", "gmm", "tmm"]
    assert fake_worker.kinds


def test_experts_are_the_same_with_and_without_processes(small, folds, monkeypatch):
    """Each family in a process is another file's; here it is which process and which seed."""
    configs = {name: small[name] for name in ("rbig", "gmm", "tmm")}
    alone = stage_one.fit_experts(configs, folds, seed=1)
    monkeypatch.setattr(stage_one, "MIN_ROWS_FOR_A_PROCESS", 0)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    together = stage_one.fit_experts(configs, folds, seed=1)
    x = folds.draws
    for name in configs:
        assert torch.equal(alone[name].expert.log_prob(x), together[name].expert.log_prob(x))


@pytest.mark.parametrize("module", [__name__, "amfvi.experts.own"])
def test_only_registered_families_are_fitted_in_another_process(
    module, folds, fake_worker, monkeypatch
):
    """The name of a family's module decided: one that began with ours went to a worker."""
    monkeypatch.setattr(OwnGMM, "__module__", module)
    assert EXPERTS["gmm"] is GMM
    own = OwnGMM(max_components=1)
    fitted = stage_one.fit_experts({"a": own, "b": own, "c": Memorizing()}, folds, seed=1)
    assert fake_worker.kinds == []
    assert isinstance(fitted["c"].expert, Memory)
    registered = GMM(max_components=1)
    fitted = stage_one.fit_experts({"a": registered, "b": registered}, folds, seed=1)
    assert set(fake_worker.kinds) == {GMM}
    assert list(fitted) == ["a", "b"]


def test_a_reporter_hears_of_every_expert(small, folds):
    news = []

    class Recorder(amfvi.Reporter):
        def expert_progress(self, expert, fraction, heldout_nll):
            news.append((expert, fraction, heldout_nll))

    configs = {"first": small["rbig"], "second": small["gmm"]}
    fitted = stage_one.fit_experts(configs, folds, seed=1, reporter=Recorder())
    for name, expert in fitted.items():
        *_, last = [line for line in news if line[0] == name]
        assert last == (name, 1.0, expert.report.heldout_nll)


def test_a_failure_ends_the_others(folds):
    began, interrupted = threading.Event(), threading.Event()

    class Long(Memorizing):
        def fit_folds(self, folds, *, progress, **options):
            began.set()
            try:
                for _ in range(6000):  # a minute
                    progress(0.0, 0.0)
                    time.sleep(0.01)
            except BaseException:
                interrupted.set()
                raise
            return super().fit_folds(folds)

    class Failing(Memorizing):
        def fit_folds(self, folds, **options):
            assert began.wait(60)
            raise FitError("memory: lost it")

    with pytest.raises(FitError, match="lost it"):
        stage_one.fit_experts({"long": Long(), "failing": Failing()}, folds, seed=1)
    assert interrupted.wait(60)
