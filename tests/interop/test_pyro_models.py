"""Pyro models with discrete sites: what is summed out, by hand and by Pyro itself."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS
from pyro.infer.mcmc.util import initialize_model
from pyro.ops.indexing import Vindex
from torch.distributions import constraints

import amfvi
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.errors import UsageError

GENERATOR = torch.Generator().manual_seed(0)
DATA = torch.cat([
    -2 + torch.randn(15, generator=GENERATOR, dtype=torch.float64),
    1.5 + 0.5 * torch.randn(25, generator=GENERATOR, dtype=torch.float64),
])  # fmt: skip
QUICK = {"experts": ["gmm", "tmm"], "folds": 2, "n_draws": 3000}


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def two_components(data):
    """Two normal components, of which each observation has one, and an unknown share."""
    share = pyro.sample("share", dist.Beta(number(2.0), 2.0))
    with pyro.plate("components", 2):
        mu = pyro.sample("mu", dist.Normal(number([-2.0, 2.0]), 1.0))
        sd = pyro.sample("sd", dist.LogNormal(number(0.0), 0.5))
    with pyro.plate("data", len(data)):
        z = pyro.sample("z", dist.Categorical(torch.stack([share, 1 - share])))
        pyro.sample("y", dist.Normal(mu[z], sd[z]), obs=data)


def by_hand(x, data):
    share, mu, sd = x[:, 0], x[:, 1:3], x[:, 3:]
    prior = (
        dist.Beta(number(2.0), 2.0).log_prob(share)
        + dist.Normal(number([-2.0, 2.0]), 1.0).log_prob(mu).sum(dim=1)
        + dist.LogNormal(number(0.0), 0.5).log_prob(sd).sum(dim=1)
    )
    each = [
        (share.log(), (1 - share).log())[k][:, None]
        + dist.Normal(mu[:, k, None], sd[:, k, None]).log_prob(data)
        for k in range(2)
    ]
    return prior + torch.logaddexp(*each).sum(dim=1)


def points_of(density, n=6):
    y = torch.randn(n, density.constraints.unconstrained_dim, generator=GENERATOR).double()
    return density.transform.from_unconstrained(y), y


def require_gradient(density, y):
    unconstrained = UnconstrainedDensity(density)
    _, gradient = unconstrained.log_prob_and_gradient(y)
    steps = 1e-5 * torch.eye(y.shape[1]).double()
    differences = torch.stack(
        [(unconstrained.log_prob(y + h) - unconstrained.log_prob(y - h)) / 2e-5 for h in steps],
        dim=1,
    )
    assert torch.allclose(gradient, differences, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("configured", [False, True])
def test_assignments_to_components_are_summed_out(configured):
    model = pyro.infer.config_enumerate(two_components) if configured else two_components
    density = amfvi.from_pyro(model, DATA)
    assert density.names == ("share", "mu[1]", "mu[2]", "sd[1]", "sd[2]")
    assert [v.dims for v in density.variables.each] == [(), ("components",), ("components",)]
    assert density.vectorized.calling_convention == "torch, point by point, by vmap"
    x, y = points_of(density)
    assert torch.allclose(density.log_prob(x), by_hand(x, DATA))
    require_gradient(density, y)
    _, potential, transforms, _ = initialize_model(model, (DATA,), max_plate_nesting=1)
    for point, unconstrained in zip(x, y, strict=True):
        parts = {"share": point[0], "mu": point[1:3], "sd": point[3:]}
        theirs = -potential({name: transforms[name](part) for name, part in parts.items()})
        ours = UnconstrainedDensity(density).log_prob(unconstrained[None])
        assert torch.allclose(ours, theirs)


def test_states_of_a_chain_are_summed_out():
    """A hidden Markov model, against the forward algorithm."""
    seen = number([0.1, 1.2, -0.3, 2.2])

    def model():
        with pyro.plate("states", 3):
            p = pyro.sample("p", dist.Dirichlet(torch.ones(3).double()))
            mu = pyro.sample("mu", dist.Normal(number(0.0), 2.0))
        z = 0
        for t in pyro.markov(range(len(seen))):
            z = pyro.sample(f"z{t}", dist.Categorical(Vindex(p)[z]))
            pyro.sample(f"y{t}", dist.Normal(mu[z], 1.0), obs=seen[t])

    density = amfvi.from_pyro(model)
    x, y = points_of(density, 4)
    for point in x:
        p, mu = point[:9].reshape(3, 3), point[9:]
        alpha = torch.tensor([1.0, 0.0, 0.0]).double()
        for value in seen:
            alpha = (alpha @ p) * dist.Normal(mu, 1.0).log_prob(value).exp()
        prior = dist.Dirichlet(torch.ones(3).double()).log_prob(p).sum()
        expected = alpha.sum().log() + prior + dist.Normal(number(0.0), 2.0).log_prob(mu).sum()
        assert torch.allclose(density.log_prob(point[None]), expected)
    require_gradient(density, y)


def test_every_finite_kind_is_summed_out_whatever_is_asked_for():
    """Nested plates, and a Binomial marked for enumeration in turn."""

    def model():
        p = pyro.sample("p", dist.Beta(number(2.0), 3.0))
        n = pyro.sample("n", dist.Binomial(3, number(0.5)), infer={"enumerate": "sequential"})
        with pyro.plate("rows", 2, dim=-2), pyro.plate("columns", 3, dim=-1):
            on = pyro.sample("on", dist.Bernoulli(p))
            pyro.sample("y", dist.Normal(on + n, 1.0), obs=torch.ones(2, 3).double())

    x = torch.linspace(0.1, 0.9, 5).double()[:, None]
    total = []
    for n in range(4):
        off, on = (dist.Normal(number(float(n + k)), 1.0).log_prob(number(1.0)) for k in (0, 1))
        one = torch.logaddexp(x[:, 0].log() + on, (1 - x[:, 0]).log() + off)
        total.append(dist.Binomial(3, number(0.5)).log_prob(number(float(n))) + 6 * one)
    expected = torch.stack(total).logsumexp(dim=0) + dist.Beta(number(2.0), 3.0).log_prob(x[:, 0])
    assert torch.allclose(amfvi.from_pyro(model).log_prob(x), expected)


def with_discrete(distribution):
    def model():
        pyro.sample("mu", dist.Normal(number(0.0), 1.0))
        pyro.sample("k", distribution)

    return model


def branching():
    pyro.sample("mu", dist.Normal(number(0.0), 1.0 if pyro.sample("k", dist.Bernoulli(0.5)) else 2))


def bounded_by_another():
    pyro.sample("u", dist.Uniform(0.0, pyro.sample("b", dist.LogNormal(number(0.0), 1.0))))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (with_discrete(dist.Poisson(3.0)), "site 'k' is discrete, and Poisson has too many"),
        (with_discrete(dist.Geometric(0.5)), "site 'k' is discrete, and Geometric has too many"),
        (with_discrete(dist.Bernoulli(torch.ones(3) / 2).to_event(1)),
         "put it in a pyro.plate instead of to_event"),
        (with_discrete(dist.Bernoulli(torch.ones(3) / 2)), "Pyro cannot sum out k"),
        (branching, "Pyro cannot sum out k"),
        (lambda: pyro.sample("k", dist.Bernoulli(0.5)), "no latent sites that are continuous"),
        (bounded_by_another, "the bounds of site 'u' depend on other sites"),
        (lambda: [pyro.sample(f"a{i}", dist.Normal(0.0, 1.0))
                  for i in range(1 + int(torch.randint(9, ())))],
         "the latent sites depend on random values"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_log_density(model, message):
    with pytest.raises(UsageError, match=message) as refused:
        amfvi.from_pyro(model)
    assert "\n" not in str(refused.value)


def test_improper_priors_of_every_shape_are_run():
    def model():
        pyro.sample("L", dist.ImproperUniform(constraints.corr_cholesky, (), (3, 3)))
        pyro.sample("p", dist.ImproperUniform(constraints.simplex, (), (4,)))

    held = amfvi.from_pyro(model).constraints
    assert [(v.kind, v.size) for v in held.vectors] == [("corr_cholesky", 9), ("simplex", 4)]


@pytest.mark.slow
def test_a_fit_to_a_mixture_model():
    """The log evidence, against importance sampling from the posterior by its own verdict."""
    density = amfvi.from_pyro(two_components, DATA)
    posterior = amfvi.fit(density, seed=0, **QUICK)
    direct = amfvi.LogDensity(
        lambda x: by_hand(x, DATA), 5, names=density.names, constraints=density.constraints
    )
    weighted = posterior.with_log_density(direct).weighted_draws(20000, seed=1)
    log_z = float(weighted.log_weights.logsumexp(dim=0)) - np.log(20000)
    assert posterior.diagnostics.log_z == pytest.approx(log_z, abs=0.02)


@pytest.mark.slow
def test_a_fit_has_the_moments_of_pyros_nuts():
    """Means within .15 of a standard deviation, and these within 15%."""
    pyro.set_rng_seed(0)
    mcmc = MCMC(
        NUTS(two_components, max_plate_nesting=1), num_samples=1500, warmup_steps=300,
        disable_progbar=True,
    )  # fmt: skip
    mcmc.run(DATA)
    samples = mcmc.get_samples()
    theirs = torch.cat([samples["share"][:, None], samples["mu"], samples["sd"]], dim=1)
    posterior = amfvi.fit(amfvi.from_pyro(two_components, DATA), seed=0, **QUICK)
    ours = posterior.sample((20000,), torch.Generator().manual_seed(0))
    spread = theirs.std(dim=0)
    assert float(((ours.mean(dim=0) - theirs.mean(dim=0)) / spread).abs().max()) < 0.15
    assert float((ours.std(dim=0) / spread - 1).abs().max()) < 0.15
