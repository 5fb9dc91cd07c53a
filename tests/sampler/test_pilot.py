"""Hierarchical models in centered form, whose density rises away from the mass, are reached."""

from __future__ import annotations

import math

import pytest
import torch

from amfvi.density.log_density import LogDensity
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.sampler.pilot import PILOT_EVALUATIONS
from amfvi.sampler.reference import PILOT, find_reference
from amfvi.sampler.runs import sample_posterior


class Groups:
    """y_j ~ N(θ_j, e_j²), θ_j ~ N(μ, τ²), μ ~ N(0, 5²), log τ ~ N(0, 1): x = (μ, log τ, θ)."""

    def __init__(self, n, seed):
        generator = torch.Generator().manual_seed(seed)
        self.errors = 0.3 + 0.7 * torch.rand(n, generator=generator).double()
        effects = 1.5 + 0.8 * torch.randn(n, generator=generator).double()
        self.y = effects + self.errors * torch.randn(n, generator=generator).double()

    def __call__(self, x):
        mean, log_sd, effects = x[:, :1], x[:, 1:2], x[:, 2:]
        prior = -0.5 * (mean / 5).square() - 0.5 * log_sd.square()
        of_groups = -0.5 * ((effects - mean) / log_sd.exp()).square() - log_sd
        of_data = -0.5 * ((self.y - effects) / self.errors).square()
        return (prior + (of_groups + of_data).sum(dim=1, keepdim=True))[:, 0]

    @property
    def log_z(self):
        """By integrals over θ in closed form and over μ and log τ on a grid."""
        mean = torch.linspace(-2, 5, 701, dtype=torch.float64)[:, None, None]
        log_sd = torch.linspace(-5, 3, 801, dtype=torch.float64)[None, :, None]
        variance = self.errors.square() + (2 * log_sd).exp()
        log_p = -0.5 * ((self.y - mean).square() / variance + variance.log()) + self.errors.log()
        prior = -0.5 * (mean / 5).square() - 0.5 * log_sd.square()
        total = log_p.sum(dim=2) + prior[..., 0] + 0.5 * len(self.y) * math.log(2 * math.pi)
        return float(total.flatten().logsumexp(dim=0)) + math.log(0.01 * 0.01)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("n", [25, pytest.param(60, marks=pytest.mark.slow)])
def test_the_mass_of_a_centered_model_is_found(n, seed):
    """From what optimization left in the neck, log Z was 24 nats off with 60 groups."""
    groups = Groups(n, seed)
    density = UnconstrainedDensity(LogDensity(groups, n + 2))
    sample = sample_posterior(density, 4000, seed=seed)
    assert sample.reference == PILOT
    assert abs(sample.log_z.mean - groups.log_z) < max(0.3, 4 * sample.log_z.se)


@pytest.mark.parametrize("d", [1, 5, 30])
def test_where_there_is_a_mode_there_is_no_pilot(d):
    scales = torch.logspace(-2, 2, d, dtype=torch.float64)
    density = UnconstrainedDensity(LogDensity(lambda x: -0.5 * (x / scales).square().sum(1), d))
    reference = find_reference(density, torch.Generator().manual_seed(0))
    assert reference.description == "1 mode of the density"
    assert density.budget.spent < PILOT_EVALUATIONS
