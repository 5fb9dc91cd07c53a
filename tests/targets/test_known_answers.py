"""The harder targets: densities, draws, entropies and evidences against one another."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from amfvi.errors import InputError, UsageError
from amfvi.targets import (
    CANONICAL,
    TARGETS,
    Banana,
    Correlated,
    ExactTarget,
    Funnel,
    ManyWell,
    StudentT,
    get,
)

HARDER = [get(name) for name in TARGETS if name not in CANONICAL]
WITH_OTHER_PARAMETERS = [
    Banana(variance=0.5, curvature=-1.0),
    Correlated(dim=4, correlation=-0.5),
    Funnel(dim=3, sd=1.0),
    ManyWell(dim=4),
    StudentT(dim=3, df=7),
]
EXACT = [t for t in (*HARDER, *WITH_OTHER_PARAMETERS) if isinstance(t, ExactTarget)]
UNSAMPLED = [target.name for target in HARDER if not isinstance(target, ExactTarget)]


def sample(target, n, seed=0):
    return target.sample(n, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("target", EXACT, ids=repr)
def test_the_density_handed_to_a_sampler_is_off_by_log_z(target):
    x = sample(target, 500)
    off = target.log_density(x) - target.log_prob(x)
    assert torch.allclose(off, torch.tensor(target.log_z).double(), atol=1e-9)


@pytest.mark.parametrize("target", [t for t in EXACT if t.entropy is not None], ids=repr)
def test_entropy_is_the_mean_of_minus_log_p(target):
    terms = -target.log_prob(sample(target, 100_000))
    assert float(terms.mean()) == pytest.approx(
        target.entropy, abs=5 * float(terms.std()) / len(terms) ** 0.5
    )


@pytest.mark.parametrize("target", EXACT, ids=repr)
@pytest.mark.parametrize("seed", [0, 1])
def test_draws_follow_the_density(target, seed):
    """Stein's identities E[∇ log p] = 0 and E[xᵢ ∂ᵢ log p] = −1, in standard errors."""
    x = sample(target, 50_000, seed).requires_grad_()
    (score,) = torch.autograd.grad(target.log_prob(x).sum(), x)
    x = x.detach()
    for terms in (score, x * score + 1):
        z = terms.mean(dim=0) / terms.std(dim=0) * len(x) ** 0.5
        assert float(z.abs().max()) < 5


@pytest.mark.parametrize("target", [*map(get, CANONICAL), *EXACT], ids=repr)
def test_sampling_is_seeded_and_input_is_checked(target, global_state_untouched):
    draws = sample(target, 50, seed=3)
    assert (draws.dtype, draws.shape) == (torch.float64, (50, target.dim))
    assert torch.equal(draws, sample(target, 50, seed=3))
    assert not torch.equal(draws, sample(target, 50, seed=4))
    with pytest.raises(InputError, match=rf"\(n, {target.dim}\), found \(5, {target.dim + 1}\)"):
        target.log_prob(torch.zeros(5, target.dim + 1))
    with pytest.raises(InputError, match="must be positive, found 0"):
        target.sample(0, torch.Generator())


@pytest.mark.parametrize("name", TARGETS)
def test_targets_are_values(name):
    target = get(name)
    assert target.name == name
    assert target == TARGETS[name]()
    assert hash(target) == hash(TARGETS[name]())
    assert repr(target).startswith(f"<target {name}: d = {target.dim}")
    assert target.names is None or len(target.names) == target.dim
    with pytest.raises(FrozenInstanceError):
        target.dim = 3


@pytest.mark.parametrize("target", WITH_OTHER_PARAMETERS, ids=repr)
def test_parameters_tell_targets_apart(target):
    assert target != get(target.name)
    assert target.names is None or len(target.names) == target.dim
    assert len(target.view) in (0, 2)


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        (Banana, {"variance": 0.0}),
        (Correlated, {"correlation": 1.0}),
        (Funnel, {"dim": 1}),
        (Funnel, {"sd": -1.0}),
        (ManyWell, {"dim": 3}),
        (StudentT, {"df": 2.5}),
    ],
)
def test_impossible_parameters_are_refused(kind, parameters):
    with pytest.raises(UsageError, match=f"the target {kind.name} needs"):
        kind(**parameters)


def test_correlated_is_a_multivariate_normal():
    lags = np.abs(np.subtract.outer(np.arange(50), np.arange(50)))
    for correlation in (0.9, -0.3):
        target = Correlated(correlation=correlation)
        x = sample(target, 20)
        expected = stats.multivariate_normal(cov=correlation**lags).logpdf(x.numpy())
        assert np.allclose(target.log_prob(x).numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("target", [StudentT(), StudentT(dim=3, df=2)], ids=repr)
def test_student_t_is_a_multivariate_t(target):
    x = sample(target, 20)
    expected = stats.multivariate_t(shape=np.eye(target.dim), df=target.df).logpdf(x.numpy())
    assert np.allclose(target.log_prob(x).numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("target", [Funnel(), Funnel(dim=4, sd=1.5)], ids=repr)
def test_funnel_is_a_product_of_conditionals(target):
    x = sample(target, 20).numpy()
    expected = stats.norm(0, target.sd).logpdf(x[:, 0])
    expected += stats.norm(0, np.exp(x[:, :1] / 2)).logpdf(x[:, 1:]).sum(axis=1)
    assert np.allclose(target.log_prob(torch.from_numpy(x)).numpy(), expected, atol=1e-9)


def test_evidence_of_the_many_well_by_another_quadrature():
    def well(a):
        return math.exp(-(a**4) + 6 * a**2 + 0.5 * a)

    log_z = math.log(integrate.quad(well, -5, 5, points=[-1.7, 0, 1.7])[0])
    for n_wells in (16, 3):
        expected = n_wells * (log_z + 0.5 * math.log(2 * math.pi))
        assert ManyWell(dim=2 * n_wells).log_z == pytest.approx(expected, abs=1e-6)


def test_forty_modes_are_forty():
    x = sample(get("forty_modes"), 8000)
    nearest = torch.cdist(x, get("forty_modes").centers).argmin(dim=1)
    assert len(nearest.unique()) == 40


def test_evidence_of_the_regression_is_that_of_a_student_t():
    """The marginal of y is a multivariate t: a formula that shares nothing with the code's."""
    from amfvi.targets.linear_regression import SCALE, SHAPE, WIDTH, _data

    x, y = (part.numpy() for part in _data())
    scale = SCALE / SHAPE * (np.eye(len(y)) + WIDTH**2 * x @ x.T)
    expected = stats.multivariate_t(shape=scale, df=2 * SHAPE).logpdf(y)
    assert get("linear_regression").log_z == pytest.approx(expected, abs=1e-9)


def test_eight_schools_by_scipy():
    effects = np.array([28, 8, -3, 7, -1, 1, 18, 12])
    errors = np.array([15, 10, 16, 11, 9, 11, 10, 18])
    eta, mu, tau = np.linspace(-1, 1.5, 8), 4.0, 3.0
    theta = mu + tau * eta
    common = stats.norm(0, 5).logpdf(mu) + stats.halfcauchy(0, 5).logpdf(tau)
    common += stats.norm(theta, errors).logpdf(effects).sum()
    for name, parameters, prior in (
        ("eight_schools", eta, stats.norm(0, 1).logpdf(eta).sum()),
        ("eight_schools_centered", theta, stats.norm(mu, tau).logpdf(theta).sum()),
    ):
        point = torch.from_numpy(np.append(parameters, [mu, tau]))[None]
        assert float(get(name).log_density(point)) == pytest.approx(common + prior, abs=1e-9)


def test_evidence_of_the_eight_schools_by_quadrature_over_tau():
    """Given tau the effects are jointly normal: the rest of the integral is a formula."""
    effects = np.array([28, 8, -3, 7, -1, 1, 18, 12])
    variances = np.array([15, 10, 16, 11, 9, 11, 10, 18]) ** 2

    def integrand(log_tau):
        tau = math.exp(log_tau)
        marginal = stats.multivariate_normal(cov=np.diag(variances + tau**2) + 25)
        return tau * stats.halfcauchy(0, 5).pdf(tau) * math.exp(marginal.logpdf(effects) + 30)

    evidence, _ = integrate.quad(integrand, -30, 10, points=[0, 2], limit=200, epsabs=0)
    for name in ("eight_schools", "eight_schools_centered"):
        assert get(name).log_z == pytest.approx(math.log(evidence) - 30, abs=1e-6)


def test_those_without_exact_draws_say_so(cli):
    assert UNSAMPLED == ["eight_schools", "eight_schools_centered"]
    code, _, err = cli("fit", "--target", "eight_schools")
    assert (code, "has no exact draws" in err) == (2, True)
