"""Data in two parts: the first posterior is the prior of the second, and evidences add up."""

from __future__ import annotations

import numpy as np
import numpyro
import numpyro.distributions as numpyro_dist
import pyro
import pyro.distributions as pyro_dist
import pytest
import torch
from scipy import stats

import amfvi

DATA = np.round(2 + 1.5 * np.random.default_rng(0).normal(size=16), 2)
HALVES = DATA[::2], DATA[1::2]
QUICK = {"experts": ["gmm", "tmm"], "folds": 2, "n_draws": 3000}


def exact_evidence():
    """Of a normal with unknown mean and positive standard deviation, on a grid."""
    mu, sd = np.meshgrid(np.linspace(-6, 10, 1200), np.linspace(1e-3, 12, 1500), indexing="ij")
    log_p = stats.norm.logpdf(mu, 0, 3) + stats.halfnorm.logpdf(sd, scale=2)
    log_p += sum(stats.norm.logpdf(y, mu, sd) for y in DATA)
    cell = (mu[1, 0] - mu[0, 0]) * (sd[0, 1] - sd[0, 0])
    return float(log_p.max() + np.log(np.exp(log_p - log_p.max()).sum() * cell))


def pyro_whole(data):
    mu = pyro.sample("mu", pyro_dist.Normal(torch.tensor(0.0).double(), 3.0))
    sd = pyro.sample("sd", pyro_dist.HalfNormal(torch.tensor(2.0).double()))
    with pyro.plate("data", len(data)):
        pyro.sample("y", pyro_dist.Normal(mu, sd), obs=torch.from_numpy(data))


def pyro_again(prior, data):
    theta = pyro.sample("theta", amfvi.to_pyro(prior))
    with pyro.plate("data", len(data)):
        pyro.sample("y", pyro_dist.Normal(theta[0], theta[1]), obs=torch.from_numpy(data))


def numpyro_whole(data):
    mu = numpyro.sample("mu", numpyro_dist.Normal(0.0, 3.0))
    sd = numpyro.sample("sd", numpyro_dist.HalfNormal(2.0))
    with numpyro.plate("data", len(data)):
        numpyro.sample("y", numpyro_dist.Normal(mu, sd), obs=data)


def numpyro_again(prior, data):
    theta = numpyro.sample("theta", prior.to_numpyro())
    with numpyro.plate("data", len(data)):
        numpyro.sample("y", numpyro_dist.Normal(theta[0], theta[1]), obs=data)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("read", "whole", "again"),
    [
        (amfvi.from_pyro, pyro_whole, pyro_again),
        (amfvi.from_numpyro, numpyro_whole, numpyro_again),
    ],
    ids=["pyro", "numpyro"],
)
def test_evidences_of_two_halves_add_up(read, whole, again):
    first = amfvi.fit(read(whole, HALVES[0]), seed=0, **QUICK)
    second = amfvi.fit(read(again, first, HALVES[1]), seed=1, **QUICK)
    assert second.constraints == first.constraints
    total = first.diagnostics.log_z + second.diagnostics.log_z
    assert total == pytest.approx(exact_evidence(), abs=0.02)


@pytest.mark.slow
def test_halves_that_disagree_ask_more_of_the_first_fit():
    """Means of 2.5 and .7: the second half looks at what the first fit has in its tails.

    The first evidence is right, and the error of the second is that of the tails: .17 nats
    from 3000 draws, .05 from 10000.
    """
    early, late = DATA[:8], DATA[8:]
    first = amfvi.fit(amfvi.from_pyro(pyro_whole, early), seed=0, **{**QUICK, "n_draws": 10000})
    second = amfvi.fit(amfvi.from_pyro(pyro_again, first, late), seed=1, **QUICK)
    total = first.diagnostics.log_z + second.diagnostics.log_z
    assert total == pytest.approx(exact_evidence(), abs=0.1)
