"""Mixtures as NumPyro distributions: values, gradients, draws, and NUTS with one as its prior."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import torch
from numpyro.distributions import biject_to
from numpyro.infer import MCMC, NUTS
from torch.distributions import constraints

import amfvi
from amfvi.constraints.constraints import Constraints
from amfvi.constraints.transform import UnconstrainingTransform
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.experts import GMM
from amfvi.mixture import Mixture


def mixture_with(constraints_by_name, names, spread=1.0, components=3):
    """A GMM over parameters with these constraints."""
    transform = UnconstrainingTransform(Constraints.parse(names, constraints_by_name))
    dim = transform.constraints.unconstrained_dim
    y = torch.randn(300, dim, generator=torch.Generator().manual_seed(0)).double()
    expert = GMM(max_components=components).fit(spread * y)
    return Mixture({"gmm": expert}, [1.0], transform=transform, names=names)


CORRELATION = tuple(f"L{i}{j}" for i in range(3) for j in range(3))
PRIORS = {
    "unconstrained": mixture_with({}, ("a", "b")),
    "scalars": mixture_with(
        {"a": constraints.positive, "c": (0, 1), "d": (None, 2), "e": (-1, None)},
        ("a", "b", "c", "d", "e"),
    ),
    "vectors": mixture_with(
        {
            ("p1", "p2", "p3"): constraints.simplex,
            "tau": constraints.positive,
            ("c1", "c2"): amfvi.ordered,
            CORRELATION: constraints.corr_cholesky,
        },
        ("tau", "p1", "p2", "p3", "c1", "c2", *CORRELATION),
    ),
}


@pytest.mark.parametrize("kind", PRIORS)
def test_values_and_gradients_are_torchs(kind):
    """Alone and in batches of any shape, compiled, mapped and differentiated."""
    prior = PRIORS[kind]
    distribution = amfvi.to_numpyro(prior)
    x = prior.sample((6,), torch.Generator().manual_seed(0)).requires_grad_()
    log_q = prior.log_prob(x)
    (slope,) = torch.autograd.grad(log_q.sum(), x)
    points, log_q = jnp.asarray(x.detach().numpy()), log_q.detach().numpy()
    assert np.allclose(distribution.log_prob(points), log_q)
    shaped = distribution.log_prob(points.reshape(2, 3, -1))
    assert np.allclose(shaped, log_q.reshape(2, 3))
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(distribution.log_prob)))(points)
    assert np.allclose(values, log_q)
    assert np.allclose(gradients, slope.numpy())


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.slow if kind == "vectors" else ()) for kind in PRIORS],
)
def test_its_support_is_mapped_as_by_torch(kind):
    """Points go there and back, are inside, and the Jacobian is that of finite differences."""
    prior = PRIORS[kind]
    support = amfvi.to_numpyro(prior).support
    bijection = biject_to(support)
    shape = bijection.inverse_shape((4, prior.dim))
    assert shape == (4, prior.constraints.unconstrained_dim)
    assert bijection.forward_shape(shape) == (4, prior.dim)
    y = jax.random.normal(jax.random.key(0), shape)
    x = bijection(y)
    assert bool(jnp.all(support(x)))
    assert bool(prior.constraints.contains(torch.tensor(np.array(x))).all())
    assert np.allclose(bijection.inv(x), y)
    assert not bool(jnp.any(support(x * jnp.nan)))
    free = [i for i, name in enumerate(prior.names) if name not in ("p3", *CORRELATION)]
    free += [i for i, name in enumerate(prior.names) if name in ("L10", "L20", "L21")]
    jacobian = jax.jacfwd(lambda point: bijection(point)[jnp.array(free)])
    expected = [jnp.linalg.slogdet(jacobian(point))[1] for point in y]
    assert np.allclose(bijection.log_abs_det_jacobian(y, x), jnp.array(expected))
    assert np.allclose(support.feasible_like(x), bijection(jnp.zeros(shape)))


def test_points_that_are_outside_or_not_finite_do_not_end_a_sampler():
    distribution = amfvi.to_numpyro(PRIORS["scalars"])
    inside = np.array([1.0, 0.0, 0.5, 0.0, 0.0])
    outside, infinite, nan = inside.copy(), inside.copy(), inside.copy()
    outside[2], infinite[1], nan[1] = 2.0, np.inf, np.nan
    values, gradients = jax.vmap(jax.value_and_grad(distribution.log_prob))(
        jnp.array([inside, outside, infinite, nan])
    )
    assert np.isfinite(values[0])
    assert values[1:3].tolist() == [-np.inf, -np.inf]
    assert bool(jnp.isnan(values[3]))
    assert not bool(jnp.any(gradients[1:]))


def test_draws_follow_the_key_and_the_density(goodness_of_fit):
    prior = PRIORS["unconstrained"]
    distribution = amfvi.to_numpyro(prior)
    key = jax.random.key(3)
    draws = distribution.sample(key, (20000,))
    assert bool((draws == jax.jit(lambda k: distribution.sample(k, (20000,)))(key)).all())
    mapped = jax.vmap(distribution.sample)(jax.random.split(key, 4))
    assert mapped.shape == (4, 2)
    assert len(np.unique(mapped)) == 8
    x = torch.tensor(np.array(draws))
    assert goodness_of_fit(x, prior.log_prob, ((-4, 4), (-4, 4))) > 2e-5


@pytest.mark.parametrize("kind", PRIORS)
def test_a_mixture_as_a_prior_of_a_model_handed_back(kind):
    """Constraints, values and gradients of a NumPyro model whose prior it is."""
    prior = PRIORS[kind]

    def model():
        theta = numpyro.sample("theta", amfvi.to_numpyro(prior))
        numpyro.sample("y", dist.Normal(theta.sum(), 0.5), obs=0.7)

    density = amfvi.from_numpyro(model)
    assert density.constraints == prior.constraints
    assert density.vectorized.calling_convention == "JAX, in batches, compiled"
    x = prior.sample((5,), torch.Generator().manual_seed(0))
    likelihood = torch.distributions.Normal(x.sum(dim=1), 0.5).log_prob(torch.tensor(0.7).double())
    assert torch.allclose(density.log_prob(x), prior.log_prob(x) + likelihood)
    unconstrained = UnconstrainedDensity(density)
    y, _ = density.transform.to_unconstrained(x)
    _, gradient = unconstrained.log_prob_and_gradient(y)
    steps = 1e-5 * torch.eye(y.shape[1]).double()
    differences = torch.stack(
        [(unconstrained.log_prob(y + h) - unconstrained.log_prob(y - h)) / 2e-5 for h in steps],
        dim=1,
    )
    assert torch.allclose(gradient, differences, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_nuts_with_a_mixture_as_prior_has_the_conjugate_answer():
    """A Gaussian prior, read from its curvature, and a Gaussian likelihood."""
    prior = mixture_with({}, ("a", "b"), spread=2.0, components=1)
    origin = torch.zeros(2).double()
    precision = -torch.autograd.functional.hessian(prior.log_prob, origin)
    slope = torch.autograd.functional.jacobian(prior.log_prob, origin)
    data = torch.tensor([1.5, -0.5]).double()
    mean = torch.linalg.solve(precision + 4 * torch.eye(2), slope + 4 * data).numpy()
    sd = torch.linalg.inv(precision + 4 * torch.eye(2)).diagonal().sqrt().numpy()

    def model():
        theta = numpyro.sample("theta", amfvi.to_numpyro(prior))
        numpyro.sample("y", dist.Normal(theta, 0.5).to_event(1), obs=data.numpy())

    mcmc = MCMC(NUTS(model), num_warmup=200, num_samples=800, progress_bar=False)
    mcmc.run(jax.random.key(0))
    draws = np.asarray(mcmc.get_samples()["theta"])
    assert np.abs((draws.mean(axis=0) - mean) / sd).max() < 0.2
    assert np.abs(draws.std(axis=0) / sd - 1).max() < 0.15


@pytest.mark.slow
def test_nuts_keeps_within_the_constraints():
    prior = mixture_with({"p": (0, 1)}, ("p", "q"), components=1)

    def model():
        p = numpyro.sample("theta", amfvi.to_numpyro(prior))[0]
        numpyro.sample("y", dist.BinomialProbs(p, 20), obs=20)

    mcmc = MCMC(NUTS(model), num_warmup=100, num_samples=200, progress_bar=False)
    mcmc.run(jax.random.key(0))
    p = np.asarray(mcmc.get_samples()["theta"])[:, 0]
    grid = np.linspace(1e-4, 1 - 1e-4, 2000)
    q = np.linspace(-4, 4, 41)
    points = np.column_stack([np.tile(grid, len(q)), np.repeat(q, len(grid))])
    weight = prior.log_prob(points).exp().reshape(len(q), -1).sum(dim=0).numpy() * grid**20
    assert 0 < p.min() < p.max() < 1
    assert p.mean() == pytest.approx(np.average(grid, weights=weight), abs=0.02)
