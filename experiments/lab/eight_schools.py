"""Eight schools (Rubin 1981) in five libraries, each with that library's own NUTS.

The non-centered model of posteriordb: μ ~ N(0, 5), τ ~ half-Cauchy(5), ηⱼ ~ N(0, 1), and effects
of N(μ + τηⱼ, σⱼ). Parameters are μ, τ, η₁ … η₈ in every library. Libraries are imported where they
are called.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import amfvi
from amfvi.density.log_density import LogDensity

__all__ = ["LIBRARIES", "Model"]

EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])

N_CHAINS = 4
WARMUP = 1000
DRAWS = 5000
"""Of each chain."""

TARGET_ACCEPT = 0.95
"""Acceptance rate that every NUTS adapts to: funnels want small steps."""

STAN = """
data { int J; vector[J] y; vector<lower=0>[J] sigma; }
parameters { real mu; real<lower=0> tau; vector[J] eta; }
model {
  mu ~ normal(0, 5);
  tau ~ cauchy(0, 5);
  eta ~ normal(0, 1);
  y ~ normal(mu + tau * eta, sigma);
}
"""
STAN_DATA = {"J": 8, "y": EFFECTS.tolist(), "sigma": ERRORS.tolist()}

Draws = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Model:
    """The model in one library.

    Attributes:
        density: its log density, by the library's bridge.
        nuts: draws (n, 10) of the library's own NUTS from a seed.
    """

    density: Callable[[], LogDensity]
    nuts: Callable[[int], Draws]


def _columns(draws: Any) -> Draws:
    parts = [np.asarray(draws[name], dtype=np.float64) for name in ("mu", "tau", "eta")]
    return np.column_stack([part.reshape(N_CHAINS * DRAWS, -1) for part in parts])


def _pymc_model() -> Any:
    import pymc as pm

    with pm.Model() as model:
        mu = pm.Normal("mu", 0, 5)
        tau = pm.HalfCauchy("tau", 5)
        eta = pm.Normal("eta", 0, 1, shape=8)
        pm.Normal("y", mu + tau * eta, ERRORS, observed=EFFECTS)
    return model


def _pymc_nuts(seed: int) -> Draws:
    import pymc as pm

    with _pymc_model(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trace = pm.sample(
            DRAWS, tune=WARMUP, chains=N_CHAINS, cores=1, random_seed=seed,
            target_accept=TARGET_ACCEPT, progressbar=False, compute_convergence_checks=False,
        )  # fmt: skip
    return _columns(trace.posterior)


def _numpyro_model() -> None:
    import numpyro
    import numpyro.distributions as dist

    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", 8):
        eta = numpyro.sample("eta", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mu + tau * eta, ERRORS), obs=EFFECTS)


def _run_numpyro(seed: int, *, model: Any = None, potential: Any = None, start: Any = None) -> Any:
    import jax
    from numpyro.infer import MCMC, NUTS

    kernel = NUTS(model, potential_fn=potential, target_accept_prob=TARGET_ACCEPT)
    mcmc = MCMC(
        kernel, num_warmup=WARMUP, num_samples=DRAWS, num_chains=N_CHAINS,
        chain_method="vectorized", progress_bar=False,
    )  # fmt: skip
    mcmc.run(jax.random.key(seed), init_params=start)
    return mcmc.get_samples()


def _jax_log_density(x: Any) -> Any:
    """Log density at one point (10,) of μ, τ, η, but for a constant."""
    import jax.numpy as jnp

    mu, tau, eta = x[0], x[1], x[2:]
    prior = -0.5 * (mu / 5) ** 2 - jnp.log1p((tau / 5) ** 2) - 0.5 * (eta**2).sum()
    return prior - 0.5 * (((EFFECTS - mu - tau * eta) / ERRORS) ** 2).sum()


def _jax_density() -> LogDensity:
    names = ["mu", "tau", *(f"eta[{j}]" for j in range(8))]
    return LogDensity(_jax_log_density, 10, names=names, constraints={"tau": "positive"})


def _jax_nuts(seed: int) -> Draws:
    import jax
    import jax.numpy as jnp

    def potential(y: Any) -> Any:
        return -_jax_log_density(y.at[1].set(jnp.exp(y[1]))) - y[1]

    start = jax.random.normal(jax.random.key(seed + 1), (N_CHAINS, 10))
    draws = np.array(_run_numpyro(seed, potential=potential, start=start))
    draws[:, 1] = np.exp(draws[:, 1])
    return draws


def _pyro_model() -> None:
    import pyro
    import pyro.distributions as dist
    import torch

    number = torch.tensor
    mu = pyro.sample("mu", dist.Normal(number(0.0).double(), 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(number(5.0).double()))
    with pyro.plate("schools", 8):
        eta = pyro.sample("eta", dist.Normal(number(0.0).double(), 1.0))
        mean = mu + tau * eta
        pyro.sample("y", dist.Normal(mean, number(ERRORS)), obs=number(EFFECTS))


def _pyro_nuts(seed: int) -> Draws:
    """A quarter of the draws of the others, from one chain: Pyro's NUTS is that much slower."""
    import pyro
    from pyro.infer import MCMC, NUTS

    pyro.set_rng_seed(seed)
    kernel = NUTS(
        _pyro_model, target_accept_prob=TARGET_ACCEPT, jit_compile=True, ignore_jit_warnings=True
    )
    mcmc = MCMC(kernel, num_samples=DRAWS, warmup_steps=WARMUP, disable_progbar=True)
    mcmc.run()
    samples = mcmc.get_samples()
    return np.column_stack([samples[name].numpy().reshape(DRAWS, -1)
                            for name in ("mu", "tau", "eta")])  # fmt: skip


def _stan_nuts(seed: int) -> Draws:
    import stan

    model = stan.build(STAN, data=STAN_DATA, random_seed=seed + 1)
    fit = model.sample(
        num_chains=N_CHAINS, num_warmup=WARMUP, num_samples=DRAWS, delta=TARGET_ACCEPT
    )
    return np.vstack([fit["mu"], fit["tau"], fit["eta"]]).T


LIBRARIES = {
    "PyMC": Model(density=lambda: amfvi.from_pymc(_pymc_model()), nuts=_pymc_nuts),
    "NumPyro": Model(
        density=lambda: amfvi.from_numpyro(_numpyro_model),
        nuts=lambda seed: _columns(_run_numpyro(seed, model=_numpyro_model)),
    ),
    "JAX": Model(density=_jax_density, nuts=_jax_nuts),
    "Pyro": Model(density=lambda: amfvi.from_pyro(_pyro_model), nuts=_pyro_nuts),
    "Stan": Model(density=lambda: amfvi.from_stan(STAN, data=STAN_DATA), nuts=_stan_nuts),
}
"""Each library by its name."""
