"""Experts that were fitted to few pairs are widened, by as much as helps and no more."""

from __future__ import annotations

import math

import pytest
import torch

import amfvi
from amfvi.conditional.spread import MAX_SPREAD, widen
from amfvi.errors import InputError
from amfvi.experts import GMM, MAF, MDN, NSF, TMM, FlowMatching, Folds

KINDS = {
    "gmm": GMM(max_components=3),
    "tmm": TMM(max_components=2),
    "mdn": MDN(components=3, hidden_features=16, max_steps=100),
    "nsf": NSF(layers=1, hidden_features=16, max_steps=100),
    "maf": MAF(layers=2, hidden_features=16, max_steps=100),
    "fm": FlowMatching(hidden_features=16, hidden_layers=2, max_steps=100, integration_steps=6),
}


def rows(n, given, dim, seed):
    """y = mean of c + standard normal noise; the condition in front."""
    generator = torch.Generator().manual_seed(seed)
    c = torch.randn(n, given, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    return torch.cat([c, c.mean(dim=1, keepdim=True) + noise], dim=1)


def folds_of(points, given, members=5):
    return Folds(points, torch.arange(len(points)) % members, given=given)


@pytest.fixture(scope="module")
def fitted():
    made = {}

    def fit(kind):
        if kind not in made:
            folds = folds_of(rows(150, 1, 1, 0), 1, members=2)
            made[kind] = KINDS[kind].fit_folds(folds, generator=torch.Generator().manual_seed(1))[0]
        return made[kind]

    return fit


@pytest.mark.parametrize("kind", KINDS)
def test_a_wider_density_integrates_to_one_and_draws_follow_it(kind, fitted):
    expert, wider = fitted(kind), fitted(kind).widened(1.3)
    y = torch.linspace(-12, 12, 3001, dtype=torch.float64)[:, None]
    points = torch.cat([torch.full_like(y, 0.5), y], dim=1)
    p, q = (e.log_prob(points).exp() for e in (expert, wider))
    step = float(y[1] - y[0])
    assert float(q.sum() * step) == pytest.approx(1, abs=2e-3)
    sds = [float((w * (y[:, 0] - (w * y[:, 0]).sum() / w.sum()).square()).sum() / w.sum()) ** 0.5
           for w in (p, q)]  # fmt: skip
    assert 1.05 < sds[1] / sds[0] < 1.35
    drawn = wider.sample_given(
        torch.full((20_000, 1), 0.5, dtype=torch.float64), torch.Generator().manual_seed(2)
    )
    below = (drawn <= y.T).double().mean(dim=0)
    distance = (below - (q * step).cumsum(dim=0)).abs().max()
    assert float(distance) < 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_saved_and_restored_to_the_last_bit(kind, fitted):
    wider = fitted(kind).widened(1.1).widened(1.2)
    again = KINDS[kind].restore(1, wider.tensors(), given=1)
    points = rows(50, 1, 1, 3)
    assert torch.equal(again.log_prob(points), wider.log_prob(points))
    assert torch.equal(wider.to("cpu").log_prob(points), wider.log_prob(points))
    plain = KINDS[kind].restore(1, fitted(kind).tensors(), given=1)
    assert not torch.equal(plain.log_prob(points), wider.log_prob(points))


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_a_spread_that_is_none_is_refused(value, fitted):
    tensors = fitted("mdn").tensors() | {"spread": torch.tensor([value])}
    with pytest.raises(InputError, match="spread"):
        KINDS["mdn"].restore(1, tensors, given=1)


@pytest.mark.parametrize(("n", "given", "dim"), [(60, 5, 3), (100, 10, 8)])
def test_fresh_pairs_are_more_likely_under_the_wider_expert(n, given, dim):
    """On average over seeds nearly as much as under the best spread of each."""
    gains, best = [], []
    for seed in range(4):
        folds = folds_of(rows(n, given, dim, seed), given)
        expert, _ = GMM(max_components=1).fit_folds(folds, generator=torch.Generator())
        fresh = rows(5000, given, dim, 100 + seed)
        plain = expert.log_prob(fresh).mean()
        wider = widen(expert, folds, torch.Generator().manual_seed(seed))
        gains.append(float(wider.log_prob(fresh).mean() - plain))
        spreads = torch.linspace(1, MAX_SPREAD, 21).tolist()
        best.append(max(float(expert.widened(s).log_prob(fresh).mean() - plain) for s in spreads))
    assert min(gains) > -0.05
    assert sum(gains) > 0.6 * sum(best)


@pytest.mark.parametrize("seed", range(3))
def test_of_many_pairs_nothing_is_left_to_widen(seed):
    folds = folds_of(rows(4000, 1, 2, seed), 1)
    expert, _ = GMM(max_components=1).fit_folds(folds, generator=torch.Generator())
    wider = widen(expert, folds, torch.Generator().manual_seed(seed))
    fresh = rows(20_000, 1, 2, 100 + seed)
    assert abs(float((wider.log_prob(fresh) - expert.log_prob(fresh)).mean())) < 1e-3


@pytest.mark.filterwarnings("ignore:100 draws of 8")
@pytest.mark.parametrize("seed", range(2))
def test_intervals_of_few_pairs_and_many_conditions_cover(seed):
    """Of 8 parameters given 10 the plain regression covers 66% with its 90% regions."""
    points = rows(100, 10, 8, seed)
    model = amfvi.fit(
        points[:, 10:], given=points[:, :10], experts="gmm", test_fraction=0.0, seed=seed
    )
    fresh = rows(500, 10, 8, 50 + seed)
    drawn = model.sample(200, given=fresh[:, :10], generator=torch.Generator().manual_seed(0))
    of_draws = torch.stack([
        model.log_prob(each, given=fresh[:, :10]) for each in drawn
    ])  # fmt: skip
    level = (of_draws > model.log_prob(fresh[:, 10:], given=fresh[:, :10])).double().mean(dim=0)
    assert 0.8 < float((level < 0.9).double().mean()) < 0.97
