"""Pyro and ArviZ, the real ones, in both directions."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch.distributions import constraints

import amfvi
from amfvi.errors import InputError, UsageError
from amfvi.targets import get

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import arviz

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
    assert density.support.lower == (-math.inf, 0.0, *[-math.inf] * 8)
    x = torch.randn(50, 10, generator=torch.Generator().manual_seed(0)).double()
    x[:, 1] = x[:, 1].exp()
    by_hand = get("eight_schools").log_density(torch.cat([x[:, 2:], x[:, :2]], dim=1))
    assert torch.allclose(density.log_prob(x), by_hand, atol=1e-9)
    assert density.vectorized.calling_convention == "torch, point by point, by vmap"
    assert density.vectorized.differentiable


def test_it_agrees_with_pyro_itself_in_unconstrained_space():
    from pyro.infer.mcmc.util import initialize_model

    from amfvi.density.unconstrained import UnconstrainedDensity

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
    support = density.support
    assert [(b.kind, b.start, b.size) for b in support.blocks] == [
        ("simplex", 0, 3), ("simplex", 3, 3), ("corr_cholesky", 8, 9),
    ]  # fmt: skip
    assert (support.lower[6:8], support.upper[6:8]) == ((0, 1), (1, 3))
    assert support.lower[17] == 0
    assert support.free == 4 + 2 + 3 + 1 + 2
    x = support.from_unconstrained(torch.zeros(3, support.free).double())
    assert bool(density.log_prob(x).isfinite().all())


def test_what_pyro_models_cannot_be():
    def discrete():
        pyro.sample("k", dist.Poisson(3.0))

    with pytest.raises(UsageError, match="site 'k' is discrete"):
        amfvi.from_pyro(discrete)
    with pytest.raises(UsageError, match="no latent sites"):
        amfvi.from_pyro(lambda: None)


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
    importance = pyro.infer.ImportanceEstimate(
        model, lambda: pyro.sample("mu", guide), num_samples=300
    ).run()
    log_z = torch.stack(importance.log_weights).logsumexp(dim=0) - math.log(300)
    assert float(log_z) == pytest.approx(exact, abs=0.05)
    assert guide.log_prob(torch.zeros(5, 1).double()).shape == (5,)


def test_a_mixture_as_a_prior():
    prior = amfvi.fit("bimodal", n_draws=2000, experts=["gmm"], folds=2, seed=0)
    distribution = amfvi.to_pyro(prior)
    trace = poutine.trace(lambda: pyro.sample("theta", distribution)).get_trace()
    value = trace.nodes["theta"]["value"]
    assert float(trace.log_prob_sum()) == pytest.approx(float(prior.log_prob(value)))
    with pytest.raises(UsageError, match="no batch shape"):
        distribution.expand((3,))


def inference_data():
    random = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        posterior = {"mu": random.normal(size=(4, 250)), "theta": random.normal(size=(4, 250, 3))}
        if int(arviz.__version__.split(".")[0]) >= 1:
            return posterior, arviz.from_dict({"posterior": posterior})
        return posterior, arviz.from_dict(posterior=posterior)


def test_arviz_data_in():
    arrays, data = inference_data()
    draws = amfvi.from_arviz(data)
    assert draws.names == ("mu", "theta[1]", "theta[2]", "theta[3]")
    assert draws.chain.tolist() == sorted([0, 1, 2, 3] * 250)
    assert np.array_equal(draws.values[250:500, 2].numpy(), arrays["theta"][1, :, 1])
    assert amfvi.from_arviz(data, names=["mu"]).dim == 1
    with pytest.raises(InputError, match="no variable 'nu'"):
        amfvi.from_arviz(data, names=["nu"])
    with pytest.raises(InputError, match="no group 'posterior' in dict"):
        amfvi.from_arviz({})


def test_arviz_data_out_is_resampled_by_weights():
    """A mixture that is off: draws come back from the posterior, not from the mixture."""
    density = amfvi.LogDensity(
        lambda x: -0.5 * (x - 1).square().sum(dim=1), 3, names=("mu", "theta[1]", "theta[2]")
    )
    draws = 1.5 * torch.randn(3000, 3, generator=torch.Generator().manual_seed(0)).double()
    wide = amfvi.fit(draws, names=density.names, experts=["gmm"], folds=2, seed=0)
    data = wide.to_arviz(2000, density=density)
    assert data.posterior["theta"].shape == (1, 2000, 2)
    assert float(data.posterior["mu"].mean()) == pytest.approx(1.0, abs=0.15)
    assert float(data.posterior["theta"].std()) == pytest.approx(1.0, abs=0.1)
    stats = data.sample_stats
    x = np.column_stack([data.posterior["mu"].values[0], data.posterior["theta"].values[0]])
    expected = -0.5 * np.square(x - 1).sum(axis=1)
    assert np.allclose(stats["lp"].values[0], expected, atol=1e-9)
    assert np.isfinite(stats["log_weight"].values).all()
    plain = wide.to_arviz(500)
    x = np.column_stack([plain.posterior["mu"].values[0], plain.posterior["theta"].values[0]])
    assert np.allclose(plain.sample_stats["lp"].values[0], wide.log_prob(x).numpy())
    back = amfvi.from_arviz(plain)
    assert back.names == density.names
