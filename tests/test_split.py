"""The split: whole blocks, copies together, nothing lost, nothing seen twice."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from amfvi.targets import get

from amfvi.draws import Draws
from amfvi.errors import InputError, UsageError
from amfvi.split import split_draws, split_target


def numbered(n_chains: int, length: int) -> Draws:
    """Draws whose first column says which row of which chain they are."""
    chain = np.repeat(np.arange(n_chains), length)
    row = np.tile(np.arange(length), n_chains)
    noise = np.random.default_rng(0).normal(size=n_chains * length)
    return Draws.of(np.column_stack([chain * 1e6 + row + 0.5, noise]), chain=chain)


@pytest.mark.parametrize("seed", range(4))
def test_shares_are_70_15_15_and_every_row_has_one_role(seed):
    split = split_draws(numbered(4, 1000), 0.15, seed)
    assert [len(p) for p in (split.train, split.heldout, split.test)] == [2800, 600, 600]
    rows = torch.cat([split.train, split.heldout, split.test])[:, 0]
    assert len(rows.unique()) == 4000


def test_roles_are_contiguous_blocks_of_each_chain():
    split = split_draws(numbered(3, 1000), 0.15, 0)
    for part in (split.heldout, split.test):
        for chain in range(3):
            rows = part[(part[:, 0] // 1e6) == chain][:, 0]
            assert len(rows) == 150
            assert int((rows.diff() != 1).sum()) <= 2  # three blocks of fifty at most


def test_copies_of_a_row_share_its_role():
    base = np.random.default_rng(0).normal(size=(400, 2))
    with pytest.warns(match="repeat"):
        draws = Draws.of(np.concatenate([base, base[::-1], base]))
    split = split_draws(draws, 0.15, 0)
    parts = [{tuple(r) for r in p.tolist()} for p in (split.train, split.heldout, split.test)]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    assert [len(p) for p in (split.train, split.heldout, split.test)] == [840, 180, 180]


@pytest.mark.parametrize("fraction", [0.01, 0.05, 0.22, 0.5])
def test_any_share_is_met(fraction):
    split = split_draws(numbered(2, 2000), fraction, 0)
    assert len(split.test) == pytest.approx(4000 * fraction, rel=0.35)


def test_no_test_draws_on_request():
    split = split_draws(numbered(1, 1000), 0.0, 0)
    assert split.test is None
    assert len(split.train) + len(split.heldout) == 1000


def test_other_seeds_other_blocks_same_seed_same_blocks():
    one, two, three = (split_draws(numbered(1, 500), 0.15, s).test for s in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, three)


def test_a_target_spends_exactly_what_it_is_given():
    split = split_target(get("rings"), 1000, 300, 0, 50)
    sizes = [len(p) for p in (split.train, split.heldout, split.fresh, split.test)]
    assert sizes == [800, 200, 300, 50]
    rows = torch.cat([split.train, split.heldout, split.fresh, split.test])
    assert len(rows.unique(dim=0)) == 1350
    assert split.for_weights is split.fresh
    assert split_target(get("rings"), 1000, 0, 0, 50).for_weights.shape == (200, 2)


def test_impossible_splits_are_refused():
    with pytest.raises(UsageError, match="test-fraction must be in"):
        split_draws(numbered(1, 500), 0.7, 0)
    with pytest.raises(UsageError, match="n-draws must be at least 20"):
        split_target(get("rings"), 5, 0, 0, 0)
    with pytest.raises(UsageError, match="n-fresh cannot be negative"):
        split_target(get("rings"), 100, -1, 0, 0)
    rows = np.repeat(np.random.default_rng(0).normal(size=(2, 2)), 20, axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        draws = Draws.of(rows)
    with pytest.raises(InputError, match="more distinct draws"):
        split_draws(draws, 0.15, 0)
