"""Experts that earn nothing are left out; experts that earn something stay."""

from __future__ import annotations

import numpy as np
import pytest

from amfvi.parsimony import PRICE, without_the_needless
from amfvi.stage_two import fit_weights


def normal(x, mean, sd):
    return -0.5 * ((x - mean) / sd) ** 2 - np.log(sd) - 0.5 * np.log(2 * np.pi)


def columns(seed, experts, n=2000):
    """Draws of ½N(−3,1) + ½N(3,1), and what each expert makes of them."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=n) + generator.choice([-3, 3], size=n)
    return np.stack([normal(x, mean, sd) for mean, sd in experts], axis=1)


def mean_log_likelihood(log_q, weights):
    with np.errstate(divide="ignore"):
        return np.logaddexp.reduce(log_q + np.log(weights), axis=1).mean()


def fitted(log_q, rule="ema"):
    found = fit_weights(log_q, rule)
    return found, without_the_needless(log_q, found)


@pytest.mark.parametrize("rule", ["ema", "em"])
@pytest.mark.parametrize("seed", range(5))
def test_two_modes_are_kept_and_near_copies_of_them_are_not(rule, seed):
    log_q = columns(seed, [(-3, 1), (3, 1), (-3.01, 1.005), (3.01, 0.995), (0, 3.2)])
    _, found = fitted(log_q, rule)
    kept = np.flatnonzero(found.weights)
    assert len(kept) == 2
    assert {int(k) % 2 for k in kept if k < 4} == {0, 1}  # one for each mode
    assert found.weights.sum() == pytest.approx(1)
    assert np.array_equal(found.path[-1], found.weights)
    assert np.all(np.diff(found.path_steps) > 0)
    assert found.gap <= 1e-5
    assert found.steps == found.path_steps[-1]


@pytest.mark.parametrize("seed", range(8))
def test_no_loss_to_the_best_expert_and_what_is_given_up_is_told(seed):
    generator = np.random.default_rng(seed)
    experts = list(zip(generator.normal(0, 3, 5), generator.uniform(0.8, 4, 5), strict=True))
    log_q = columns(seed, experts, n=300)
    before, after = fitted(log_q)
    reached = mean_log_likelihood(log_q, after.weights)
    assert reached >= log_q.mean(axis=0).max() - 1e-5
    lost = mean_log_likelihood(log_q, before.weights) - reached
    assert max(lost, 0) == pytest.approx(after.given_up, abs=1e-12)
    dropped = np.count_nonzero(before.weights) - np.count_nonzero(after.weights)
    assert lost <= PRICE * dropped / len(log_q) + 1e-5


@pytest.mark.parametrize("max_steps", [2, 100_000])
@pytest.mark.parametrize("seed", range(4))
def test_gap_and_what_was_given_up_bound_what_the_best_weights_gain(seed, max_steps):
    log_q = columns(seed, [(-3, 1), (3, 1), (-2.9, 1.1), (0, 3.2), (1, 2)])
    found = without_the_needless(log_q, fit_weights(log_q, max_steps=max_steps))
    best = fit_weights(log_q, "em", tolerance=1e-9).weights
    lost = mean_log_likelihood(log_q, best) - mean_log_likelihood(log_q, found.weights)
    assert lost <= found.gap + found.given_up + 1e-12
    assert found.given_up >= 0


def test_an_expert_alone_at_some_draws_stays():
    log_q = columns(0, [(0, 3), (0, 3.1)])
    log_q[:2, 0] = -np.inf  # two draws that only the second reaches
    _, found = fitted(log_q)
    assert found.weights[1] > 0
    assert np.isfinite(mean_log_likelihood(log_q, found.weights))


def test_nothing_to_leave_out_changes_nothing():
    log_q = columns(1, [(-3, 1), (3, 1)])
    before, after = fitted(log_q)
    assert after is before
