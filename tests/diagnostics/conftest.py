"""What the tests of diagnostics share: Gaussian mixtures and densities to compare them with."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch.distributions import MultivariateNormal

import amfvi
from amfvi.density.log_density import LogDensity
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.diagnostics.comparison import WeightedDraws, importance_sample
from amfvi.experts import GMM
from amfvi.mixture import Mixture


@cache
def _gaussian(mean: tuple[float, float], sd: float) -> amfvi.Posterior:
    noise = torch.randn(3000, 2, generator=torch.Generator().manual_seed(0)).double()
    draws = torch.tensor(mean).double() + sd * noise
    return amfvi.fit(draws, experts=[GMM(max_components=1)], folds=2, seed=0)


@pytest.fixture
def gaussian() -> Callable[..., amfvi.Posterior]:
    """gaussian(mean=(0, 0), sd=1): a fit of one Gaussian, made once."""
    return lambda mean=(0.0, 0.0), sd=1.0: _gaussian(tuple(mean), sd)


@pytest.fixture
def standard() -> LogDensity:
    """The standard normal in two dimensions, normalized."""
    return LogDensity(MultivariateNormal(torch.zeros(2), torch.eye(2)).log_prob, 2)


@pytest.fixture
def weighted() -> Callable[..., WeightedDraws]:
    """weighted(mixture, density, n=4000): draws with importance weights, seed 0."""

    def draw(mixture: Mixture, log_density: LogDensity, n: int = 4000) -> WeightedDraws:
        density = UnconstrainedDensity(log_density)
        return importance_sample(mixture, density, n, torch.Generator().manual_seed(0))

    return draw
