"""The split: whole blocks, copies together, nothing lost, nothing seen twice."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from amfvi.draws.draws import Draws
from amfvi.errors import InputError
from amfvi.targets import get
from amfvi.two_stage.split import split_draws, split_target


def numbered(n_chains: int, length: int) -> Draws:
    """Draws whose first column says which row of which chain they are."""
    chain = np.repeat(np.arange(n_chains), length)
    row = np.tile(np.arange(length), n_chains)
    noise = np.random.default_rng(0).normal(size=n_chains * length)
    return Draws.from_array(np.column_stack([chain * 1e6 + row + 0.5, noise]), chain_ids=chain)


def roles(split):
    """The draws of each fold (those never held out first) and the test draws."""
    parts = [split.draws[split.fold == f] for f in range(-1, int(split.fold.max()) + 1)]
    return [part for part in (*parts, split.test) if len(part)]


@pytest.mark.parametrize("seed", range(4))
def test_with_one_fold_shares_are_70_15_15_and_every_row_has_one_role(seed):
    split = split_draws(numbered(4, 1000), 0.15, seed, 1)
    assert [len(p) for p in roles(split)] == [2800, 600, 600]
    assert (split.n_train, split.n_heldout, split.n_weight) == (2800, 600, 600)
    assert len(torch.cat(roles(split))[:, 0].unique()) == 4000


@pytest.mark.parametrize("folds", [2, 5, 10])
def test_folds_share_what_is_not_test(folds):
    split = split_draws(numbered(4, 1000), 0.15, 0, folds)
    sizes = [len(p) for p in roles(split)]
    assert sizes[-1] == pytest.approx(600, rel=0.1)
    assert len(sizes) == folds + 1
    assert max(sizes[:-1]) - min(sizes[:-1]) <= 200  # a block of fifty a chain
    assert sum(sizes) == len(torch.cat(roles(split))[:, 0].unique()) == 4000
    assert split.n_weight == 4000 - sizes[-1]
    assert split.n_train == split.n_weight - max(sizes[:-1])


@pytest.mark.parametrize("folds", [1, 5])
def test_roles_are_contiguous_blocks_of_each_chain(folds):
    split = split_draws(numbered(3, 1000), 0.15, 0, folds)
    for part in roles(split)[folds == 1 :]:
        for chain in range(3):
            rows = part[(part[:, 0] // 1e6) == chain][:, 0]
            assert len(rows) in (150, 200)
            assert int((rows.diff() != 1).sum()) <= 3  # four blocks of fifty at most


def test_copies_of_a_row_share_its_role():
    base = np.random.default_rng(0).normal(size=(400, 2))
    with pytest.warns(match="repeat"):
        draws = Draws.from_array(np.concatenate([base, base[::-1], base]))
    for folds in (1, 5):
        split = split_draws(draws, 0.15, 0, folds)
        parts = [{tuple(r) for r in p.tolist()} for p in roles(split)]
        assert not any(a & b for i, a in enumerate(parts) for b in parts[:i])
        assert sum(len(p) for p in roles(split)) == 1200
        assert len(split.test) == 180


@pytest.mark.parametrize("fraction", [0.01, 0.05, 0.22, 0.5])
def test_any_share_is_met(fraction):
    split = split_draws(numbered(2, 2000), fraction, 0, 5)
    assert len(split.test) == pytest.approx(4000 * fraction, rel=0.35)


def test_no_test_draws_on_request():
    split = split_draws(numbered(1, 1000), 0.0, 0, 5)
    assert split.test is None
    assert len(split.draws) == 1000


def test_other_seeds_other_blocks_same_seed_same_blocks():
    one, two, three = (split_draws(numbered(1, 500), 0.15, s, 5).test for s in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, three)


def test_a_target_spends_exactly_what_it_is_given():
    for folds, on_all in ((1, 200), (5, 1000)):
        options = {"seed": 0, "n_test": 50, "folds": folds}
        split = split_target(get("rings"), 1000, n_weight_draws=300, **options)
        assert [len(p) for p in (split.draws, split.weight_draws, split.test)] == [1000, 300, 50]
        assert (split.n_train, split.n_heldout, split.n_weight) == (800, 200, 300)
        rows = torch.cat([split.draws, split.weight_draws, split.test])
        assert len(rows.unique(dim=0)) == 1350
        assert torch.equal(split.seen, torch.cat([split.draws, split.weight_draws]))
        assert split_target(get("rings"), 1000, **options).n_weight == on_all


def test_a_role_without_distinct_draws_is_an_error():
    rows = np.repeat(np.random.default_rng(0).normal(size=(2, 2)), 20, axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        draws = Draws.from_array(rows)
    with pytest.raises(InputError, match="more distinct draws"):
        split_draws(draws, 0.15, 0, 5)


def test_weights_stay_with_their_rows():
    rows = np.random.default_rng(0).normal(size=(500, 2))
    weight = np.random.default_rng(1).uniform(0.5, 1.5, size=500)
    draws = Draws.from_array(rows, sample_weight=weight)
    split = split_draws(draws, 0.15, 0, 5)
    of_row = {tuple(row): w for row, w in zip(rows.tolist(), draws.sample_weight, strict=True)}
    for part, weights in (
        (split.draws, split.sample_weight),
        (split.test, split.test_sample_weight),
    ):
        assert weights.tolist() == [float(of_row[tuple(row)]) for row in part.tolist()]


@pytest.mark.filterwarnings("ignore::amfvi.errors.AmfviWarning")  # no two chains agree
@pytest.mark.parametrize(("n_chains", "length"), [(1000, 1), (1000, 2), (500, 4), (64, 5)])
def test_short_chains_are_kept_whole(n_chains, length):
    """Last states of walkers were refused: every chain put its few draws in the same roles."""
    split = split_draws(numbered(n_chains, length), 0.15, seed=0, folds=5)
    parts = [part[:, 0] // 1e6 for part in roles(split)]
    assert sum(len(part.unique()) for part in parts) == n_chains
    assert [len(part) for part in parts] == pytest.approx(
        [0.17 * n_chains * length] * 5 + [0.15 * n_chains * length], abs=length + 1
    )
