"""Conditional experts: densities of y for every c, their draws, and nothing new without c."""

from __future__ import annotations

from functools import cache
from math import log

import pytest
import torch

from amfvi.errors import InputError, UsageError
from amfvi.experts import (
    GMM,
    MAF,
    MDN,
    NLE,
    NSF,
    RBIG,
    TMM,
    FlowMatching,
    Folds,
    LogisticMAF,
    NoisyMDN,
    RealNVP,
    RegressionMixture,
)

FAMILIES = {
    "mdn": MDN(components=4, hidden_features=32, max_steps=200),
    "noisy_mdn": NoisyMDN(components=4, hidden_features=32, max_steps=200),
    "maf": MAF(layers=3, hidden_features=16, max_steps=200),
    "realnvp": RealNVP(layers=4, hidden_features=16, max_steps=200),
    "nsf": NSF(layers=2, hidden_features=16, max_steps=200),
    "logistic_maf": LogisticMAF(layers=2, hidden_features=16, components=4, max_steps=200),
    "gmm": GMM(max_components=6),
    "tmm": TMM(max_components=4),
    "rmm": RegressionMixture(max_components=6),
    "nle": NLE(hidden_features=16, max_steps=200),
    "fm": FlowMatching(
        hidden_features=24, hidden_layers=2, max_steps=300, learning_rate=1e-2, ema_decay=0.98,
        integration_steps=8,
    ),
}  # fmt: skip
SLOW = ("fm",)  # test_flow_matching.py tests it on fewer points
ONE = ("nle",)  # of one parameter
SHAPE = {kind: (2, 1) if kind in ONE else (2, 2) for kind in FAMILIES}
KINDS = [pytest.param(kind, marks=pytest.mark.slow if kind in SLOW else ()) for kind in FAMILIES]
CASES = [
    pytest.param(
        kind, given, dim,
        marks=() if kind in ("mdn", "gmm") or (kind not in SLOW and (given, dim) == SHAPE[kind])
        else pytest.mark.slow,
    )
    for kind in FAMILIES
    for given, dim in ((1, 1), SHAPE[kind], (3, 1), (1, 3))
    if dim == 1 or kind not in ONE
]  # fmt: skip


def branches(c, dim):
    """Centers (n, 2, d) of the two branches at conditions (n, given)."""
    size = (1 + 0.5 * c[:, :1].square())[:, None]
    size = torch.cat([size, -size], dim=1)
    return size + c[:, None, -1:] + torch.arange(dim) * c[:, None, :1]


def exact(c, y, sd):
    """Log density of y (n, d) given c (n, given): two branches of standard deviation ``sd``."""
    normal = torch.distributions.Normal(branches(c, y.shape[1]), sd)
    each = normal.log_prob(y[:, None]).sum(dim=2)
    return (each + torch.tensor([0.7, 0.3]).double().log()).logsumexp(dim=1)


def draw(c, dim, sd, seed):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(c), dim, generator=generator, dtype=torch.float64)
    lower = (torch.rand(len(c), generator=generator, dtype=torch.float64) < 0.3).long()
    return branches(c, dim)[torch.arange(len(c)), lower] + sd * noise


def conditions(given, n, seed):
    generator = torch.Generator().manual_seed(1000 * seed + given)
    return torch.randn(n, given, generator=generator, dtype=torch.float64)


def pairs(given, dim, n, seed):
    """Rows (c, y), y on a bent branch or on its mirror image."""
    c = conditions(given, n, seed)
    return torch.cat([c, draw(c, dim, 0.3, seed)], dim=1)


@cache
def fitted(kind, given, dim):
    rows = pairs(given, dim, 1500, seed=0)
    folds = Folds(rows, torch.arange(1500) % 2, given=given)
    return FAMILIES[kind].fit_folds(folds, generator=torch.Generator().manual_seed(0))[0]


def require_mean_of_one(log_ratio):
    ratio = log_ratio.exp()
    se = float(ratio.std()) / len(ratio) ** 0.5
    assert se < 0.05
    assert float(ratio.mean()) == pytest.approx(1, abs=4 * se + 0.005)


@pytest.mark.parametrize(("kind", "given", "dim"), CASES)
def test_the_density_integrates_to_one_at_every_condition(kind, given, dim):
    """Importance sampling from the right branches, twice as wide, and from around them."""
    expert = fitted(kind, given, dim)
    for number, row in enumerate(0.7 * conditions(given, 4, seed=1)):
        c = row.expand(20_000, -1)
        around = torch.distributions.Normal(branches(c, dim).mean(dim=1), 3.0)
        noise = torch.randn(10_000, dim, generator=torch.Generator().manual_seed(number))
        y = torch.cat([draw(c[:10_000], dim, 0.6, number), around.loc[10_000:] + 3 * noise])
        proposal = torch.logaddexp(exact(c, y, 0.6), around.log_prob(y).sum(dim=1)) - log(2)
        require_mean_of_one(expert.log_prob(torch.cat([c, y], dim=1)) - proposal)


@pytest.mark.parametrize(("kind", "given", "dim"), CASES)
def test_draws_have_the_density(kind, given, dim):
    """E_q[r/q] = 1 for a density r that is narrower than q."""
    expert = fitted(kind, given, dim)
    for row in 0.7 * conditions(given, 2, seed=2):
        c = row.expand(20_000, -1)
        y = expert.sample_given(c, torch.Generator().manual_seed(3))
        assert y.shape == (20_000, dim)
        require_mean_of_one(exact(c, y, 0.2) - expert.log_prob(torch.cat([c, y], dim=1)))


@pytest.mark.parametrize(("kind", "given", "dim"), CASES)
def test_it_is_nearer_than_the_linear_regression(kind, given, dim):
    """Fresh rows, nats. MAF and RealNVP in one dimension are Gaussians given c."""
    expert = fitted(kind, given, dim)
    fresh, rows = pairs(given, dim, 4000, seed=5), pairs(given, dim, 1500, seed=0)
    design = torch.cat([torch.ones(1500, 1).double(), rows[:, :given]], dim=1)
    solution = torch.linalg.lstsq(design, rows[:, given:]).solution
    residual = rows[:, given:] - design @ solution
    of_fresh = torch.cat([torch.ones(4000, 1).double(), fresh[:, :given]], dim=1) @ solution
    regression = torch.distributions.MultivariateNormal(of_fresh, residual.T.cov().view(dim, dim))
    gain = expert.log_prob(fresh).mean() - regression.log_prob(fresh[:, given:]).mean()
    assert float(gain) > (0.05 if dim == 1 and kind in ("maf", "realnvp") else 0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_restore_the_same_expert(kind):
    given, dim = SHAPE[kind]
    expert = fitted(kind, given, dim)
    restored = FAMILIES[kind].restore(dim, expert.tensors(), given=given)
    points = pairs(given, dim, 50, seed=3)
    assert torch.equal(restored.log_prob(points), expert.log_prob(points))
    draws = [
        each.sample_given(points[:, :2], torch.Generator().manual_seed(0))
        for each in (restored, expert)
    ]
    assert torch.equal(*draws)
    # The parts of nle are experts themselves, and speak for themselves.
    name = "(noisy_mdn|logistic_maf)" if kind == "nle" else kind
    with pytest.raises(InputError, match=f"{name}: tensor 'mean' has shape"):
        FAMILIES[kind].restore(dim, expert.tensors(), given=1)


@pytest.mark.parametrize("kind", ["maf", "realnvp", "nsf", "logistic_maf"])
def test_a_flow_is_undone_at_its_condition(kind):
    expert = fitted(kind, 2, 2)
    x = pairs(2, 2, 200, seed=4).expand(expert.n_members, -1, -1)
    u, log_det = expert.forward(x)
    back, inverse_log_det = expert.inverse(torch.cat([x[..., :2], u], dim=-1))
    assert torch.allclose(back, x[..., 2:], atol=1e-6)
    assert torch.allclose(log_det, -inverse_log_det, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_condition_is_noticed(kind):
    """Conditions of other rows: the density of y falls, so that it is the condition that tells."""
    given, dim = SHAPE[kind]
    expert, rows = fitted(kind, given, dim), pairs(given, dim, 2000, seed=6)
    shuffled = torch.cat([rows.roll(1, 0)[:, :given], rows[:, given:]], dim=1)
    assert float(expert.log_prob(rows).mean() - expert.log_prob(shuffled).mean()) > 0.5


def test_a_linear_gaussian_is_fitted_from_the_start():
    """A network that has not learned anything is the linear regression."""
    generator = torch.Generator().manual_seed(0)
    c = torch.randn(400, 2, generator=generator, dtype=torch.float64)
    y = c @ torch.tensor([[2.0], [-1.0]]).double() + torch.randn(
        400, 1, generator=generator, dtype=torch.float64
    )
    rows = torch.cat([c, y], dim=1)
    expert = MDN(max_steps=300).fit(rows, given=2)
    fresh_c = torch.randn(4000, 2, generator=generator, dtype=torch.float64)
    mean = (fresh_c @ torch.tensor([2.0, -1.0]).double())[:, None]
    fresh_y = mean + torch.randn(4000, 1, generator=generator, dtype=torch.float64)
    exact = torch.distributions.Normal(mean, 1.0).log_prob(fresh_y).mean()
    found = expert.log_prob(torch.cat([fresh_c, fresh_y], dim=1)).mean()
    assert float(exact - found) < 0.03  # 3 parameters: 2/800 nats at best


@pytest.mark.parametrize("seed", [0, 1])
def test_a_joint_gaussian_is_conditioned_in_closed_form(seed):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(500, 4, generator=generator, dtype=torch.float64) @ torch.randn(
        4, 4, generator=generator, dtype=torch.float64
    )
    expert = GMM(max_components=1).fit(rows, given=2, folds=1)
    joint = GMM(max_components=1).fit(rows, folds=1)
    mean, factor = joint.components.means[0, 0], joint.components.factors[0, 0]
    mean, factor = (
        joint.whitening.inverse(mean[None, :, None])[0, 0],
        joint.whitening.factor[0] @ factor,
    )
    whole = torch.distributions.MultivariateNormal(mean, scale_tril=factor)
    part = torch.distributions.MultivariateNormal(mean[:2], scale_tril=factor[:2, :2])
    expected = whole.log_prob(rows) - part.log_prob(rows[:, :2])
    assert torch.allclose(expert.log_prob(rows), expected, atol=1e-8)


def test_what_a_condition_cannot_do():
    rows = pairs(1, 1, 100, seed=0)
    with pytest.raises(UsageError, match="rbig has no conditional form"):
        RBIG().fit(rows, given=1)
    with pytest.raises(UsageError, match="mdn is a density given a condition, and there is none"):
        MDN().fit(rows)
    with pytest.raises(UsageError, match="rmm is a density given a condition, and there is none"):
        RegressionMixture().fit(rows)
    with pytest.raises(
        UsageError, match=r"nle is a density of one parameter .* found no condition"
    ):
        NLE().fit(rows)
    with pytest.raises(
        UsageError, match=r"nle is a density of one parameter .* found 2 parameters"
    ):
        NLE().fit(pairs(1, 2, 100, seed=0), given=1)
    with pytest.raises(UsageError, match="given must be between 0 and 1"):
        GMM().fit(rows, given=2)
    expert = fitted("gmm", 2, 2)
    with pytest.raises(UsageError, match="use sample_given"):
        expert.sample(3)
    with pytest.raises(InputError, match=r"shape \(..., 4\), found \(5, 2\)"):
        expert.log_prob(torch.zeros(5, 2).double())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_shift_with_residuals_of_two_widths_is_a_mixture_of_regressions(seed):
    """Fresh rows, nats; a Gaussian mixture of the pairs has to cover the conditions as well."""
    generator = torch.Generator().manual_seed(seed)
    sd = torch.tensor([0.1, 1.0]).double()

    def shifted(n):
        c = 10 * torch.rand(n, 2, generator=generator, dtype=torch.float64)
        which = (torch.rand(n, generator=generator) < 0.5).long()
        noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        y = c + sd[which, None] * noise
        normal = torch.distributions.Normal(c[:, None], sd[:, None])
        each = normal.log_prob(y[:, None]).sum(dim=2)
        return torch.cat([c, y], dim=1), each.logsumexp(dim=1) - log(2)

    rows, _ = shifted(300)
    fresh, exact_log_p = shifted(4000)
    kl = {}
    for config in (RegressionMixture(), GMM()):
        expert = config.fit(rows, given=2, seed=seed)
        kl[config.kind] = float((exact_log_p - expert.log_prob(fresh)).mean())
    assert kl["rmm"] < 0.08  # 19 parameters: 19/600 nats at best
    assert kl["rmm"] < 0.9 * kl["gmm"]


def test_the_inverse_of_a_wave_is_nearer_by_bayes_rule():
    """c is a wave in y and noise: one branch, where y given c has up to three."""
    gains = []
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        y = 0.5 + 0.25 * torch.randn(4300, generator=generator, dtype=torch.float64)
        noise = torch.randn(4300, generator=generator, dtype=torch.float64)
        c = y + 0.3 * torch.sin(2 * torch.pi * y) + 0.05 * noise
        rows = torch.stack([c, y], dim=1)
        by_rule, directly = (
            config.fit(rows[:300], given=1, seed=seed).log_prob(rows[300:]).mean()
            for config in (NLE(), MDN())
        )
        gains.append(float(by_rule - directly))
    assert sum(gains) / len(gains) > 0.01


def test_the_posterior_at_many_draws_of_a_condition_is_computed_once():
    """Repeated conditions, in any order, have the densities of single ones, and draws."""
    expert = fitted("nle", 2, 1)
    c = conditions(2, 3, seed=5)
    order = torch.tensor([0, 2, 1, 1, 0, 2, 2, 0])
    y = torch.linspace(-2, 2, 8).double()[:, None]
    together = expert.log_prob(torch.cat([c[order], y], dim=1))
    alone = torch.stack(
        [expert.log_prob(torch.cat([c[i], at])[None])[0] for i, at in zip(order, y, strict=True)]
    )
    assert torch.allclose(together, alone, atol=1e-10, rtol=0)
    drawn = expert.sample_given(c[order], torch.Generator().manual_seed(0))
    shuffled = torch.cat([c[order], 10 + conditions(2, 50, seed=6)])  # no repeats to speak of
    again = expert.sample_given(shuffled, torch.Generator().manual_seed(0))
    assert drawn.shape == (8, 1)
    assert again.shape == (58, 1)


def test_bayes_rule_far_from_all_pairs_is_finite_and_has_derivatives():
    expert = fitted("nle", 2, 1)
    far = torch.tensor([[1e6, -1e6, 0.0], [0.0, 0.0, 1e9], [1e30, 0.0, -1e30]]).double()
    assert bool((expert.log_prob(far) < -10).all() & expert.log_prob(far).isfinite().all())
    assert bool(expert.sample_given(far[:, :2], torch.Generator().manual_seed(0)).isfinite().all())
    x = torch.tensor([[0.3, -0.2, 0.4], [0.3, -0.2, 0.4]]).double().requires_grad_()
    (gradient,) = torch.autograd.grad(expert.log_prob(x).sum(), x)
    assert torch.equal(gradient[0], gradient[1])
    step = 1e-6 * torch.eye(3).double()
    ahead, behind = (expert.log_prob(x.detach()[:1] + sign * step) for sign in (1, -1))
    slope = (ahead - behind) / 2e-6
    assert torch.allclose(gradient[0, 2:], slope[2:], rtol=1e-6)
    assert torch.allclose(gradient[0], slope, rtol=0.03)  # nodes move with the condition
