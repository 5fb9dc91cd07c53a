"""Invariants every expert keeps, whatever its family."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import stats

from amfvi.errors import FitError, InputError, UsageError
from amfvi.experts import Folds, config_from_json

pytestmark = pytest.mark.usefixtures("global_state_untouched")
DIMENSIONS = (1, 2, 3, 5, 10)

# Settings under which no choice by held-out draws couples the members: the last state is best.
SLOW = {"max_steps": 25, "decay": 0.0, "learning_rate": 1e-3, "hidden_learning_rate": 1e-3}
ONE_CHECK = {
    "maf": SLOW,
    "realnvp": SLOW,
    "nsf": SLOW,
    "rbig": {"max_layers": 1},
    "gmm": {"max_components": 1, "tolerance": 1e-9, "max_iterations": 5},
    "tmm": {"max_components": 1, "tolerance": 1e-9, "max_iterations": 5},
}


@pytest.mark.parametrize("dim", DIMENSIONS)
@pytest.mark.parametrize("seed", [0, 1])
def test_round_trip(bijective, dim, seed, fitted, curved):
    expert, _ = fitted(bijective, dim, seed)
    x = curved(dim, 300, 77).expand(expert.n_members, -1, -1)
    u, log_det = expert.forward(x)
    back, inverse_log_det = expert.inverse(u)
    assert torch.allclose(back, x, atol=1e-6, rtol=1e-6)
    assert torch.allclose(log_det, -inverse_log_det, atol=1e-6)


@pytest.mark.parametrize("dim", DIMENSIONS)
def test_log_determinant_is_that_of_the_map(bijective, dim, fitted, curved):
    expert, _ = fitted(bijective, dim)

    def of_last_member(p):
        points = p.expand(expert.n_members, 1, dim)
        return expert._flow(expert.whitening.forward(points))[0][-1, :, 0]

    for x in curved(dim, 6, 5):
        jacobian = torch.autograd.functional.jacobian(of_last_member, x)
        expected = torch.linalg.slogdet(jacobian).logabsdet
        found = expert.forward(x.expand(expert.n_members, 1, dim))[1][-1]
        assert float(found) == pytest.approx(float(expected), abs=1e-6)


def test_an_ensemble_averages_the_densities_of_its_members(kind, fitted, curved):
    expert, _ = fitted(kind, 2)
    x = curved(2, 500, 6)
    each = expert._log_prob(x.expand(2, -1, -1)).exp()
    assert torch.allclose(expert.log_prob(x).exp(), each.mean(dim=0))
    assert not torch.allclose(each[0], each[1])


def test_only_the_blind_member_speaks_out_of_fold(kind, fitted, curved, folded):
    expert, _ = fitted(kind, 2)
    folds = folded(curved(2, 503, 6), 2)
    each = expert._log_prob(folds.draws.expand(2, -1, -1))
    expected = torch.where(folds.fold == 0, each[0], each[1])
    assert torch.allclose(expert.log_prob_out_of_fold(folds), expected, atol=1e-10)


def test_a_member_never_trains_on_its_own_fold(kind, small, curved, folded):
    """Other draws in fold 1 change member 0 alone, but for its early stopping by fold 0."""
    seed = torch.Generator().manual_seed
    draws = curved(2, 400, 0)
    config = dataclasses.replace(small[kind], **ONE_CHECK[kind])
    one, _ = config.fit(folded(draws, 2), generator=seed(1))
    moved = draws.clone()
    moved[1::2] = moved[1::2] * 0.8 + 0.1
    two, _ = config.fit(folded(moved, 2), generator=seed(1))
    x = curved(2, 50, 6).expand(2, -1, -1)
    change = (one._log_prob(x) - two._log_prob(x)).abs().amax(dim=1)
    assert change[0] > 1e-2
    assert change[1] < 1e-4


def test_cross_validated_density_is_no_better_than_on_fresh_draws(kind, fitted, curved, folded):
    """On average; in-sample it would be. The tolerance is four standard errors."""
    expert, _ = fitted(kind, 2, 0, 5)
    estimated = expert.log_prob_optimism_corrected(folded(curved(2, 1500, 0), 5))
    fresh = expert.log_prob(curved(2, 20_000, 9))
    se = math.hypot(float(estimated.std()) / 1500**0.5, float(fresh.std()) / 20_000**0.5)
    assert abs(float(estimated.mean() - fresh.mean())) < 4 * se


@pytest.mark.parametrize("share", [0.02, 0.3, 1.0])
def test_a_member_that_diverged_earns_its_ensemble_no_credit(
    kind, share, fitted, curved, folded, monkeypatch
):
    """It fails on a share of the draws. No draw may be rated above the ensemble itself."""
    expert, _ = fitted(kind, 2, 0, 5)
    folds = folded(curved(2, 1500, 0), 5)
    right, edge = expert._log_prob, folds.draws[:, 0].quantile(share)

    def with_one_ruined(x):
        ruined = torch.zeros_like(x[..., 0])
        ruined[0] = -1e6 * (x[0, :, 0] <= edge)
        return right(x) + ruined

    monkeypatch.setattr(expert, "_log_prob", with_one_ruined)
    estimated = expert.log_prob_optimism_corrected(folds)
    assert float((estimated - expert.log_prob(folds.draws)).mean()) <= 0.01


@pytest.mark.parametrize("dim", [1, 2])
def test_density_integrates_to_one_on_a_growing_grid(kind, dim, fitted):
    """The inner grid resolves the bulk; a twice wider one must find nothing more."""
    expert, _ = fitted(kind, dim)
    totals = []
    for half_width, cells in ((14.0, 1400), (28.0, 2800)):
        edge = torch.linspace(-half_width, half_width, cells + 1, dtype=torch.float64)
        centre = (edge[1:] + edge[:-1]) / 2
        points = torch.cartesian_prod(*[centre] * dim).reshape(-1, dim)
        cell = (2 * half_width / cells) ** dim
        parts = [expert.log_prob(part).exp().sum() for part in points.split(200_000)]
        totals.append(float(sum(parts)) * cell)
    assert totals[0] == pytest.approx(1, abs=5e-3)
    assert totals[1] == pytest.approx(totals[0], abs=5e-3)


@pytest.mark.parametrize("dim", [3, 5])
def test_density_integrates_to_one_by_importance_sampling(kind, dim, fitted):
    """From a proposal wider than the expert: the expert's draws, spread by heavy noise."""
    expert, _ = fitted(kind, dim)
    generator = torch.Generator().manual_seed(4)
    draws = expert.sample(4000, generator)
    scale = draws.std(dim=0) * 1.3
    proposal = stats.multivariate_t(draws.mean(0).numpy(), np.diag(scale.numpy() ** 2), df=3)
    x = proposal.rvs(120_000, random_state=np.random.default_rng(0))
    ratio = np.exp(expert.log_prob(torch.from_numpy(x)).numpy() - proposal.logpdf(x))
    se = ratio.std() / math.sqrt(len(ratio))
    assert se < 0.05
    assert abs(ratio.mean() - 1) < 5 * se


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_draws_follow_the_density(kind, seed, fitted, goodness_of_fit):
    expert, _ = fitted(kind, 2)
    draws = expert.sample(10_000, torch.Generator().manual_seed(seed))
    assert goodness_of_fit(draws, expert.log_prob, ((-6, 6), (-6, 6))) > 2e-5


@pytest.mark.parametrize("members", [1, 2])
def test_fitting_improves_on_the_best_gaussian(kind, members, fitted, curved):
    expert, report = fitted(kind, 2, 0, members)
    fresh = curved(2, 20_000, 9)
    train = curved(2, 1500, 0)
    gaussian = torch.distributions.MultivariateNormal(train.mean(0), train.T.cov())
    gain = expert.log_prob(fresh) - gaussian.log_prob(fresh)
    assert float(gain.mean()) > 0.05
    assert report.heldout_nll <= report.history[0].heldout_nll
    assert report.heldout_nll == min(c.heldout_nll for c in report.history)


@pytest.mark.parametrize("members", [1, 2])
def test_report_is_of_the_kept_state_in_the_units_of_the_draws(
    kind, members, fitted, curved, folded
):
    expert, report = fitted(kind, 3, 0, members)
    blind = expert.log_prob_out_of_fold(folded(curved(3, 1500, 0), members))
    assert float(-blind.mean()) == pytest.approx(report.heldout_nll, abs=1e-4)


@pytest.mark.parametrize("scales", [(2.0**-20, 2.0**20), (2.0**20, 2.0**20)])
def test_affine_equivariance_is_exact_for_powers_of_two(kind, scales, small, curved, folded):
    """Scaling by 2±²⁰ (about 1e±6) is exact in floating point, so must the result be."""
    draws = curved(2, 800, 3)
    scale = torch.tensor(scales, dtype=torch.float64)
    seed = torch.Generator().manual_seed
    plain, _ = small[kind].fit(folded(draws, 2), generator=seed(1))
    scaled, _ = small[kind].fit(folded(draws * scale, 2), generator=seed(1))
    x = curved(2, 200, 4)
    expected = plain.log_prob(x) - scale.log().sum()
    assert torch.allclose(scaled.log_prob(x * scale), expected, atol=1e-8)


def test_scales_shift_and_correlation_cost_no_accuracy(kind, small, curved, folded):
    draws, fresh = curved(3, 1000, 3), curved(3, 4000, 4)
    seed = torch.Generator().manual_seed
    matrix = torch.tensor([[1e-6, 0, 0], [0.7e6, 1e6, 0], [0.5, -0.3, 1]], dtype=torch.float64)
    shift = torch.tensor([1e-3, -5e6, 40.0], dtype=torch.float64)
    plain, _ = small[kind].fit(folded(draws, 2), generator=seed(1))
    moved = draws @ matrix.T + shift
    other, _ = small[kind].fit(folded(moved, 2), generator=seed(1))
    difference = plain.log_prob(fresh).mean() - (
        other.log_prob(fresh @ matrix.T + shift).mean() + matrix.diagonal().log().sum()
    )
    assert abs(float(difference)) < 0.03


def test_same_seed_same_expert_other_seed_other_draws(kind, small, curved, folded):
    draws = curved(2, 400, 3)
    seed = torch.Generator().manual_seed
    one, _ = small[kind].fit(folded(draws, 2), generator=seed(1))
    two, _ = small[kind].fit(folded(draws, 2), generator=seed(1))
    assert torch.equal(one.log_prob(draws), two.log_prob(draws))
    assert torch.equal(one.sample(50, seed(2)), two.sample(50, seed(2)))
    assert not torch.equal(one.sample(50, seed(2)), one.sample(50, seed(3)))


def test_evaluation_mutates_nothing_and_carries_no_gradient(kind, fitted, curved):
    expert, _ = fitted(kind, 2)
    before = {name: t.clone() for name, t in expert.tensors().items()}
    x = curved(2, 50, 8).requires_grad_()
    first = expert.log_prob(x)
    expert.sample(20, torch.Generator().manual_seed(0))
    assert torch.equal(first, expert.log_prob(x))
    assert not first.requires_grad
    assert all(torch.equal(t, before[name]) for name, t in expert.tensors().items())


def test_dtype_out_is_dtype_in_and_precisions_agree(kind, fitted, curved):
    expert, _ = fitted(kind, 3)
    x = curved(3, 500, 8)
    single = expert.log_prob(x.float())
    assert single.dtype == torch.float32
    assert expert.log_prob(x).dtype == torch.float64
    assert torch.allclose(single.double(), expert.log_prob(x.float().double()), atol=1e-3)


@pytest.mark.parametrize("dim", [1, 3])
def test_tensors_restore_the_same_expert(kind, dim, fitted, curved):
    expert, _ = fitted(kind, dim)
    config = config_from_json(expert.config.to_json())
    again = config.restore(dim, expert.tensors())
    x = curved(dim, 100, 8)
    assert config == expert.config
    assert torch.equal(again.log_prob(x), expert.log_prob(x))
    seed = torch.Generator().manual_seed
    assert torch.equal(again.sample(30, seed(0)), expert.sample(30, seed(0)))


def test_restoring_checks_every_tensor(kind, fitted):
    expert, _ = fitted(kind, 2)
    good = expert.tensors()
    for name in good:
        missing = {k: v for k, v in good.items() if k != name}
        with pytest.raises(InputError):
            expert.config.restore(2, missing)
        broken = {**good, name: good[name].double() * math.nan}
        if good[name].numel():
            with pytest.raises(InputError):
                expert.config.restore(2, broken)
    with pytest.raises(InputError, match="unexpected tensor 'spare'"):
        expert.config.restore(2, {**good, "spare": torch.ones(1)})
    with pytest.raises(InputError, match="shape"):
        expert.config.restore(3, good)


@pytest.mark.parametrize("far", [1e15, 1e32, 1e100])
def test_absurdly_far_points_have_no_density_rather_than_nan(kind, far, fitted):
    expert, _ = fitted(kind, 2)
    x = torch.tensor([[far, 0.0], [-far, far], [0.0, -far]], dtype=torch.float64)
    log_q = expert.log_prob(x)
    assert bool((log_q < -50).all())


def test_far_points_have_finite_density(kind, fitted):
    """A hundred standard deviations out: tiny, and neither NaN nor −inf."""
    expert, _ = fitted(kind, 2)
    far = torch.tensor([[100.0, 0], [0, -100], [80, 80]], dtype=torch.float64)
    log_q = expert.log_prob(far)
    assert torch.isfinite(log_q).all()
    assert (log_q < (-20 if kind == "tmm" else -100)).all()


def test_wrong_shapes_are_errors(kind, fitted):
    expert, _ = fitted(kind, 2)
    with pytest.raises(InputError, match=r"shape \(..., 2\), found \(4, 3\)"):
        expert.log_prob(torch.zeros(4, 3))
    with pytest.raises(InputError, match="floating-point"):
        expert.log_prob(torch.zeros(4, 2, dtype=torch.int64))


def test_unfittable_draws_name_the_expert(kind, small, curved, folded):
    draws, seed = curved(2, 60, 0), torch.Generator().manual_seed(0)
    with pytest.raises(FitError, match=f"{kind}: .*NaN"):
        small[kind].fit(folded(draws * math.nan, 2), generator=seed)
    with pytest.raises(FitError, match=r"column 1 .* constant"):
        small[kind].fit(folded(draws * torch.tensor([1.0, 0.0]), 2), generator=seed)
    with pytest.raises(FitError, match=f"{kind}: .*at least 2"):
        small[kind].fit(Folds.holdout(draws[:1], draws), generator=seed)


def test_time_limit_stops_with_a_usable_expert(kind, small, curved, folded):
    draws = curved(2, 400, 3)
    expert, report = small[kind].fit(
        folded(draws, 2), generator=torch.Generator().manual_seed(0), timeout=1e-9
    )
    assert report.stopped_by == "timeout"
    assert not report.converged
    assert torch.isfinite(expert.log_prob(draws)).all()


def test_unknown_setting_is_a_usage_error(small, kind):
    fields = small[kind].to_json()
    with pytest.raises(UsageError, match="no setting 'speed'"):
        config_from_json({**fields, "speed": 3})
