"""Importance weights: k̂ as ArviZ has it, evidence and bounds as they must be."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

from amfvi.diagnostics.importance import ImportanceEstimate, khat_threshold, psis


@pytest.mark.parametrize("n", [100, 1000, 5000])
@pytest.mark.parametrize("shape", [1.2, 2.0, 5.0])
def test_psis_is_that_of_arviz(n, shape):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arviz = pytest.importorskip("arviz")
    if not hasattr(arviz, "psislw"):
        pytest.skip("this ArviZ keeps PSIS elsewhere; the one of Python 3.11 is the reference")
    log_weights = np.log(1 + np.random.default_rng(n).pareto(shape, size=n))
    expected, expected_khat = arviz.psislw(log_weights.copy())
    smoothed, khat = psis(log_weights)
    assert khat == pytest.approx(float(expected_khat), abs=1e-9)
    normalized = smoothed - np.logaddexp.reduce(smoothed)
    assert np.allclose(normalized, np.asarray(expected), atol=1e-9)


def test_khat_of_known_tails():
    """Weights of a Pareto law with index a have k = 1/a; the prior pulls a little to ½."""
    random = np.random.default_rng(0)
    for index in (1.2, 2.0, 4.0):
        log_weights = random.exponential(1 / index, size=40_000)
        assert psis(log_weights)[1] == pytest.approx(1 / index, abs=0.1)


def test_equal_weights_have_no_tail():
    estimate = ImportanceEstimate.from_log_weights(torch.full((500,), 3.0))
    assert estimate.khat == -math.inf
    assert estimate.ess == pytest.approx(500)
    assert (estimate.log_z.mean, estimate.log_z.se) == pytest.approx((3.0, 0.0), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_evidence_and_bounds_of_a_wider_gaussian(seed):
    """p̃ = e² N(0, 1), q = N(0, 1.5²): log Z is 2, the ELBO lies KL(q‖p) below."""
    x = 1.5 * torch.randn(20_000, generator=torch.Generator().manual_seed(seed)).double()
    log_p = 2 - 0.5 * x.square() - 0.5 * math.log(2 * math.pi)
    log_q = -0.5 * (x / 1.5).square() - math.log(1.5) - 0.5 * math.log(2 * math.pi)
    estimate = ImportanceEstimate.from_log_weights(log_p - log_q)
    assert abs(estimate.log_z.mean - 2) < 4 * estimate.log_z.se
    reverse_kl = -math.log(1.5) + 0.5 * (1.5**2 - 1)
    assert abs(estimate.elbo.mean - (2 - reverse_kl)) < 4 * estimate.elbo.se
    assert estimate.khat < 0.3
    # E[w]²/E[w²] for two Gaussians is √(2 sd² − 1)/sd².
    assert estimate.efficiency == pytest.approx(math.sqrt(2 * 1.5**2 - 1) / 1.5**2, abs=0.02)


def test_a_proposal_with_lighter_tails_is_found_out():
    x = 0.5 * torch.randn(20_000, generator=torch.Generator().manual_seed(0)).double()
    estimate = ImportanceEstimate.from_log_weights(-0.5 * x.square() + 0.5 * (x / 0.5).square())
    assert estimate.khat > khat_threshold(20_000) == 0.7


def test_forbidden_draws_count_as_nothing():
    terms = torch.zeros(1000, dtype=torch.float64)
    terms[:500] = -math.inf
    estimate = ImportanceEstimate.from_log_weights(terms)
    assert estimate.log_z.mean == pytest.approx(math.log(0.5), abs=1e-9)
    assert estimate.ess == pytest.approx(500)
    assert estimate.elbo.mean == -math.inf
    nothing = ImportanceEstimate.from_log_weights(torch.full((100,), -math.inf))
    assert (nothing.log_z.mean, nothing.ess) == (-math.inf, 0)


@pytest.mark.parametrize("positive", [5, 20, 150])
def test_no_more_draws_are_effective_than_have_weight(positive):
    """Weights of zero were smoothed into the tail: 5 of 5,000 counted for a hundred."""
    n = 5000
    for seed in range(20):
        random = np.random.default_rng(seed)
        terms = np.full(n, -np.inf)
        terms[random.choice(n, positive, replace=False)] = random.normal(size=positive)
        estimate = ImportanceEstimate.from_log_weights(torch.from_numpy(terms))
        assert 1 <= estimate.ess <= positive * (1 + 1e-9)
        exact = np.logaddexp.reduce(terms) - math.log(n)
        assert abs(estimate.log_z.mean - exact) < 3 * estimate.log_z.se
        # The standard error of a mean of mostly zeros is no less than that of counting.
        assert estimate.log_z.se > 0.9 / math.sqrt(positive)
        assert math.isnan(estimate.khat) == (positive == 5)
