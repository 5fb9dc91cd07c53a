"""Priors of every kind give the same draws for the same seed, inside their constraints."""

from __future__ import annotations

import math

import numpy as np
import pyro.distributions as pyro
import pytest
import torch
from torch import distributions as td

import amfvi
from amfvi.constraints.constraints import Constraints
from amfvi.constraints.vectors import VectorConstraint
from amfvi.errors import InputError, UsageError
from amfvi.simulation.prior import Prior

pytestmark = pytest.mark.usefixtures("global_state_untouched")

LOW, HIGH = torch.tensor([0.0, -1.0]), torch.tensor([0.5, 2.0])
POSITIVE, FREE = ((0.0,) * 2, (math.inf,) * 2), ((-math.inf,) * 3, (math.inf,) * 3)

# name: prior, its constraints, whether it has a log density
PRIORS = {
    "gamma": (td.Gamma(2.0, torch.ones(2)), Constraints(*POSITIVE), True),
    "uniform": (td.Uniform(LOW, HIGH), Constraints((0.0, -1.0), (0.5, 2.0)), True),
    "one number": (td.Normal(0.0, 1.0), Constraints.unbounded(1), True),
    "independent": (td.Independent(td.Gamma(2.0, torch.ones(2)), 1), Constraints(*POSITIVE), True),
    "dirichlet": (
        td.Dirichlet(torch.full((3,), 0.3)),
        Constraints(*FREE, (VectorConstraint("simplex", 0, 3),)), True,
    ),
    "two dirichlets": (
        td.Dirichlet(torch.ones(2, 2)),
        Constraints((-math.inf,) * 4, (math.inf,) * 4,
                    (VectorConstraint("simplex", 0, 2), VectorConstraint("simplex", 2, 2))), True,
    ),
    "correlations": (
        td.LKJCholesky(2),
        Constraints((-math.inf,) * 4, (math.inf,) * 4, (VectorConstraint("corr_cholesky", 0, 4),)),
        True,
    ),
    "mixture": (
        td.MixtureSameFamily(td.Categorical(torch.ones(2)), td.Normal(torch.zeros(2), 1.0)),
        Constraints.unbounded(1), True,
    ),
    "single precision": (
        td.MultivariateNormal(torch.zeros(3), torch.eye(3)), Constraints.unbounded(3), True,
    ),
    "pyro": (pyro.Gamma(2.0, 1.0).expand([2]).to_event(1), Constraints(*POSITIVE), True),
    "numpy, n": (lambda n: np.random.normal(size=(n, 3)), Constraints.unbounded(3), False),
    "torch, n": (lambda n: torch.randn(n), Constraints.unbounded(1), False),
    "n, rng": (lambda n, rng: rng.normal(size=(n, 3)), Constraints.unbounded(3), False),
    "n, generator": (
        lambda n, generator: torch.randn(n, 3, generator=generator),
        Constraints.unbounded(3), False,
    ),
    "one draw": (lambda rng: rng.normal(size=3), Constraints.unbounded(3), False),
    "one global draw": (lambda: [np.random.rand(), 2 * np.random.rand()],
                        Constraints.unbounded(2), False),
}  # fmt: skip


@pytest.mark.parametrize("name", PRIORS)
def test_priors(name):
    distribution, constraints, has_log_prob = PRIORS[name]
    prior = Prior(distribution)
    assert prior.constraints == constraints
    assert prior.names == tuple(f"y{i}" for i in range(1, constraints.dim + 1))
    assert prior.reproducible
    y = prior.sample(1000, seed=1)
    assert y.shape == (1000, constraints.dim)
    assert y.dtype == torch.float64
    assert bool(constraints.contains(y).all())
    assert torch.equal(y, prior.sample(1000, seed=1))
    other = prior.sample(1000, seed=2)
    assert not torch.equal(y, other)
    varying = y.std(dim=0) > 0
    error = 6 * (2 * y.var(dim=0) / 1000).sqrt()
    assert bool(((y.mean(dim=0) - other.mean(dim=0)).abs()[varying] < error[varying]).all())
    assert len(torch.unique(y, dim=0)) > 950
    assert (prior.log_prob is not None) == has_log_prob
    if prior.log_prob is not None:
        values = prior.log_prob(y[:10])
        assert values.shape == (10,)
        assert values.dtype == torch.float64


def test_the_log_density_is_over_all_parameters():
    prior = Prior(td.Gamma(torch.tensor([2.0, 3.0]), 1.0))
    assert prior.log_prob is not None
    y = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    expected = -1.0 + (2 * math.log(2.0) - 2.0 - math.lgamma(3.0))
    assert abs(float(prior.log_prob(y)) - expected) < 1e-6


def test_a_fitted_mixture_is_a_prior_with_its_names():
    x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0)).double().exp()
    posterior = amfvi.fit(x, experts="gmm", folds=2, names=["a", "b"], constraints=[(0, None)] * 2)
    prior = Prior(posterior)
    assert prior.names == ("a", "b")
    assert prior.constraints == posterior.constraints
    assert torch.equal(prior.sample(50, seed=3), prior.sample(50, seed=3))
    assert prior.log_prob is not None
    y = prior.sample(5, seed=0)
    assert torch.allclose(prior.log_prob(y), posterior.log_prob(y))


def test_a_float32_draw_on_its_bound_is_moved_inside():
    """Rounding is mended, a point that is really outside is not."""
    low = np.float32(0.25)
    prior = Prior(
        lambda n: np.linspace(low, 1, n + 1, dtype=np.float32)[:n], constraints=[(low, 1)]
    )
    y = prior.sample(10, seed=0)
    assert float(y[0]) > 0.25
    assert abs(float(y[0]) - 0.25) < 1e-6
    with pytest.raises(InputError, match="not inside its bounds"):
        Prior(lambda n: np.linspace(0.2, 1, n + 1)[:n], constraints=[(low, 1)]).sample(10, 0)


def test_random_numbers_that_no_seed_reaches_are_noticed():
    assert not Prior(lambda n: np.random.default_rng().normal(size=n)).reproducible


@pytest.mark.parametrize(
    ("prior", "error", "message"),
    [
        (3, UsageError, "found int"),
        (td.Normal, UsageError, "not the class Normal"),
        (td.Poisson(torch.ones(2)), UsageError, "give constraints="),
        (lambda n: 1 / 0, InputError, "ZeroDivisionError"),
        (lambda n: None, InputError, "None"),
        (lambda n: np.zeros(2), InputError, r"5 draws have shape \(2,\)"),
        (lambda n: np.zeros((n, n)), InputError, "same number of parameters"),
    ],
)
def test_what_is_no_prior(prior, error, message):
    with pytest.raises(error, match=message):
        Prior(prior)


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (lambda n: np.full(n, np.nan), "NaN or infinity"),
        (lambda n: np.ones((n, 2)), "'y1' is constant"),
    ],
)
def test_draws_that_are_wrong(prior, message):
    with pytest.raises(InputError, match=message):
        Prior(prior).sample(10, seed=0)


def test_names_must_fit():
    with pytest.raises(UsageError, match="names must be 1 different ones, found a, b"):
        Prior(td.Normal(0.0, 1.0), names=["a", "b"])
