"""Pathfinder and ADVI find what a normal can be, miss what they cannot be, and count rightly."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.lab import variational
from experiments.lab.jax_density import CountedDensity, float64
from experiments.lab.variational import run_advi, run_pathfinder

jax = pytest.importorskip("jax", reason="needs JAX: the extra numpyro")
pathfinder = pytest.importorskip("blackjax.vi.pathfinder", reason="needs BlackJAX: the extra bench")

MEAN = np.array([3.0, -1.0])
SD = np.array([1.0, 2.0])
CORRELATION = 0.9
COVARIANCE = np.outer(SD, SD) * [[1, CORRELATION], [CORRELATION, 1]]
LOG_Z = np.log(2 * np.pi) + np.linalg.slogdet(COVARIANCE)[1] / 2


class Gaussian:
    """A correlated normal density, not normalized, zero below a bound of the first coordinate."""

    def __init__(self, covariance=COVARIANCE, above=-np.inf):
        self.precision, self.above = np.linalg.inv(covariance), above
        self.values, self.gradients = 0, 0

    def both(self, y):
        gradient = -(y - MEAN) @ self.precision
        value = ((y - MEAN) * gradient).sum(axis=1) / 2
        inside = y[:, 0] > self.above
        return np.where(inside, value, -np.inf), np.where(inside[:, None], gradient, 0.0)

    def log_density(self, y):
        self.values += len(y)
        return self.both(y)[0]

    def log_density_gradient(self, y):
        self.gradients += len(y)
        return self.both(y)


@pytest.fixture
def short(monkeypatch):
    """Fewer paths and steps than the benchmark's, enough for two parameters."""
    for name, value in {"PATHS": 4, "MAX_ITERATIONS": 30, "ADVI_STEPS": 1000,
                        "ADVI_RATES": (0.1,)}.items():  # fmt: skip
        monkeypatch.setattr(variational, name, value)


def check_right(found):
    assert np.abs((found.draws.mean(axis=0) - MEAN) / SD).max() < 0.06
    assert np.abs(found.draws.std(axis=0) / SD - 1).max() < 0.06
    assert np.corrcoef(found.draws.T)[0, 1] == pytest.approx(CORRELATION, abs=0.02)


@pytest.mark.slow
def test_pathfinder_finds_a_correlated_gaussian_and_counts_its_points(short):
    density = Gaussian()
    found = run_pathfinder(density, 2, n_draws=10_000, seed=0)
    check_right(found)
    assert found.draws.shape == (10_000, 2)
    assert found.elbo == pytest.approx(LOG_Z, abs=0.05)
    assert found.efficiency > 0.9
    assert (found.n_values, found.n_gradients) == (density.values, density.gradients)
    assert 10 < density.gradients < 1000


def test_full_rank_finds_it_and_mean_field_is_too_narrow(short):
    """The optimum of a diagonal covariance has the variances of the conditionals."""
    density = Gaussian()
    full = run_advi(density, 2, family="full-rank", n_draws=10_000, seed=0)
    check_right(full)
    assert full.elbo == pytest.approx(LOG_Z, abs=0.02)
    assert full.n_gradients == density.gradients == 2 * 1000 * variational.ADVI_DRAWS
    diagonal = run_advi(density, 2, family="mean-field", n_draws=10_000, seed=0)
    narrow = np.sqrt(1 - CORRELATION**2)
    assert np.abs(diagonal.draws.std(axis=0) / (narrow * SD) - 1).max() < 0.1
    assert abs(np.corrcoef(diagonal.draws.T)[0, 1]) < 0.05
    assert diagonal.elbo == pytest.approx(LOG_Z + np.log(narrow), abs=0.1)


def test_a_normal_lies_where_a_newton_step_leads():
    """Of a state away from the mode: BlackJAX's own mean would be twice as far away."""
    position = np.array([[1.0, 2.0]])
    state = pathfinder.PathfinderState(
        elbo=np.zeros(1), position=position, grad_position=np.array([[5.0, -7.0]]),
        alpha=(SD**2)[None], beta=np.zeros((1, 2, 4)), gamma=np.zeros((1, 4, 4)),
    )  # fmt: skip
    with float64():
        counted = CountedDensity(Gaussian(np.diag(SD**2)), 2)
        described = variational._describe(jax.random.key(0), state, 20_000)
        _, draws, log_q = variational._normals(state, described, counted)
    z = (draws[0] - MEAN) / SD
    assert np.abs(z.mean(axis=0)).max() < 0.03
    assert np.abs(z.std(axis=0) - 1).max() < 0.03
    exact = -(z**2).sum(axis=1) / 2 - np.log(2 * np.pi) - np.log(SD).sum()
    assert np.allclose(log_q[0], exact)


def test_jax_sees_values_and_gradients_through_every_transform():
    counted = CountedDensity(Gaussian(above=-2.0), 2)
    y = np.random.default_rng(0).normal(size=(3, 4, 2))
    y[0, 0, 0] = -5.0
    values, gradients = Gaussian(above=-2.0).both(y.reshape(-1, 2))
    before = jax.config.jax_enable_x64
    with float64():
        log_density = counted.for_jax()
        both = jax.jit(jax.vmap(jax.vmap(jax.value_and_grad(lambda p: 2 * log_density(p)))))(y)
        alone = jax.vmap(jax.vmap(log_density))(y)
    assert jax.config.jax_enable_x64 == before
    assert np.array_equal(np.ravel(both[0]), 2 * values)
    assert np.allclose(np.reshape(both[1], (-1, 2)), 2 * gradients, atol=1e-14)
    assert np.array_equal(np.ravel(alone), values)
    assert (counted.n_values, counted.n_gradients) == (12, 12)
    assert counted.value(np.array([np.nan, 0.0])) == -np.inf


def test_what_cannot_be_run_is_said(short):
    with pytest.raises(ValueError, match="a family of mean-field, full-rank, found 'diagonal'"):
        run_advi(Gaussian(), 2, family="diagonal", n_draws=5, seed=0)
    with pytest.raises(ValueError, match="expected 4 starts of positive density, found 0"):
        run_pathfinder(Gaussian(above=2.5), 2, n_draws=5, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_density_that_is_zero_somewhere_is_no_obstacle(short, seed):
    """Three standard deviations below the mean, where some of the draws and of the starts lie."""
    for run in (run_pathfinder, lambda *a, **k: run_advi(*a, family="full-rank", **k)):
        check_right(run(Gaussian(above=0.0), 2, n_draws=10_000, seed=seed))


@pytest.mark.slow
def test_a_seed_gives_the_same_draws_and_another_gives_others(short):
    first, again, other = (
        run_pathfinder(Gaussian(), 2, n_draws=100, seed=seed).draws for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
