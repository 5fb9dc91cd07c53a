"""Pyro, the real one, in both directions."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch.distributions import constraints

import amfvi
from amfvi.constraints.constraints import Constraints
from amfvi.constraints.transform import UnconstrainingTransform
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.errors import InputError, UsageError
from amfvi.experts import GMM
from amfvi.mixture import Mixture
from amfvi.targets import get

EFFECTS = torch.tensor([28.0, 8, -3, 7, -1, 1, 18, 12], dtype=torch.float64)
ERRORS = torch.tensor([15.0, 10, 16, 11, 9, 11, 10, 18], dtype=torch.float64)
QUICK = {"experts": ["gmm", "tmm"], "folds": 2, "n_draws": 3000}


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def eight_schools(errors, effects):
    mu = pyro.sample("mu", dist.Normal(number(0.0), 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(number(5.0)))
    with pyro.plate("schools", 8):
        eta = pyro.sample("eta", dist.Normal(number(0.0), 1.0))
        pyro.sample("y", dist.Normal(mu + tau * eta, errors), obs=effects)


def test_a_pyro_model_is_the_density_written_by_hand():
    density = amfvi.from_pyro(eight_schools, ERRORS, EFFECTS)
    assert density.names == ("mu", "tau", *(f"eta[{j}]" for j in range(1, 9)))
    assert density.constraints.lower == (-math.inf, 0.0, *[-math.inf] * 8)
    x = torch.randn(50, 10, generator=torch.Generator().manual_seed(0)).double()
    x[:, 1] = x[:, 1].exp()
    by_hand = get("eight_schools").log_density(torch.cat([x[:, 2:], x[:, :2]], dim=1))
    assert torch.allclose(density.log_prob(x), by_hand, atol=1e-9)
    assert density.vectorized.calling_convention == "torch, point by point, by vmap"
    assert density.vectorized.differentiable


def test_it_agrees_with_pyro_itself_in_unconstrained_space():
    from pyro.infer.mcmc.util import initialize_model

    density = amfvi.from_pyro(eight_schools, ERRORS, EFFECTS)
    _, potential, _, _ = initialize_model(eight_schools, (ERRORS, EFFECTS))
    y = torch.randn(5, 10, generator=torch.Generator().manual_seed(1)).double()
    expected = [-potential({"mu": p[0], "tau": p[1], "eta": p[2:]}) for p in y]
    assert torch.allclose(UnconstrainedDensity(density).log_prob(y), torch.stack(expected))


def test_constraints_of_every_kind_come_along():
    def model():
        pyro.sample("p", dist.Dirichlet(torch.ones(2, 3).double()).to_event(1))
        pyro.sample("u", dist.Uniform(number([0.0, 1.0]), number([1.0, 3.0])).to_event(1))
        pyro.sample("L", dist.LKJCholesky(3, number(1.0)))
        pyro.sample("rate", dist.ImproperUniform(constraints.positive, (), ()))
        pyro.sample("z", dist.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double()))

    density = amfvi.from_pyro(model)
    held = density.constraints
    assert [(v.kind, v.start, v.size) for v in held.vectors] == [
        ("simplex", 0, 3), ("simplex", 3, 3), ("corr_cholesky", 8, 9),
    ]  # fmt: skip
    assert (held.lower[6:8], held.upper[6:8]) == ((0, 1), (1, 3))
    assert held.lower[17] == 0
    assert held.unconstrained_dim == 4 + 2 + 3 + 1 + 2
    x = density.transform.from_unconstrained(torch.zeros(3, held.unconstrained_dim).double())
    assert bool(density.log_prob(x).isfinite().all())


def test_what_pyro_models_cannot_be():
    def discrete():
        pyro.sample("k", dist.Poisson(3.0))

    with pytest.raises(UsageError, match="site 'k' is discrete, and Poisson has too many values"):
        amfvi.from_pyro(discrete)
    with pytest.raises(UsageError, match="no latent sites"):
        amfvi.from_pyro(lambda: None)

    def covariance():
        pyro.sample("u", dist.ImproperUniform(constraints.positive_definite, (), (2, 2)))

    with pytest.raises(UsageError, match="site 'u': unsupported constraint"):
        amfvi.from_pyro(covariance)


@pytest.mark.parametrize("sequential", [False, True])
def test_a_plate_that_subsamples_is_refused(sequential):
    def model(subsample_size):
        mu = pyro.sample("mu", dist.Normal(number(0.0), 10.0))
        plate = pyro.plate("schools", 8, subsample_size=subsample_size)
        if sequential:
            for i in plate:
                pyro.sample(f"y_{i}", dist.Normal(mu, ERRORS[i]), obs=EFFECTS[i])
        else:
            with plate as rows:
                pyro.sample("y", dist.Normal(mu, ERRORS[rows]), obs=EFFECTS[rows])

    with pytest.raises(UsageError, match="plate 'schools' subsamples 3 of 8"):
        amfvi.from_pyro(model, 3)
    mu = torch.linspace(-5, 15, 7, dtype=torch.float64)[:, None]
    expected = dist.Normal(0.0, 10.0).log_prob(mu[:, 0]) + dist.Normal(mu, ERRORS).log_prob(
        EFFECTS
    ).sum(dim=1)
    for everything in (None, 8):
        density = amfvi.from_pyro(model, everything)
        assert torch.allclose(density.log_prob(mu), expected)


@pytest.mark.filterwarnings("ignore:the log density takes one point")
def test_a_random_model_is_refused():
    def model():
        mu = pyro.sample("mu", dist.Normal(number(0.0), 10.0))
        rows = torch.randint(8, (3,))
        pyro.sample("y", dist.Normal(mu, ERRORS[rows]).to_event(1), obs=EFFECTS[rows])

    with pytest.raises(InputError, match="the log density is random"):
        amfvi.from_pyro(model).log_prob(torch.zeros(1, 1).double())


def test_a_fit_to_a_pyro_model_and_back_as_a_guide():
    """Evidence of a conjugate model, by amfvi and by Pyro with the mixture as its guide."""
    data = number([0.3, -0.8, 1.9, 1.1])

    def model():
        mu = pyro.sample("mu", dist.Normal(number([0.0]), 2.0).to_event(1))
        with pyro.plate("data", 4):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=data)

    covariance = torch.eye(4).double() + 4.0
    exact = float(dist.MultivariateNormal(torch.zeros(4).double(), covariance).log_prob(data))
    posterior = amfvi.fit(amfvi.from_pyro(model), seed=0, **QUICK)
    assert posterior.diagnostics.log_z == pytest.approx(exact, abs=0.02)

    guide = amfvi.to_pyro(posterior)
    pyro.set_rng_seed(0)
    importance = pyro.infer.Importance(
        model, lambda: pyro.sample("mu", guide), num_samples=300
    ).run()
    log_z = torch.stack(importance.log_weights).logsumexp(dim=0) - math.log(300)
    assert float(log_z) == pytest.approx(exact, abs=0.05)
    assert guide.log_prob(torch.zeros(5, 1).double()).shape == (5,)


def mixture_with(constraints_by_name, names):
    """A GMM over parameters with these constraints."""
    transform = UnconstrainingTransform(Constraints.parse(names, constraints_by_name))
    dim = transform.constraints.unconstrained_dim
    y = torch.randn(300, dim, generator=torch.Generator().manual_seed(0)).double()
    return Mixture({"gmm": GMM().fit(y)}, [1.0], transform=transform, names=names)


PRIORS = {
    "unconstrained": mixture_with({}, ("a", "b")),
    "scalars": mixture_with({"a": constraints.positive, "c": (0, 1)}, ("a", "b", "c")),
    "vectors": mixture_with(
        {("p1", "p2", "p3"): constraints.simplex, "tau": constraints.positive},
        ("tau", "p1", "p2", "p3"),
    ),
}


@pytest.mark.parametrize("kind", PRIORS)
def test_a_mixture_as_a_prior_of_another_model(kind):
    """Constraints come along, and the density has the gradient of prior and likelihood."""
    prior = PRIORS[kind]

    def model():
        theta = pyro.sample("theta", amfvi.to_pyro(prior))
        pyro.sample("y", dist.Normal(theta.sum(), 0.5), obs=number(0.7))

    density = amfvi.from_pyro(model)
    assert density.constraints == prior.constraints
    x = prior.sample((5,), torch.Generator().manual_seed(0))
    likelihood = dist.Normal(x.sum(dim=1), 0.5).log_prob(number(0.7))
    assert torch.allclose(density.log_prob(x), prior.log_prob(x) + likelihood)
    assert density.vectorized.calling_convention == "torch, point by point, by vmap"
    unconstrained = UnconstrainedDensity(density)
    y, _ = density.transform.to_unconstrained(x)
    _, gradient = unconstrained.log_prob_and_gradient(y)
    steps = 1e-5 * torch.eye(y.shape[1]).double()
    differences = torch.stack(
        [(unconstrained.log_prob(y + h) - unconstrained.log_prob(y - h)) / 2e-5 for h in steps],
        dim=1,
    )
    assert torch.allclose(gradient, differences, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["unconstrained", "scalars"])
def test_nuts_sees_the_gradient_of_a_prior_that_is_a_mixture(kind):
    from pyro.infer.mcmc.util import initialize_model

    prior = PRIORS[kind]

    def model():
        theta = pyro.sample("theta", amfvi.to_pyro(prior))
        pyro.sample("y", dist.Normal(theta.sum(), 0.5), obs=number(0.7))

    _, potential, _, _ = initialize_model(model)
    y = torch.randn(prior.dim, generator=torch.Generator().manual_seed(1)).double()
    theirs = y.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(-potential({"theta": theirs}), theirs)
    _, ours = UnconstrainedDensity(amfvi.from_pyro(model)).log_prob_and_gradient(y[None])
    assert torch.allclose(gradient, ours[0], atol=1e-8)


@pytest.mark.parametrize("kind", PRIORS)
def test_a_mixture_as_a_pyro_distribution(kind):
    prior = PRIORS[kind]
    distribution = amfvi.to_pyro(prior)
    pyro.set_rng_seed(3)
    trace = poutine.trace(lambda: pyro.sample("theta", distribution)).get_trace()
    value = trace.nodes["theta"]["value"]
    assert float(trace.log_prob_sum()) == pytest.approx(float(prior.log_prob(value)))
    assert bool(distribution.support.check(value).all())
    pyro.set_rng_seed(3)
    assert torch.equal(distribution.sample(), value)
    with pytest.raises(UsageError, match="no batch shape"):
        distribution.expand((3,))


@pytest.mark.parametrize("kind", PRIORS)
def test_a_prior_that_is_a_mixture_and_a_likelihood_by_hand(kind):
    """The gradient is that of both."""
    prior = PRIORS[kind]
    density = amfvi.LogDensity(
        lambda x: prior.log_prob(x) - x.square().sum(dim=-1),
        prior.dim, names=prior.names, constraints=prior.constraints,
    )  # fmt: skip
    unconstrained = UnconstrainedDensity(density)
    y, _ = density.transform.to_unconstrained(prior.sample((3,), torch.Generator().manual_seed(0)))
    _, gradient = unconstrained.log_prob_and_gradient(y)
    steps = 1e-5 * torch.eye(y.shape[1]).double()
    differences = torch.stack(
        [(unconstrained.log_prob(y + h) - unconstrained.log_prob(y - h)) / 2e-5 for h in steps],
        dim=1,
    )
    assert torch.allclose(gradient, differences, rtol=1e-5, atol=1e-5)
