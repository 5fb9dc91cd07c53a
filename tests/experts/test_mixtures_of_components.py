"""Gaussian and Student-t mixtures: they find what made the draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.mixture import GaussianMixture

from amfvi.experts import GMM, TMM, Folds
from amfvi.experts.elliptical.components import Components
from amfvi.experts.elliptical.em import ascend
from amfvi.experts.elliptical.problem import MixtureProblem
from amfvi.targets import get


def cross(draws, members=5):
    return Folds(draws, torch.arange(len(draws)) % members)


def seed(number):
    return torch.Generator().manual_seed(number)


@pytest.mark.parametrize("number", range(3))
def test_a_gaussian_mixture_is_recovered(number):
    target = get("bimodal")
    draws = target.sample(6000, seed(number))
    expert, report = GMM().fit_folds(cross(draws), generator=seed(number))
    fresh = target.sample(20_000, seed(100 + number))
    kl = target.log_prob(fresh) - expert.log_prob(fresh)
    # Eleven parameters: 11/2n = .0009 expected; a component too many costs as much again.
    assert float(kl.mean()) < 0.004
    assert report.best_step <= 4


def test_agrees_with_scikit_learn_at_the_same_optimum():
    draws = get("bimodal").sample(4000, seed(0))
    expert, _ = GMM(max_components=2, tolerance=1e-9).fit_folds(
        Folds.holdout(draws[:3500], draws[3500:]), generator=seed(0)
    )
    theirs = GaussianMixture(2, tol=1e-9, max_iter=1000, random_state=0).fit(draws[:3500].numpy())
    x = draws[3500:]
    expected = torch.from_numpy(theirs.score_samples(x.numpy()))
    assert torch.allclose(expert.log_prob(x), expected, atol=2e-3)


@pytest.mark.parametrize("freedom", [1.5, 4.0])
def test_heavy_tails_are_measured(freedom):
    random = np.random.default_rng(int(10 * freedom))
    shape = np.array([[1.0, 0.7], [0.7, 2.0]])
    law = stats.multivariate_t([1, -2], shape, df=freedom)
    draws = torch.from_numpy(law.rvs(5000, random_state=random))
    expert, _ = TMM().fit_folds(cross(draws), generator=seed(0))
    assert expert.components.freedom.numpy() == pytest.approx(freedom, rel=0.15)
    fresh = law.rvs(50_000, random_state=random)
    kl = law.logpdf(fresh) - expert.log_prob(torch.from_numpy(fresh)).numpy()
    assert kl.mean() < 0.01


def test_light_tails_need_no_heavy_ones():
    draws = get("x_shape").sample(4000, seed(0))
    expert, _ = TMM().fit_folds(cross(draws), generator=seed(0))
    assert (expert.components.freedom > 10).all()


def test_collinear_and_repeated_draws_do_no_harm():
    draws = torch.randn(300, 2, generator=seed(0), dtype=torch.float64)
    draws = torch.cat([draws, draws[:100].expand(3, -1, -1).reshape(-1, 2)])
    draws = torch.cat([draws, draws[:, :1] + 1e-3 * draws[:, 1:]], dim=1)
    for config in (GMM(), TMM()):
        expert, _ = config.fit_folds(cross(draws), generator=seed(0))
        assert torch.isfinite(expert.log_prob(draws)).all()


@pytest.mark.parametrize("number", range(3))
def test_a_member_in_a_poor_optimum_starts_again_from_another(number):
    """Two components on one of two modes, one on both: EM does not leave that by itself."""
    z = torch.randn(900, 2, generator=seed(number), dtype=torch.float64)
    z[300:600, 0] += 12.0
    z[600:, 1] += 12.0
    folds = cross(z)
    problem = MixtureProblem(z, folds, gaussian=True)
    good = problem.seed_components(3, np.random.default_rng(number))
    good, *_ = ascend(problem, good, tolerance=1e-6, max_iterations=200)
    assert problem.share_starts(good) is None
    poor = Components(
        log_weights=good.log_weights.clone(), means=good.means.clone(),
        factors=good.factors.clone(), freedom=good.freedom,
    )  # fmt: skip
    poor.means[1] = torch.tensor([[-0.3, 0.0], [0.3, 0.0], [6.0, 6.0]])
    poor.factors[1, 2] *= 6.0
    stuck, *_ = ascend(problem, poor, tolerance=1e-6, max_iterations=200)
    before = problem.step(stuck)[1]
    shared = problem.share_starts(stuck)
    assert shared is not None
    after = problem.step(ascend(problem, shared, tolerance=1e-6, max_iterations=200)[0])[1]
    assert float(after[1] - before[1]) > 0.3
    assert float((after - problem.step(good)[1]).abs().max()) < 1e-3
    assert torch.equal(shared.means[[0, 2, 3, 4]], stuck.means[[0, 2, 3, 4]])
