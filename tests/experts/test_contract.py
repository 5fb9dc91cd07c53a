"""Invariants every expert keeps, whatever its family."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import stats

from amfvi.errors import FitError, InputError, UsageError
from amfvi.experts import (
    GMM,
    MAF,
    NSF,
    RBIG,
    TMM,
    Folds,
    LogisticMAF,
    RealNVP,
    config_from_json,
)

pytestmark = pytest.mark.usefixtures("global_state_untouched")
DIMENSIONS = (1, 2, 3, 5, 10)

# Settings under which early stopping does not couple the members: the last state is best.
SLOW = {"max_steps": 25, "cooldown": 0.0, "learning_rate": 1e-3, "hidden_learning_rate": 1e-3}
ONE_CHECK = {
    "maf": SLOW,
    "realnvp": SLOW,
    "nsf": SLOW,
    "logistic_maf": SLOW,
    "rbig": {"max_layers": 1},
    "gmm": {"max_components": 1, "tolerance": 1e-9, "max_iterations": 5},
    "tmm": {"max_components": 1, "tolerance": 1e-9, "max_iterations": 5},
}

# The fewest numbers that an expert of each family can consist of.
SMALLEST = {
    "maf": MAF(layers=1, hidden_layers=1, hidden_features=1, max_steps=25),
    "realnvp": RealNVP(layers=1, hidden_layers=1, hidden_features=1, max_steps=25),
    "rbig": RBIG(max_layers=2, patience=2),
    "nsf": NSF(layers=1, hidden_layers=1, hidden_features=1, bins=2, max_steps=25),
    "logistic_maf": LogisticMAF(
        layers=1, hidden_layers=1, hidden_features=1, components=1, max_steps=25
    ),
    "gmm": GMM(max_components=1),
    "tmm": TMM(max_components=1),
}

# Settings that end at the limit of steps, which comes first.
LIMITED = {
    "maf": {"max_steps": 25},
    "realnvp": {"max_steps": 25},
    "nsf": {"max_steps": 25},
    "logistic_maf": {"max_steps": 25},
    "rbig": {"max_layers": 4},
    "gmm": {"max_components": 3, "patience": 3},
    "tmm": {"max_components": 3, "patience": 3},
}


@pytest.mark.parametrize(
    "dim", [1, 2, 5, *(pytest.param(d, marks=pytest.mark.slow) for d in (3, 10))]
)
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_round_trip(bijective, dim, seed, fitted, curved):
    expert, _ = fitted(bijective, dim, seed)
    x = curved(dim, 300, 77).expand(expert.n_members, -1, -1)
    u, log_det = expert.forward(x)
    back, inverse_log_det = expert.inverse(u)
    assert torch.allclose(back, x, atol=1e-6, rtol=1e-6)
    assert torch.allclose(log_det, -inverse_log_det, atol=1e-6)


def test_the_first_member_alone_is_the_same_map(bijective, fitted, curved):
    expert, _ = fitted(bijective, 3, 0)
    one, x = expert.of_first_member(), curved(3, 50, 1)
    assert (one.n_members, one.dim, expert.n_members > 1) == (1, 3, True)
    u, log_det = expert.forward(x.expand(expert.n_members, -1, -1))
    of_one = one.forward(x[None])
    assert torch.allclose(of_one[0], u[:1], atol=1e-10)
    assert torch.allclose(of_one[1], log_det[:1], atol=1e-10)
    assert torch.allclose(one.inverse(u[:1])[0][0], x.double(), atol=1e-6)


@pytest.mark.parametrize("dim", DIMENSIONS)
def test_log_determinant_is_that_of_the_map(bijective, dim, fitted, curved):
    expert, _ = fitted(bijective, dim)

    def of_last_member(p):
        points = p.expand(expert.n_members, 1, dim)
        return expert._to_normal(expert.whitening.forward(points))[0][-1, :, 0]

    for x in curved(dim, 6, 5):
        jacobian = torch.autograd.functional.jacobian(of_last_member, x)
        expected = torch.linalg.slogdet(jacobian).logabsdet
        log_det = expert.forward(x.expand(expert.n_members, 1, dim))[1][-1]
        assert float(log_det) == pytest.approx(float(expected), abs=1e-6)


def test_an_ensemble_averages_the_densities_of_its_members(kind, fitted, curved):
    expert, _ = fitted(kind, 2)
    x = curved(2, 500, 6)
    each = expert._log_prob(x.expand(2, -1, -1)).exp()
    assert torch.allclose(expert.log_prob(x).exp(), each.mean(dim=0))
    assert not torch.allclose(each[0], each[1])


def test_out_of_fold_density_is_that_of_the_member_that_held_a_draw_out(
    kind, fitted, curved, folded
):
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
    original, _ = config.fit_folds(folded(draws, 2), generator=seed(1))
    moved = draws.clone()
    moved[1::2] = moved[1::2] * 0.8 + 0.1
    changed, _ = config.fit_folds(folded(moved, 2), generator=seed(1))
    x = curved(2, 50, 6).expand(2, -1, -1)
    change = (original._log_prob(x) - changed._log_prob(x)).abs().amax(dim=1)
    assert change[0] > 1e-2
    assert change[1] < 1e-4


def test_optimism_corrected_density_is_that_of_fresh_draws(kind, fitted, curved, folded):
    """The means agree within four standard errors; plain in-sample densities are higher."""
    expert, _ = fitted(kind, 2, 0, 5)
    estimated = expert.log_prob_optimism_corrected(folded(curved(2, 1500, 0), 5))
    fresh = expert.log_prob(curved(2, 20_000, 9))
    se = math.hypot(float(estimated.std()) / 1500**0.5, float(fresh.std()) / 20_000**0.5)
    assert abs(float(estimated.mean() - fresh.mean())) < 4 * se


@pytest.mark.parametrize("share", [0.02, 0.3, 1.0])
def test_optimism_correction_rates_no_draw_above_an_ensemble_with_a_diverged_member(
    kind, share, fitted, curved, folded, monkeypatch
):
    """The member fails at a share of the draws."""
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


def ring_mass(expert, inner, outer, step):
    """Mass of an expert in the square of half width ``outer`` without that of ``inner``."""
    centers = (torch.arange(round(2 * outer / step), dtype=torch.float64) + 0.5) * step - outer
    points = torch.cartesian_prod(*[centers] * expert.dim).reshape(-1, expert.dim)
    points = points[points.abs().amax(dim=1) > inner]
    return float(expert.log_prob(points).exp().sum()) * step**expert.dim


@pytest.mark.parametrize("dim", [1, 2])
def test_density_integrates_to_one_on_a_growing_grid(kind, dim, fitted):
    """A fine grid resolves the bulk, a coarse one the tails; twice as far out is nothing more."""
    expert, _ = fitted(kind, dim)
    total = ring_mass(expert, 0, 8, 0.02) + ring_mass(expert, 8, 14, 0.1)
    assert total == pytest.approx(1, abs=5e-3)
    assert ring_mass(expert, 14, 28, 0.1) < 5e-3


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


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_draws_follow_the_density(kind, seed, fitted, goodness_of_fit):
    expert, _ = fitted(kind, 2)
    draws = expert.sample(10_000, torch.Generator().manual_seed(seed))
    assert goodness_of_fit(draws, expert.log_prob, ((-6, 6), (-6, 6))) > 2e-5


@pytest.mark.parametrize("members", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_fitting_improves_on_the_best_gaussian(kind, members, fitted, curved):
    expert, report = fitted(kind, 2, 0, members)
    fresh = curved(2, 20_000, 9)
    train = curved(2, 1500, 0)
    gaussian = torch.distributions.MultivariateNormal(train.mean(0), train.T.cov())
    gain = expert.log_prob(fresh) - gaussian.log_prob(fresh)
    assert float(gain.mean()) > 0.05
    assert report.heldout_nll <= report.history[0].heldout_nll
    assert report.heldout_nll == min(c.heldout_nll for c in report.history)


@pytest.mark.parametrize("members", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_report_is_of_the_kept_state_in_the_units_of_the_draws(
    kind, members, fitted, curved, folded
):
    expert, report = fitted(kind, 3, 0, members)
    out_of_fold = expert.log_prob_out_of_fold(folded(curved(3, 1500, 0), members))
    assert float(-out_of_fold.mean()) == pytest.approx(report.heldout_nll, abs=1e-4)


@pytest.mark.parametrize(
    "scales",
    [(2.0**-20, 2.0**20), pytest.param((2.0**20, 2.0**20), marks=pytest.mark.slow)],
)
def test_affine_equivariance_is_exact_for_powers_of_two(kind, scales, quick, plain, curved, folded):
    """Scaling by 2±²⁰ (about 1e±6) is exact in floating point, so must the result be."""
    draws = curved(2, 800, 3)
    scale = torch.tensor(scales, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    scaled, _ = quick[kind].fit_folds(folded(draws * scale, 2), generator=generator)
    x = curved(2, 200, 4)
    expected = plain(kind, 2, 800).log_prob(x) - scale.log().sum()
    assert torch.allclose(scaled.log_prob(x * scale), expected, atol=1e-8)


def test_scales_shift_and_correlation_cost_no_accuracy(kind, small, curved, folded):
    draws, fresh = curved(3, 1000, 3), curved(3, 4000, 4)
    seed = torch.Generator().manual_seed
    matrix = torch.tensor([[1e-6, 0, 0], [0.7e6, 1e6, 0], [0.5, -0.3, 1]], dtype=torch.float64)
    shift = torch.tensor([1e-3, -5e6, 40.0], dtype=torch.float64)
    plain, _ = small[kind].fit_folds(folded(draws, 2), generator=seed(1))
    moved = draws @ matrix.T + shift
    other, _ = small[kind].fit_folds(folded(moved, 2), generator=seed(1))
    difference = plain.log_prob(fresh).mean() - (
        other.log_prob(fresh @ matrix.T + shift).mean() + matrix.diagonal().log().sum()
    )
    assert abs(float(difference)) < 0.03


def test_same_seed_same_expert_other_seed_other_draws(kind, quick, plain, curved, folded):
    draws = curved(2, 800, 3)
    seed = torch.Generator().manual_seed
    first = plain(kind, 2, 800)
    second, _ = quick[kind].fit_folds(folded(draws, 2), generator=seed(1))
    assert torch.equal(first.log_prob(draws), second.log_prob(draws))
    assert torch.equal(first.sample(50, seed(2)), second.sample(50, seed(2)))
    assert not torch.equal(first.sample(50, seed(2)), first.sample(50, seed(3)))


def test_evaluation_mutates_nothing(kind, fitted, curved):
    expert, _ = fitted(kind, 2)
    before = {name: t.clone() for name, t in expert.tensors().items()}
    x = curved(2, 50, 8)
    first = expert.log_prob(x)
    expert.sample(20, torch.Generator().manual_seed(0))
    expert.log_prob(x.clone().requires_grad_()).sum().backward()
    assert torch.equal(first, expert.log_prob(x))
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


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))]
)
@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("members", [1, 2])
def test_the_smallest_expert_is_restored_to_the_last_bit(kind, dim, members, seed, folded):
    """Of Gaussian draws: no layers, one component, one member, one dimension."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(400, dim, generator=generator, dtype=torch.float64)
    expert, report = SMALLEST[kind].fit_folds(folded(draws, members), generator=generator)
    if kind == "rbig":
        assert len(expert.layers()) == report.best_step
    again = expert.config.restore(dim, expert.tensors())
    assert torch.equal(again.log_prob(draws), expert.log_prob(draws))
    assert again.tensors().keys() == expert.tensors().keys()


@pytest.mark.parametrize("members", [1, 5])
def test_a_gaussianization_of_no_layers_is_restored(members, folded):
    """A Gaussian needs none; the split of an empty tensor by one size would give one."""
    draws = torch.randn(300, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    config = RBIG(max_layers=1)
    fitted, _ = config.fit_folds(folded(draws, members), generator=torch.Generator().manual_seed(0))
    expert = type(fitted)(config, fitted.whitening, [])
    again = config.restore(2, expert.tensors())
    assert again.layers() == []
    assert torch.equal(again.log_prob(draws), expert.log_prob(draws))


def test_restoring_checks_every_tensor(kind, fitted):
    expert, _ = fitted(kind, 2)
    good = expert.tensors()
    for name in good:
        missing = {k: v for k, v in good.items() if k != name}
        if name == "reach":  # of flows that were saved before there was one
            assert "reach" not in expert.config.restore(2, missing).tensors()
        else:
            with pytest.raises(InputError):
                expert.config.restore(2, missing)
        broken = {**good, name: good[name].double() * math.nan}
        if good[name].numel():
            with pytest.raises(InputError):
                expert.config.restore(2, broken)
    if "reach" in good:
        with pytest.raises(InputError, match="reach"):
            expert.config.restore(2, {**good, "reach": -good["reach"]})
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
        small[kind].fit_folds(folded(draws * math.nan, 2), generator=seed)
    with pytest.raises(FitError, match=r"column 1 .* constant"):
        small[kind].fit_folds(folded(draws * torch.tensor([1.0, 0.0]), 2), generator=seed)
    with pytest.raises(FitError, match=f"{kind}: .*at least 2"):
        small[kind].fit_folds(Folds.holdout(draws[:1], draws), generator=seed)


def test_progress_reaches_one_at_the_limit_of_steps(kind, small, curved, folded):
    fractions = []
    _, report = dataclasses.replace(small[kind], **LIMITED[kind]).fit_folds(
        folded(curved(2, 400, 3), 2),
        generator=torch.Generator().manual_seed(0),
        progress=lambda fraction, heldout_nll: fractions.append(fraction),
    )
    assert report.stopped_by == next(iter(LIMITED[kind]))
    assert not report.converged
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert len(fractions) == sum(record.step > 0 for record in report.history)


def test_time_limit_stops_with_a_usable_expert(kind, small, curved, folded):
    draws = curved(2, 400, 3)
    expert, report = small[kind].fit_folds(
        folded(draws, 2), generator=torch.Generator().manual_seed(0), timeout=1e-9
    )
    assert report.stopped_by == "timeout"
    assert not report.converged
    assert torch.isfinite(expert.log_prob(draws)).all()


def test_unknown_setting_is_a_usage_error(small, kind):
    fields = small[kind].to_json()
    with pytest.raises(UsageError, match=f"unknown setting of {kind} 'speed'"):
        config_from_json({**fields, "speed": 3})
