"""The No-U-Turn sampler beside ours keeps to its budget and finds what is easy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.distributions import constraints

from amfvi.constraints.constraints import Constraints
from experiments.lab.densities.bounded import bounded_densities
from experiments.lab.densities.gaussians import Gaussian
from experiments.lab.nuts import SHORTEST_WARMUP, constraining_transform, run_nuts

jax = pytest.importorskip("jax")
pytest.importorskip("numpyro")

pytestmark = pytest.mark.slow


def gaussian(mean=3.0):
    factor = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    location = torch.tensor([mean, -1.0], dtype=torch.float64)
    return Gaussian(mean=location, factor=factor).known("gaussian", "correlated")


@pytest.fixture(scope="module")
def easy():
    precision = jax.config.jax_enable_x64
    result = run_nuts(gaussian(), budget=20_000, seed=0)
    assert jax.config.jax_enable_x64 == precision
    return result


def test_it_keeps_to_its_budget(easy):
    assert 18_000 <= easy.n_gradients <= 22_000
    assert easy.warmup > 100 + SHORTEST_WARMUP
    assert 4 * easy.warmup + len(easy.draws) < easy.n_gradients  # an iteration has steps


def test_it_finds_a_gaussian(easy):
    assert easy.draws.dtype == torch.float64
    assert easy.mean_error < 0.1
    assert easy.sd_error < 0.1
    assert easy.quantile_error < 0.06


def test_its_draws_are_not_those_of_another_density(easy):
    assert gaussian(mean=4.0).moment_errors(easy.draws)[0] > 0.9
    assert gaussian(mean=4.0).quantile_error(easy.draws) > 0.2


def test_a_budget_below_the_first_warm_up_is_exceeded():
    density = replace(gaussian(), moments=False)
    result = run_nuts(density, budget=10, seed=0, chains=2)
    assert result.n_gradients > 200
    assert result.warmup == 100
    assert result.draws.shape == (2, 2)
    assert result.mean_error is None
    assert result.sd_error is None


def test_bounds_of_all_kinds_are_removed_with_their_jacobian():
    names = ("a", "b", "c", "d", "e")
    limits = Constraints.parse(
        names, [constraints.positive, (2.0, 5.0), constraints.less_than(-1.0), constraints.real,
                constraints.unit_interval],
    )  # fmt: skip
    with jax.enable_x64(True):
        to_constrained = constraining_transform(limits)
        for y in np.random.default_rng(0).normal(scale=3, size=(20, 5)):
            x, log_jacobian = to_constrained(y)
            jacobian = jax.jacfwd(lambda y: to_constrained(y)[0])(y)
            assert np.isclose(np.linalg.slogdet(jacobian)[1], log_jacobian, atol=1e-9)
            assert (np.array(x) > limits.lower).all()
            assert (np.array(x) < limits.upper).all()


def test_densities_that_it_cannot_sample_are_refused():
    with pytest.raises(ValueError, match="a version for jax, found none"):
        run_nuts(replace(gaussian(), jax_log_density=None), budget=1000, seed=0)
    on_simplex = replace(gaussian(), constraints={("x1", "x2"): constraints.simplex})
    with pytest.raises(ValueError, match="found a vector's"):
        run_nuts(on_simplex, budget=1000, seed=0)


def test_a_density_that_is_zero_around_the_origin_is_refused():
    far = next(d for d in bounded_densities() if d.name == "cut-at4-d3")
    with pytest.raises(ValueError, match="found 0 within 2 of the origin"):
        run_nuts(far, budget=1000, seed=0)
