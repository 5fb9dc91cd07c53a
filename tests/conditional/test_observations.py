"""The posterior given many observations: near closed forms and quadrature, and honest errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, Uniform

import amfvi
from amfvi.errors import InputError, UsageError
from amfvi.targets.conditional import get

QUICK = {"folds": 2, "test_fraction": 0.0}


def observations(target, n, seed=3):
    generator = torch.Generator().manual_seed(seed)
    y = target.sample_prior(1, generator)
    return target.simulate(y.expand(n, -1), generator)


def exact_normal(target, c):
    """Mean and covariance of y given all rows of c, in closed form."""
    precision = target.matrix.T @ torch.linalg.inv(target.noise_covariance)
    identity = torch.eye(target.dim).double()
    covariance = torch.linalg.inv(
        identity / target.prior_variance + len(c) * precision @ target.matrix
    )
    return covariance @ precision @ c.sum(dim=0), covariance


@pytest.fixture(scope="module")
def linear():
    return amfvi.fit("linear3", n_draws=1000, experts="gmm", **QUICK)


def test_the_fit_of_a_linear_gaussian_is_near_its_closed_form(linear):
    c = observations(get("linear3"), 20)
    mean, covariance = exact_normal(get("linear3"), c)
    posterior = amfvi.fit(linear.given_all(c), experts="gmm", folds=2)
    assert posterior.diagnostics.verdict == amfvi.Verdict.TRUST
    assert "the product of 20 fitted conditional densities" in posterior.diagnostics.reasons[-1]
    draws = posterior.sample((5000,), torch.Generator().manual_seed(0))
    sd = covariance.diag().sqrt()
    assert ((draws.mean(dim=0) - mean).abs() / sd).max() < 0.5
    assert draws.std(dim=0) / sd == pytest.approx([1, 1, 1], abs=0.15)


@pytest.mark.parametrize("expert", ["gmm", "tmm"])
def test_bounded_parameters_by_quadrature(expert):
    """With a truth next to a bound, and tails of q that are heavier than the prior's."""
    target = get("gmix")
    fitted = amfvi.fit("gmix", n_draws=1000, experts=expert, **QUICK)
    c = observations(target, 10)
    cells = torch.linspace(-10, 10, 801).double()[1::2]
    points = torch.cartesian_prod(cells, cells)
    exact = sum(target.log_likelihood(row.expand(len(points), -1), points) for row in c)
    exact = (target.log_prior(points) + exact).log_softmax(dim=0)
    found = fitted.given_all(c).log_prob(points).log_softmax(dim=0)
    assert float((exact.exp() * (exact - found)).clamp(min=-50).sum()) < 0.3
    assert float(found.exp() @ (points[:, 0] < -9.9).double()) < 1e-3  # no spike at the bound


def test_one_observation_is_the_conditional_density(linear):
    y = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).double()
    c = torch.zeros(1, 4).double()
    density = linear.given_all(c)
    assert torch.allclose(density.log_prob(y), linear.log_prob(y, given=c))
    assert density.names == linear.names


def test_gradients_are_those_of_finite_differences(linear):
    density = linear.given_all(observations(get("linear3"), 4))
    y = torch.zeros(1, 3).double().requires_grad_()
    (gradient,) = torch.autograd.grad(density.log_prob(y).sum(), y)
    step = 1e-5 * torch.eye(3).double()
    numeric = (density.log_prob(step) - density.log_prob(-step)) / 2e-5
    assert torch.allclose(gradient[0], numeric, rtol=1e-4)


def test_it_falls_to_nothing_where_no_simulation_was(linear):
    density = linear.given_all(torch.zeros(30, 4))
    assert density.log_prob(torch.full((1, 3), 9.0).double()).tolist() == [-math.inf]


def test_where_the_prior_comes_from(linear, tmp_path):
    c, y = torch.zeros(3, 4).double(), torch.full((2, 3), 0.5).double()
    expected = linear.given_all(c).log_prob(y)
    loaded = amfvi.load(linear.save(tmp_path / "model"))
    with pytest.raises(UsageError, match="is not known: give prior="):
        loaded.given_all(c)
    normal = Normal(torch.zeros(3), 1.0)
    assert torch.allclose(loaded.given_all(c, prior=normal).log_prob(y), expected)
    by_function = linear.given_all(c, prior=lambda y: -0.5 * y.square().sum(dim=1))
    assert torch.allclose((by_function.log_prob(y) - expected).diff(), torch.zeros(1).double())
    with pytest.raises(UsageError, match="goes with a model fitted in this process"):
        loaded.given_all(c, prior=lambda y: -0.5 * y.square().sum(dim=1))


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (lambda n, rng: rng.normal(size=(n, 1)), "the prior was given by its draws alone"),
        (Uniform(-3.0, 3.0), None),
        (Normal(torch.tensor(0.0), 2.0), None),
    ],
)
def test_a_simulator_knows_its_prior(prior, message):
    simulator = amfvi.Simulator(lambda y, rng: y + 0.3 * rng.normal(size=np.shape(y)), prior)
    fitted = amfvi.fit(simulator.simulate(300), experts="gmm", **QUICK)
    c = np.full((4, 1), 0.5)
    if message is None:
        grid = torch.linspace(-2.9, 2.9, 100).double()[:, None]
        log_p = fitted.given_all(c).log_prob(grid)
        assert float(grid[log_p.argmax()]) == pytest.approx(0.5, abs=0.25)
        return
    with pytest.raises(UsageError, match=message):
        fitted.given_all(c)


def test_what_observations_and_priors_cannot_be(linear):
    with pytest.raises(UsageError, match="prior= is over 2 parameters, the fit over 3"):
        linear.given_all(torch.zeros(2, 4), prior=Normal(torch.zeros(2), 1.0))
    with pytest.raises(InputError, match="no condition is given"):
        linear.given_all(torch.zeros(0, 4))
    with pytest.raises(InputError, match=r"shape \(\.\.\., 4\), found"):
        linear.given_all(torch.zeros(2, 3))
