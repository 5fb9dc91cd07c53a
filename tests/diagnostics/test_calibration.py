"""Simulation-based calibration (Talts et al. 2018, arXiv:1804.06788) of fits to log densities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

import amfvi
from amfvi.experts import GMM

SIMULATIONS = 300
DRAWS = 99
BINS = 20


@pytest.fixture(scope="module")
def standard_scores():
    """Truths and posterior draws of a conjugate normal, in units of the exact posterior's sd.

    μ ~ N(0, 1), four observations y ~ N(μ, 1).
    """
    random = np.random.default_rng(0)
    truths, draws = [], []
    for number in range(SIMULATIONS):
        mu = random.normal()
        y = torch.from_numpy(mu + random.normal(size=4))

        def log_joint(x, y=y):
            return -0.5 * (x[:, 0].square() + (y - x).square().sum(dim=1))

        posterior = amfvi.fit(
            amfvi.LogDensity(log_joint, 1), experts=[GMM(max_components=2)], folds=2,
            n_draws=1000, max_refinements=0, seed=number,
        )  # fmt: skip
        center, sd = float(y.sum()) / 5, 5**-0.5
        truths.append((mu - center) / sd)
        drawn = posterior.sample((DRAWS,), torch.Generator().manual_seed(number))
        draws.append((drawn.numpy()[:, 0] - center) / sd)
    return np.array(truths), np.array(draws)


def uniformity(truths, draws):
    """χ² p-value of the truths' ranks among their draws."""
    ranks = (draws < truths[:, None]).sum(axis=1)
    counts = np.bincount(ranks * BINS // (DRAWS + 1), minlength=BINS)
    return stats.chisquare(counts).pvalue


@pytest.mark.slow
def test_ranks_are_uniform(standard_scores):
    assert uniformity(*standard_scores) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("bias", lambda draws: draws + 0.5),
        ("under-dispersion", lambda draws: 0.6 * draws),
        ("over-dispersion", lambda draws: 1.7 * draws),
    ],
)
def test_planted_faults_are_caught(standard_scores, name, spoil):
    truths, draws = standard_scores
    assert uniformity(truths, spoil(draws)) < 1e-3, name
