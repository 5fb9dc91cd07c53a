"""Experts worth nothing leave; those that are worth something stay, and the price is right."""

from __future__ import annotations

import numpy as np
import pytest

import amfvi
from amfvi.two_stage.pruning import prune
from amfvi.two_stage.weights import fit_weights


def normal(x, mean, sd):
    return -0.5 * ((x - mean) / sd) ** 2 - np.log(sd) - 0.5 * np.log(2 * np.pi)


def mean_log(log_q, weights):
    with np.errstate(divide="ignore"):
        return np.logaddexp.reduce(log_q + np.log(weights), axis=1).mean()


def two_modes(seed, n=4000):
    """½N(−3,1) + ½N(3,1) and five experts: the modes, a wide one, one mode a little off, noise."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=n) + generator.choice([-3, 3], size=n)
    right = [normal(x, -3, 1), normal(x, 3, 1)]
    rough = normal(x, 3, 1) + 0.3 * generator.normal(size=n) - 0.045
    return np.stack([*right, normal(x, 0, 3.3), normal(x, -2.9, 1.1), rough], axis=1)


@pytest.mark.parametrize("seed", range(6))
def test_the_modes_stay_and_the_price_is_what_the_draws_lose(seed):
    log_q = two_modes(seed)
    fitted = fit_weights(log_q)
    pruned = prune(fitted, log_q)
    assert pruned.weights[:2].min() > 0.3
    assert pruned.left_out == tuple(np.flatnonzero(pruned.weights == 0))
    assert len(pruned.left_out) >= 1  # two or three, by the draws
    assert pruned.weights.sum() == pytest.approx(1)
    assert np.array_equal(pruned.path[-1], pruned.weights)
    assert len(pruned.path) == len(pruned.path_steps)
    lost = mean_log(log_q, fitted.weights) - mean_log(log_q, pruned.weights)
    assert pruned.price == pytest.approx(max(lost, 0), abs=1e-12)
    assert pruned.price <= 3e-4
    best = fit_weights(log_q, "em", tolerance=1e-10, max_steps=100_000).weights
    assert mean_log(log_q, best) - mean_log(log_q, pruned.weights) <= pruned.gap + 1e-12


@pytest.mark.parametrize("seed", range(6))
def test_never_less_likely_than_the_best_expert(seed):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=30)
    log_q = np.stack(
        [normal(x, generator.normal(), generator.uniform(0.7, 2)) for _ in range(6)], 1
    )
    pruned = prune(fit_weights(log_q), log_q)
    assert mean_log(log_q, pruned.weights) >= log_q.mean(axis=0).max() - 1e-4


def test_of_equal_experts_one_stays():
    log_q = np.repeat(two_modes(0)[:, :2], 2, axis=1)
    assert len(prune(fit_weights(log_q), log_q).left_out) == 2


def test_an_expert_that_alone_reaches_some_draws_stays():
    log_q = np.zeros((5000, 3))
    log_q[0, :2] = -np.inf
    log_q[1:, 2] = -50.0
    pruned = prune(fit_weights(log_q), log_q)
    assert pruned.weights[2] > 0
    assert np.isfinite(mean_log(log_q, pruned.weights))


def test_weighted_draws_count_for_what_they_are_worth():
    """The price is that of the draws that have weight; more draws allow less in the mean."""
    log_q = two_modes(1)
    weights = np.where(np.arange(len(log_q)) < 40, 1.0, 1e-9)
    few = prune(fit_weights(log_q, sample_weight=weights), log_q, sample_weight=weights)
    assert few.price <= 3e-4
    many = np.repeat(log_q, 10, axis=0)
    assert prune(fit_weights(many), many).price <= 3 / len(many)


def test_a_fit_says_what_left_and_evaluates_the_others_alone(tmp_path, cli):
    code, _, err = cli("fit", "--target", "bimodal", "--n-draws", 600, "--experts", "gmm,rbig",
                         "--no-figures")  # fmt: skip
    assert code == 0
    assert "left out, at a price of " in err
    assert err.split("left out, at a price of ")[1].splitlines()[0].endswith("nats: rbig")
    posterior = amfvi.load(tmp_path / "runs" / "bimodal-0")
    assert posterior.weights.tolist() == [1.0, 0.0]
    x = posterior.sample((50,))
    assert np.allclose(posterior.log_prob(x), posterior.expert_log_probs(x)[:, 0])


@pytest.mark.parametrize("rule", ["batch-mean", "uniform"])
def test_rules_that_maximize_no_likelihood_keep_all_experts(rule):
    posterior = amfvi.fit("bimodal", experts=("gmm", "rbig"), n_draws=300, weight_rule=rule)
    assert posterior.weights.min() > 0
