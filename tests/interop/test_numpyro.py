"""NumPyro models as log densities, by the real library."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import torch
from numpyro.distributions import constraints
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import potential_energy

import amfvi
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.errors import InputError, UsageError
from amfvi.interop.numpyro import deterministic
from amfvi.targets import get

EFFECTS = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
ERRORS = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
QUICK = {"experts": ["gmm", "tmm"], "folds": 2, "n_draws": 3000}


def eight_schools(errors, effects=None):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", len(errors)):
        eta = numpyro.sample("eta", dist.Normal(0.0, 1.0))
        theta = numpyro.deterministic("theta", mu + tau * eta)
        numpyro.sample("y", dist.Normal(theta, errors), obs=effects)


def points_of(density, n=6, seed=0):
    """Points (n, d) inside the constraints, and the unconstrained ones (n, m)."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randn(n, density.constraints.unconstrained_dim, generator=generator).double()
    return density.transform.from_unconstrained(y), y


def differences(density, y, step=1e-5):
    """Finite differences (n, m) of an unconstrained density."""
    steps = step * torch.eye(y.shape[1]).double()
    return torch.stack(
        [(density.log_prob(y + h) - density.log_prob(y - h)) / (2 * step) for h in steps], dim=1
    )


def test_a_numpyro_model_is_the_density_written_by_hand():
    """Compiled, in batches, with JAX's gradient; the plate names the dimension."""
    density = amfvi.from_numpyro(eight_schools, ERRORS, effects=EFFECTS)
    assert density.names == ("mu", "tau", *(f"eta[{j}]" for j in range(1, 9)))
    assert [v.dims for v in density.variables.each] == [(), (), ("schools",)]
    assert density.constraints.lower == (-math.inf, 0.0, *[-math.inf] * 8)
    x, y = points_of(density)
    by_hand = get("eight_schools").log_density(torch.cat([x[:, 2:], x[:, :2]], dim=1))
    assert torch.allclose(density.log_prob(x), by_hand, atol=1e-9)
    assert density.vectorized.calling_convention == "JAX, in batches, compiled"
    unconstrained = UnconstrainedDensity(density)
    value, gradient = unconstrained.log_prob_and_gradient(y)
    assert torch.allclose(gradient, differences(unconstrained, y), rtol=1e-5, atol=1e-5)
    theirs = [
        -potential_energy(
            eight_schools, (ERRORS, EFFECTS), {}, {"mu": p[0], "tau": p[1], "eta": p[2:]}
        )
        for p in jnp.asarray(y.numpy())
    ]
    assert value.tolist() == pytest.approx([float(each) for each in theirs], abs=1e-9)


@pytest.mark.slow
def test_constraints_of_every_kind_come_along():
    def model():
        with numpyro.plate("rows", 2):
            numpyro.sample("p", dist.Dirichlet(jnp.ones(3)))
        numpyro.sample("u", dist.Uniform(jnp.array([0.0, 1.0]), jnp.array([1.0, 3.0])).to_event(1))
        numpyro.sample("L", dist.LKJCholesky(3, 1.0))
        numpyro.sample("rate", dist.ImproperUniform(constraints.positive, (), ()))
        numpyro.sample("cut", dist.ImproperUniform(constraints.ordered_vector, (), (3,)))
        numpyro.sample("low", dist.TruncatedNormal(high=-1.0))
        numpyro.sample("z", dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)))
        numpyro.sample("share", dist.Beta(2.0, 3.0))
        halves = constraints.cat([constraints.real, constraints.positive], 0, [1, 2])
        numpyro.sample("both", dist.ImproperUniform(halves, (), (3,)))
        numpyro.factor("fit", 0.0)

    density = amfvi.from_numpyro(model)
    held = density.constraints
    assert [(v.kind, v.start, v.size) for v in held.vectors] == [
        ("simplex", 0, 3), ("simplex", 3, 3), ("corr_cholesky", 8, 9), ("ordered", 18, 3),
    ]  # fmt: skip
    bounds = dict(zip(density.names, zip(held.lower, held.upper, strict=True), strict=True))
    expected = {
        "u[1]": (0, 1), "u[2]": (1, 3), "rate": (0, math.inf), "low": (-math.inf, -1),
        "z[1]": (-math.inf, math.inf), "share": (0, 1),
        "both[1]": (-math.inf, math.inf), "both[2]": (0, math.inf), "both[3]": (0, math.inf),
    }  # fmt: skip
    assert {name: bounds[name] for name in expected} == expected
    assert density.variables.each[0].dims == ("rows", "p_dim_1")
    _, y = points_of(density, n=2)
    unconstrained = UnconstrainedDensity(density)
    value, gradient = unconstrained.log_prob_and_gradient(y)
    assert bool(value.isfinite().all())
    assert torch.allclose(gradient, differences(unconstrained, y), rtol=1e-4, atol=1e-4)


def single(distribution):
    return lambda: numpyro.sample("u", distribution)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: None, "no latent sites"),
        (single(dist.Poisson(3.0)), "site 'u' is discrete; marginalize it"),
        (single(dist.Bernoulli(0.5)), "site 'u' is discrete; marginalize it"),
        (single(dist.ImproperUniform(constraints.positive_definite, (), (2, 2))),
         "site 'u': unsupported constraint"),
        (lambda: numpyro.sample("u", dist.Uniform(0.0, numpyro.sample("b", dist.LogNormal()))),
         "the bounds of site 'u' depend on other sites"),
    ],
)  # fmt: skip
def test_what_numpyro_models_cannot_be(model, message):
    with pytest.raises(UsageError, match=message) as refused:
        amfvi.from_numpyro(model)
    assert "\n" not in str(refused.value)


def test_a_plate_that_subsamples_is_refused():
    def model(subsample_size):
        mu = numpyro.sample("mu", dist.Normal(0.0, 10.0))
        with numpyro.plate("schools", 8, subsample_size=subsample_size) as rows:
            numpyro.sample("y", dist.Normal(mu, ERRORS[rows]), obs=EFFECTS[rows])

    with pytest.raises(UsageError, match="plate 'schools' subsamples 3 of 8"):
        amfvi.from_numpyro(model, 3)
    assert amfvi.from_numpyro(model, 8).names == ("mu",)


def test_deterministic_sites_are_computed_for_draws():
    x = np.random.default_rng(0).normal(size=(5, 10))
    sites = deterministic(eight_schools, torch.from_numpy(x), ERRORS, EFFECTS)
    assert set(sites) == {"theta"}
    assert np.allclose(sites["theta"], x[:, :1] + x[:, 1:2] * x[:, 2:])
    with pytest.raises(InputError, match=r"\(n, 10\) of mu, tau, eta, found \(5, 9\)"):
        deterministic(eight_schools, x[:, 1:], ERRORS, EFFECTS)


@pytest.mark.slow
def test_evidence_of_a_conjugate_model():
    data = np.array([0.3, -0.8, 1.9, 1.1])

    def model():
        mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
        with numpyro.plate("data", 4):
            numpyro.sample("y", dist.Normal(mu, 1.0), obs=data)

    exact = dist.MultivariateNormal(jnp.zeros(4), jnp.eye(4) + 4.0).log_prob(data)
    posterior = amfvi.fit(amfvi.from_numpyro(model), seed=0, **QUICK)
    assert posterior.diagnostics.log_z == pytest.approx(float(exact), abs=0.02)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fit_has_the_moments_of_numpyros_nuts():
    """Eight schools: means within a tenth of a standard deviation, these within a tenth."""
    posterior = amfvi.fit(amfvi.from_numpyro(eight_schools, ERRORS, EFFECTS), seed=0, **QUICK)
    mcmc = MCMC(
        NUTS(eight_schools, target_accept_prob=0.95), num_warmup=1000, num_samples=20000,
        progress_bar=False,
    )  # fmt: skip
    mcmc.run(jax.random.key(0), ERRORS, EFFECTS)
    samples = mcmc.get_samples()
    theirs = np.column_stack([samples["mu"], np.log(samples["tau"]), samples["eta"]])
    ours = posterior.corrected_draws(20000, seed=0).numpy().copy()
    ours[:, 1] = np.log(ours[:, 1])  # tau has a Cauchy tail
    spread = theirs.std(axis=0)
    assert np.abs((ours.mean(axis=0) - theirs.mean(axis=0)) / spread).max() < 0.1
    assert np.abs(ours.std(axis=0) / spread - 1).max() < 0.1
