"""Mixture weights: on the simplex, optimal where promised, indifferent where they must be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from amfvi.errors import FitError, UsageError
from amfvi.two_stage.weights import WEIGHT_RULES, fit_weights

OPTIMAL = ("ema", "em")


def normal_log_density(x, mean, sd):
    return -0.5 * ((x - mean) / sd) ** 2 - np.log(sd) - 0.5 * np.log(2 * np.pi)


def random_matrix(seed, n=600, k=4):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=n)
    means, sds = generator.normal(size=k), generator.uniform(0.6, 2, size=k)
    return np.stack([normal_log_density(x, m, s) for m, s in zip(means, sds, strict=True)], axis=1)


def mean_log_likelihood(log_q, weights):
    with np.errstate(divide="ignore"):
        return np.logaddexp.reduce(log_q + np.log(weights), axis=1).mean()


@pytest.fixture
def two_modes():
    """p = ½N(−3,1) + ½N(3,1) with experts N(−3,1), N(3,1) and N(0,10)."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=4000) + generator.choice([-3, 3], size=4000)
    experts = ((-3, 1), (3, 1), (0, np.sqrt(10)))
    return np.stack([normal_log_density(x, m, s) for m, s in experts], axis=1)


@pytest.mark.parametrize("weight_rule", WEIGHT_RULES)
@pytest.mark.parametrize("seed", range(4))
def test_weights_are_on_the_simplex_all_along(weight_rule, seed):
    fit = fit_weights(random_matrix(seed), weight_rule)
    assert np.all(fit.path >= 0)
    assert np.allclose(fit.path.sum(axis=1), 1)
    assert np.array_equal(fit.path[-1], fit.weights)
    assert np.array_equal(fit.path[0], np.full(4, 0.25))
    assert fit.path_steps[-1] == fit.steps
    assert fit.converged


@pytest.mark.parametrize("weight_rule", WEIGHT_RULES)
def test_permuting_experts_permutes_weights(weight_rule):
    log_q, order = random_matrix(1), [2, 0, 3, 1]
    straight, permuted = fit_weights(log_q, weight_rule), fit_weights(log_q[:, order], weight_rule)
    assert np.allclose(straight.weights[order], permuted.weights, atol=1e-9)


@pytest.mark.parametrize("weight_rule", OPTIMAL)
def test_a_constant_per_row_changes_nothing(weight_rule):
    """The rules see ratios of densities only, even where densities under- or overflow."""
    log_q = random_matrix(2)
    shift = np.random.default_rng(0).normal(scale=3000, size=(len(log_q), 1))
    assert np.allclose(
        fit_weights(log_q, weight_rule).weights,
        fit_weights(log_q + shift, weight_rule).weights,
        atol=1e-9,
    )


def test_example_where_batch_mean_fails(two_modes):
    """Responsibilities find (½, ½, 0); the batch mean prefers the broad expert alone."""
    for weight_rule in OPTIMAL:
        weights = fit_weights(two_modes, weight_rule).weights
        assert np.allclose(weights, [0.5, 0.5, 0], atol=0.03)
    batch_mean = fit_weights(two_modes, "batch-mean")
    assert batch_mean.weights[2] > 0.7
    assert batch_mean.gap > 0.1


@pytest.mark.parametrize("weight_rule", OPTIMAL)
@pytest.mark.parametrize("seed", range(6))
def test_mixture_beats_every_expert_on_its_draws_and_the_gap_bounds_the_rest(weight_rule, seed):
    log_q = random_matrix(seed)
    fit = fit_weights(log_q, weight_rule)
    assert fit.gap <= 1e-5
    reached = mean_log_likelihood(log_q, fit.weights)
    assert reached >= log_q.mean(axis=0).max() - 1e-5
    generator = np.random.default_rng(seed)
    best_known = max(
        mean_log_likelihood(log_q, w) for w in generator.dirichlet(np.full(4, 0.4), size=3000)
    )
    assert best_known - reached <= fit.gap + 1e-12


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.99])
def test_every_momentum_has_the_same_fixed_point(beta):
    log_q = random_matrix(3)
    weights = fit_weights(log_q, "ema", beta=beta).weights
    exact = fit_weights(log_q, "em", tolerance=1e-10).weights
    assert np.allclose(weights, exact, atol=5e-3)


def test_batch_mean_ends_at_the_softmax_of_mean_log_likelihoods():
    log_q = random_matrix(4)
    expected = np.exp(log_q.mean(axis=0) - log_q.mean(axis=0).max())
    fit = fit_weights(log_q, "batch-mean", beta=0.9)
    assert np.allclose(fit.weights, expected / expected.sum(), atol=1e-5)


@pytest.mark.parametrize("weight_rule", OPTIMAL)
def test_a_duplicate_expert_does_no_harm(weight_rule):
    log_q = random_matrix(5)
    plain = fit_weights(log_q, weight_rule)
    doubled = fit_weights(np.column_stack([log_q, log_q[:, 0]]), weight_rule)
    assert doubled.weights[0] == pytest.approx(doubled.weights[4], abs=1e-8)
    together = mean_log_likelihood(np.column_stack([log_q, log_q[:, 0]]), doubled.weights)
    assert together == pytest.approx(mean_log_likelihood(log_q, plain.weights), abs=2e-5)


@pytest.mark.parametrize("weight_rule", OPTIMAL)
@pytest.mark.parametrize("value", [-np.inf, -1e8])
def test_a_broken_expert_is_weighted_down(weight_rule, value):
    log_q = random_matrix(6)
    broken = np.column_stack([log_q, np.full(len(log_q), value)])
    fit = fit_weights(broken, weight_rule)
    assert fit.weights[4] < 1e-6
    assert mean_log_likelihood(broken, fit.weights) == pytest.approx(
        mean_log_likelihood(log_q, fit_weights(log_q, weight_rule).weights), abs=2e-5
    )


def test_draw_weights_count_as_repetitions():
    log_q = random_matrix(7)
    counts = np.random.default_rng(0).integers(0, 4, size=len(log_q))
    repeated = fit_weights(np.repeat(log_q, counts, axis=0), "em")
    weighted = fit_weights(log_q, "em", sample_weight=counts.astype(float))
    assert np.allclose(repeated.weights, weighted.weights, atol=1e-9)


def test_points_no_expert_reaches_are_counted_not_fitted():
    log_q = random_matrix(8)
    log_q[:3] = -np.inf
    fit = fit_weights(log_q, "ema")
    assert fit.n_ignored == 3
    assert np.allclose(fit.weights, fit_weights(log_q[3:], "ema").weights)


def test_what_is_not_converged_says_so():
    fit = fit_weights(random_matrix(0), "ema", max_steps=3, finish=False)
    assert not fit.converged
    assert fit.steps == 3
    assert fit.gap > 1e-5


def nearly_equal_experts(seed, n, k):
    """Experts whose means and sds differ by some hundredths, at draws of N(0, 1)."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=n)
    parameters = zip(0.03 * generator.normal(size=k), generator.uniform(0.97, 1.03, k), strict=True)
    return np.stack([normal_log_density(x, mean, sd) for mean, sd in parameters], axis=1)


@pytest.mark.parametrize("weight_rule", OPTIMAL)
@pytest.mark.parametrize(("seed", "n", "k"), [(0, 200, 3), (1, 5000, 3), (2, 200, 9), (3, 5000, 9)])
def test_newton_ends_what_would_take_many_steps(weight_rule, seed, n, k):
    """The certificate holds, and the likelihood is that of the slow way, or above it."""
    log_q = nearly_equal_experts(seed, n, k)
    fit = fit_weights(log_q, weight_rule)
    assert fit.converged
    assert fit.gap <= 1e-5
    assert fit.steps - fit.newton_steps <= 2_000
    assert fit.newton_steps <= 20
    slow = fit_weights(log_q, weight_rule, max_steps=30_000, finish=False)
    gain = mean_log_likelihood(log_q, fit.weights) - mean_log_likelihood(log_q, slow.weights)
    assert -1e-5 <= gain <= max(slow.gap, 1e-5)


def test_newton_alone_finds_the_optimum_from_equal_weights():
    """From far away too, where a full step would leave the simplex or lower the likelihood."""
    for seed in range(6):
        log_q = random_matrix(seed, n=300, k=6)
        alone = fit_weights(log_q, "em", max_steps=0, tolerance=1e-9)
        slow = fit_weights(log_q, "em", max_steps=200_000, tolerance=1e-9, finish=False)
        assert 0 < alone.newton_steps == alone.steps < 30
        assert mean_log_likelihood(log_q, alone.weights) == pytest.approx(
            mean_log_likelihood(log_q, slow.weights), abs=2e-9
        )


def test_newton_stays_finite_where_densities_do_not_overlap():
    """Draws at which one expert alone has a density, and one expert that no draw needs."""
    log_q = np.array([[0.0, -np.inf, -40.0]] * 3 + [[-np.inf, 0.0, -700.0]] * 5)
    fit = fit_weights(log_q, "em", max_steps=0)
    assert fit.converged
    assert np.allclose(fit.weights, [3 / 8, 5 / 8, 0], atol=1e-5)


def test_accepts_tensors_of_any_precision():
    log_q = random_matrix(0)
    single = fit_weights(torch.from_numpy(log_q).float(), "ema")
    assert np.allclose(single.weights, fit_weights(log_q, "ema").weights, atol=1e-3)


def test_bad_input_is_named():
    log_q = random_matrix(0)
    with pytest.raises(UsageError, match="unknown weight rule 'emma'; did you mean ema"):
        fit_weights(log_q, "emma")
    with pytest.raises(UsageError, match="beta= must be in"):
        fit_weights(log_q, beta=1.0)
    broken = log_q.copy()
    broken[5, 2] = np.nan
    with pytest.raises(FitError, match="expert 2 has log density nan at draw 5"):
        fit_weights(broken)
    with pytest.raises(FitError, match="no expert has any density"):
        fit_weights(np.full((5, 2), -np.inf))
    with pytest.raises(FitError, match=r"must be \(n, K\)"):
        fit_weights(np.zeros(4))
    with pytest.raises(FitError, match="sample weights must be 600"):
        fit_weights(log_q, sample_weight=np.ones(3))
    with pytest.raises(FitError, match="batch-mean weights need one expert"):
        fit_weights(np.array([[0, -np.inf], [-np.inf, 0]]), "batch-mean")


@pytest.mark.parametrize("weight_rule", OPTIMAL)
def test_a_hopeless_expert_ends_with_no_weight_at_all(weight_rule):
    """And the certificate still holds, so that the mixture is the good expert itself."""
    x = np.random.default_rng(0).normal(size=3000)
    log_q = np.stack([normal_log_density(x, 0, 1), normal_log_density(x, 3, 0.3)], axis=1)
    fit = fit_weights(log_q, weight_rule)
    assert fit.weights.tolist() == [1.0, 0.0]
    assert fit.path[-1].tolist() == [1.0, 0.0]
    assert fit.gap <= 1e-5


def test_a_small_weight_that_helps_is_kept():
    generator = np.random.default_rng(1)
    x = np.where(generator.uniform(size=20_000) < 5e-4, 8.0, generator.normal(size=20_000))
    log_q = np.stack([normal_log_density(x, 0, 1), normal_log_density(x, 8, 0.1)], axis=1)
    assert fit_weights(log_q, "em").weights[1] == pytest.approx((x == 8).mean(), rel=0.05)
