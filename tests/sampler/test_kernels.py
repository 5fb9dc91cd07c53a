"""Kernels leave their density alone, and move."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch.distributions import MultivariateNormal

from amfvi.density.log_density import LogDensity
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.experts import GMM
from amfvi.sampler import kernels
from amfvi.sampler.factors import factorize
from amfvi.sampler.reference import ReferenceDistribution
from amfvi.sampler.schedule import build_kernels
from amfvi.sampler.tempered_path import TemperedPath

pytestmark = pytest.mark.usefixtures("global_state_untouched")


def moved_from_exact(make, generator, beta=0.4, rounds=4):
    """Exact draws of π_β between two Gaussians, and where a kernel takes them."""
    start = MultivariateNormal(torch.zeros(2).double(), 4 * torch.eye(2).double())
    covariance = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    posterior = MultivariateNormal(torch.tensor([1.0, -1.0]).double(), covariance)
    precision = (1 - beta) * start.precision_matrix + beta * posterior.precision_matrix
    mean = torch.linalg.solve(precision, beta * posterior.precision_matrix @ posterior.mean)
    between = MultivariateNormal(mean, precision_matrix=precision)
    path = TemperedPath(
        reference=ReferenceDistribution(
            log_prob=start.log_prob,
            sample=lambda n, g: 2 * torch.randn(n, 2, generator=g).double(),
            differentiable=True,
            description="a Gaussian",
        ),
        density=UnconstrainedDensity(LogDensity(posterior.log_prob, 2)),
        use_gradients=True,
    )
    noise = torch.randn(20_000, 2, generator=generator, dtype=torch.float64)
    exact = mean + noise @ torch.linalg.cholesky(between.covariance_matrix).T
    kernel, particles = make(exact[:2000]), path.evaluate(exact)
    for _ in range(rounds):
        particles = kernel(path, particles, beta, generator)
        kernel.step = min(max(kernel.step, 0.3), 2.0)
    return between, exact, particles, kernel


KERNELS = {
    "random walk": lambda pool: kernels.RandomWalk(torch.eye(2).double()),
    "differential evolution": kernels.DifferentialEvolution,
    "subspace differential evolution": kernels.SubspaceDE,
    "MALA": lambda pool: kernels.Hamiltonian(torch.tensor([[1.0, 0], [0.5, 0.7]]).double(), None),
    "Hamiltonian": lambda pool: kernels.Hamiltonian(torch.eye(2).double(), 1.5),
    "independence": lambda pool: kernels.Independence(GMM(max_components=3).fit(1.3 * pool)),
    "from the reference": lambda pool: kernels.IndependenceFromReference(),
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_leave_their_density_alone_and_do_move(name, seed, seeded):
    between, exact, after, kernel = moved_from_exact(KERNELS[name], seeded(seed))
    assert 0.05 < kernel.acceptance < 1
    assert float((after.y != exact).any(dim=1).double().mean()) > 0.3
    scores = torch.linalg.solve_triangular(
        torch.linalg.cholesky(between.covariance_matrix), (after.y - between.mean).T, upper=False
    )
    radius = scores.square().sum(dim=0).numpy()
    assert stats.kstest(radius, stats.chi2(2).cdf).pvalue > 1e-4
    assert stats.kstest(scores[0].numpy(), "norm").pvalue > 1e-4
    assert stats.kstest(scores[1].numpy(), "norm").pvalue > 1e-4


def test_a_drift_by_another_density_is_no_bias(seeded):
    """A reference without gradients leaves the drift to the posterior's, and stays exact."""
    posterior = MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    path = TemperedPath(
        reference=ReferenceDistribution(
            log_prob=lambda y: posterior.log_prob(y - 0.5),
            sample=lambda n, g: torch.zeros(n, 2).double(),
            differentiable=False,
            description="a Gaussian",
        ),
        density=UnconstrainedDensity(LogDensity(posterior.log_prob, 2)),
        use_gradients=True,
    )
    exact = 0.25 + torch.randn(20_000, 2, generator=seeded(0), dtype=torch.float64)
    particles, kernel = path.evaluate(exact), kernels.Hamiltonian(torch.eye(2).double(), None)
    generator = seeded(1)
    for _ in range(5):
        particles = kernel(path, particles, 0.5, generator)
    assert stats.kstest(particles.y[:, 0].numpy() - 0.25, "norm").pvalue > 1e-4


@pytest.mark.parametrize("scale", [1e-160, 1.0, 1e160])
def test_kernels_are_built_for_particles_of_any_scale(scale, unconstrained, seeded):
    """Squares of a very heavy tail overflow, and those of a spike underflow."""
    y = scale * torch.randn(400, 2, generator=seeded(0), dtype=torch.float64).tan()
    flat = LogDensity(lambda x: -(x / scale).abs().log1p().sum(dim=1), 2)
    path = TemperedPath(
        reference=ReferenceDistribution(
            log_prob=lambda y: y.new_zeros(len(y)),
            sample=lambda n, g: y[:n],
            differentiable=False,
            description="those points",
            near_posterior=True,
        ),
        density=UnconstrainedDensity(flat),
        use_gradients=True,
    )
    particles = path.evaluate(y)
    built = build_kernels(path, particles, torch.ones(400).double(), 0.5, {}, {}, seeded(1))
    factor = built["hamiltonian"].factor
    assert bool(factor.isfinite().all())
    assert 0.1 < float(factor[0, 0]) / scale < 1e3


MATRICES = {
    "positive definite": [[2.0, 0.5], [0.5, 1.0]],
    "singular": [[1.0, 1.0], [1.0, 1.0]],
    "indefinite by rounding": [[1.0, 1.0 + 1e-12], [1.0 + 1e-12, 1.0]],
    "of two scales": [[1e-20, 1e-10], [1e-10, 1.0]],
}


@pytest.mark.parametrize("name", MATRICES)
def test_factors_exist_and_reproduce_the_matrix(name):
    matrix = torch.tensor(MATRICES[name], dtype=torch.float64)
    factor = factorize(matrix)
    scale = matrix.diagonal().sqrt()
    error = (factor @ factor.T - matrix) / (scale[:, None] * scale)
    assert float(error.abs().max()) < 1e-7
    assert float(factor[0, 1]) == 0


def test_overflow_leaves_a_diagonal_factor():
    stacked = torch.tensor(
        [[[4.0, torch.nan], [torch.nan, 9.0]], [[4.0, 2.0], [2.0, 5.0]]], dtype=torch.float64
    )
    expected = torch.tensor([[[2.0, 0.0], [0.0, 3.0]], [[2.0, 0.0], [1.0, 2.0]]]).double()
    assert torch.equal(factorize(stacked), expected)
