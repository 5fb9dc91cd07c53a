"""A conditional mixture in Pyro: its distribution at a condition, in models and as a guide."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Importance

import amfvi
from amfvi.errors import InputError, UsageError


@pytest.fixture(scope="module")
def model():
    """y | c ~ N(c/2, 1/2): y ~ N(0, 1) and c ~ N(y, 1)."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(800, 1, generator=generator).double()
    c = y + torch.randn(800, 1, generator=generator).double()
    return amfvi.fit(y, given=c, experts="gmm", folds=2)


def test_at_a_condition_it_is_the_mixture(model):
    conditional = amfvi.to_pyro(model)
    assert isinstance(conditional, dist.ConditionalDistribution)
    at = conditional.condition(torch.tensor([1.0]))
    y = torch.linspace(-1, 2, 7).double()[:, None]
    assert torch.equal(at.log_prob(y), model.given(1.0).log_prob(y))
    pyro.set_rng_seed(0)
    first = pyro.sample("y", at)
    pyro.set_rng_seed(0)
    assert torch.equal(pyro.sample("y", at), first)
    assert first.shape == (1,)


def test_as_a_guide_it_gives_the_posterior_of_its_simulator(model):
    """Importance sampling has the evidence, N(c; 0, 2), with nearly equal weights."""
    conditional = amfvi.to_pyro(model)

    def joint(c):
        y = pyro.sample("y", dist.Normal(torch.zeros(1).double(), 1.0).to_event(1))
        pyro.sample("c", dist.Normal(y, 1.0).to_event(1), obs=c)

    def guide(c):
        pyro.sample("y", conditional.condition(c))

    c = torch.tensor([0.8]).double()
    pyro.set_rng_seed(0)
    run = Importance(joint, guide, num_samples=300).run(c)
    exact = torch.distributions.Normal(0.0, 2**0.5).log_prob(c)
    assert float(run.get_log_normalizer()) == pytest.approx(float(exact), abs=0.05)
    assert float(run.get_ESS()) > 250


def test_what_is_no_condition_or_no_mixture(model):
    with pytest.raises(InputError, match="one condition of 1 numbers is expected, found 2"):
        amfvi.to_pyro(model).condition(torch.zeros(2, 1))
    with pytest.raises(UsageError, match="a mixture is expected, found int"):
        amfvi.to_pyro(3)
    pytest.importorskip("numpyro")
    with pytest.raises(UsageError, match=r"found ConditionalPosterior; give its .* given\(c\)"):
        amfvi.to_numpyro(model)
