"""What is bounded where there are many draws: rows of folds, and what is scored and weighed."""

from __future__ import annotations

import pytest
import torch

import amfvi
import amfvi.experts.elliptical.config
import amfvi.experts.elliptical.problem
import amfvi.experts.neural
import amfvi.experts.rbig
import amfvi.two_stage.split
from amfvi.experts import Folds
from amfvi.experts.folds import TRAIN
from amfvi.experts.training.problem import evenly_spaced


@pytest.mark.parametrize("fold", [torch.arange(1000) % 5, torch.arange(1000) // 200])
def test_fewer_rows_keep_their_folds_and_shares(fold):
    rows = torch.arange(1000.0, dtype=torch.float64)[:, None]
    folds = Folds(rows, fold, sample_weight=rows[:, 0] + 1)
    some = folds.at_most(200)  # with every fifth row, all would be of one fold
    assert len(some) == 200
    assert some.n_members == 5
    assert [len(held) for held in some.heldout_rows] == [40] * 5
    kept = some.draws[:, 0].long()
    assert torch.equal(some.fold, fold[kept])
    assert torch.equal(some.sample_weight, kept + 1.0)
    assert bool((kept.diff() > 0).all())
    for held in some.heldout_rows:
        spread = kept[held].double()
        whole = rows[fold == some.fold[held[0]], 0]
        assert abs(float(spread.mean() - whole.mean())) < 0.01 * 1000
    assert folds.at_most(1000) is folds


def test_draws_that_all_train_on_keep_their_share():
    fold = torch.where(torch.arange(1000) < 800, TRAIN, 0)
    some = Folds(torch.zeros(1000, 1).double(), fold).at_most(100)
    assert (int((some.fold == TRAIN).sum()), int(some.is_heldout.sum())) == (80, 20)


@pytest.mark.parametrize(("n", "most"), [(10, 3), (10, 10), (3, 10), (1, 1), (1000, 7)])
def test_evenly_spaced_rows(n, most):
    chosen = evenly_spaced(torch.arange(n), most)
    assert len(chosen) == min(n, most)
    steps = chosen.diff()
    assert len(steps) == 0 or (int(steps.min()) >= 1 and int(steps.max() - steps.min()) <= 1)


def test_a_fit_to_more_draws_than_are_used(monkeypatch):
    """With bounds below the number of draws: the densities are still those of the target."""
    for module in (amfvi.experts.elliptical.config, amfvi.experts.neural):
        monkeypatch.setattr(module, "MAX_ROWS", 2000)
    for module in (amfvi.experts.elliptical.config, amfvi.experts.elliptical.problem):
        monkeypatch.setattr(module, "FEW_ROWS", 1000)
    monkeypatch.setattr(amfvi.experts.rbig, "MAX_NUMBERS", 4000)
    monkeypatch.setattr(amfvi.experts.rbig, "MIN_ROWS", 1000)
    monkeypatch.setattr(amfvi.experts.neural, "MAX_SCORED", 500)
    monkeypatch.setattr(amfvi.two_stage.split, "MAX_WEIGHED", 1000)
    target = amfvi.targets.get("bimodal")
    draws = target.sample(8_000, torch.Generator().manual_seed(0))
    experts = [amfvi.experts.MAF(layers=2, max_steps=100), amfvi.experts.RBIG(max_layers=20), "gmm"]
    fit = amfvi.fit(draws, experts=experts, folds=2, seed=0)
    assert fit.summary.weights.n == fit.summary.split.n_weight == 1000
    assert len(fit.summary.split.draws) == 6_800
    test = target.sample(5000, torch.Generator().manual_seed(1))
    kl = float((target.log_prob(test) - fit.log_prob(test)).mean())
    assert kl < 0.1
