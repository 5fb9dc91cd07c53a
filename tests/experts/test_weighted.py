"""Importance weights mean the same to every expert: what the draws count for."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import MultivariateNormal

from amfvi.experts import Folds
from amfvi.statistics import weighted_sd

pytestmark = pytest.mark.usefixtures("global_state_untouched")


def fit(config, folds, seed=0):
    return config.fit_folds(folds, generator=torch.Generator().manual_seed(seed))[0]


def test_equal_weights_are_no_weights(kind, quick, plain, curved, folded):
    folds = folded(curved(2, 800, 3), 2)
    weighted = fit(quick[kind], Folds(folds.draws, folds.fold, torch.full((800,), 7.0)), seed=1)
    x = curved(2, 400, 4)
    difference = plain(kind, 2, 800).log_prob(x) - weighted.log_prob(x)
    # Training amplifies the last bit in which sums differ.
    assert float(difference.abs().mean()) < (0.03 if kind in ("maf", "realnvp", "nsf") else 1e-6)


def test_rows_of_weight_zero_do_not_exist(kind, small, curved, folded):
    draws = curved(2, 1200, 5)
    weight = torch.ones(1200)
    weight[::3] = 0
    strayed = draws.clone()
    strayed[::3] = strayed[::3] * 5 + 40
    fold = folded(draws, 2).fold
    x = curved(2, 400, 6)
    score = fit(small[kind], Folds(strayed, fold, weight)).log_prob(x).mean()
    clean = fit(small[kind], Folds(draws[weight > 0], fold[weight > 0])).log_prob(x).mean()
    assert float(score) == pytest.approx(float(clean), abs=0.1)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_weighted_draws_of_one_law_give_the_density_of_another(kind, small, seed, folded):
    """Draws of a wide normal with weights p/q are draws of p, a shifted narrow one."""
    generator = torch.Generator().manual_seed(seed)
    wide = MultivariateNormal(torch.zeros(2).double(), 4 * torch.eye(2).double())
    covariance = torch.tensor([[1.0, 0.7], [0.7, 1.0]], dtype=torch.float64)
    p = MultivariateNormal(torch.tensor([1.0, -0.5], dtype=torch.float64), covariance)
    draws = 2 * torch.randn(4000, 2, generator=generator, dtype=torch.float64)
    weight = (p.log_prob(draws) - wide.log_prob(draws)).exp()
    expert = fit(small[kind], Folds(draws, folded(draws, 2).fold, weight))
    noise = torch.randn(4000, 2, generator=generator, dtype=torch.float64)
    x = p.mean + noise @ torch.linalg.cholesky(covariance).T
    divergence = float((p.log_prob(x) - expert.log_prob(x)).mean())
    assert divergence < 0.05  # unweighted, the best Gaussian is 0.93 off
    made = expert.sample(4000, generator)
    assert torch.allclose(made.mean(dim=0), p.mean, atol=0.12)
    assert torch.allclose(weighted_sd(made, None), torch.ones(2).double(), atol=0.12)
