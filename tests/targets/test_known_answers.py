"""The harder posteriors: densities, draws, entropies and evidences against one another."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from amfvi.errors import InputError
from amfvi.targets import CANONICAL, TARGETS, ExactTarget, get

EXACT = [n for n, kind in TARGETS.items() if n not in CANONICAL and issubclass(kind, ExactTarget)]
UNSAMPLED = [name for name in TARGETS if name not in CANONICAL and name not in EXACT]


def drawn(name, n, seed=0):
    return get(name).sample(n, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", EXACT)
def test_the_density_handed_to_a_sampler_is_off_by_log_z(name):
    target, x = get(name), drawn(name, 500)
    off = target.log_density(x) - target.log_prob(x)
    assert torch.allclose(off, torch.tensor(target.log_z).double(), atol=1e-9)


@pytest.mark.parametrize("name", [n for n in EXACT if get(n).entropy is not None])
def test_entropy_is_the_mean_of_minus_log_p(name):
    terms = -get(name).log_prob(drawn(name, 100_000))
    assert float(terms.mean()) == pytest.approx(
        get(name).entropy, abs=5 * float(terms.std()) / len(terms) ** 0.5
    )


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("seed", [0, 1])
def test_draws_follow_the_density(name, seed):
    """Stein's identities E[∇ log p] = 0 and E[xᵢ ∂ᵢ log p] = −1, in standard errors."""
    x = drawn(name, 50_000, seed).requires_grad_()
    (score,) = torch.autograd.grad(get(name).log_prob(x).sum(), x)
    x = x.detach()
    for terms in (score, x * score + 1):
        z = terms.mean(dim=0) / terms.std(dim=0) * len(x) ** 0.5
        assert float(z.abs().max()) < 5


@pytest.mark.parametrize("name", EXACT)
def test_sampling_is_seeded_and_points_are_checked(name, global_state_untouched):
    assert torch.equal(drawn(name, 50, 3), drawn(name, 50, 3))
    with pytest.raises(InputError, match=r"points must have shape \(n, "):
        get(name).log_prob(torch.zeros(5, get(name).dim + 1))


def test_correlated_is_a_multivariate_normal():
    lags = np.abs(np.subtract.outer(np.arange(50), np.arange(50)))
    x = drawn("correlated", 20)
    expected = stats.multivariate_normal(cov=0.9**lags).logpdf(x.numpy())
    assert np.allclose(get("correlated").log_prob(x).numpy(), expected, atol=1e-9)


def test_student_t_is_a_multivariate_t():
    x = drawn("student_t", 20)
    expected = stats.multivariate_t(shape=np.eye(20), df=5).logpdf(x.numpy())
    assert np.allclose(get("student_t").log_prob(x).numpy(), expected, atol=1e-9)


def test_funnel_is_a_product_of_conditionals():
    x = drawn("funnel", 20).numpy()
    expected = stats.norm(0, 3).logpdf(x[:, 0])
    expected += stats.norm(0, np.exp(x[:, :1] / 2)).logpdf(x[:, 1:]).sum(axis=1)
    assert np.allclose(get("funnel").log_prob(torch.from_numpy(x)).numpy(), expected, atol=1e-9)


def test_evidence_of_the_many_well_by_another_quadrature():
    def well(a):
        return math.exp(-(a**4) + 6 * a**2 + 0.5 * a)

    one = math.log(integrate.quad(well, -5, 5, points=[-1.7, 0, 1.7])[0])
    expected = 16 * (one + 0.5 * math.log(2 * math.pi))
    assert get("many_well").log_z == pytest.approx(expected, abs=1e-6)


def test_forty_modes_are_forty():
    x = drawn("forty_modes", 8000)
    nearest = torch.cdist(x, get("forty_modes").centres).argmin(dim=1)
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
        ("eight_schools_centred", theta, stats.norm(mu, tau).logpdf(theta).sum()),
    ):
        point = torch.from_numpy(np.append(parameters, [mu, tau]))[None]
        assert float(get(name).log_density(point)) == pytest.approx(common + prior, abs=1e-9)


def test_evidence_of_the_eight_schools_by_quadrature_over_tau():
    """Given tau the effects are jointly normal: the rest of the integral is a formula."""
    effects = np.array([28, 8, -3, 7, -1, 1, 18, 12])
    variances = np.array([15, 10, 16, 11, 9, 11, 10, 18]) ** 2

    def given(log_tau):
        tau = math.exp(log_tau)
        marginal = stats.multivariate_normal(cov=np.diag(variances + tau**2) + 25)
        return tau * stats.halfcauchy(0, 5).pdf(tau) * math.exp(marginal.logpdf(effects) + 30)

    found, _ = integrate.quad(given, -30, 10, points=[0, 2], limit=200, epsabs=0)
    for name in ("eight_schools", "eight_schools_centred"):
        assert get(name).log_z == pytest.approx(math.log(found) - 30, abs=1e-6)


def test_those_without_exact_draws_say_so(cli):
    assert UNSAMPLED == ["eight_schools", "eight_schools_centred"]
    code, _, err = cli("fit", "--target", "eight_schools")
    assert (code, "has no exact draws; add --from density" in err) == (2, True)
