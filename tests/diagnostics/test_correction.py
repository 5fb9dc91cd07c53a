"""Corrected draws are those of the posterior, with few repeats."""

from __future__ import annotations

import math

import pytest
import torch

import amfvi
from amfvi.density.log_density import LogDensity
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.diagnostics.correction import correct_draws
from amfvi.experts import GMM
from amfvi.mixture import Mixture


def seeded(number):
    return torch.Generator().manual_seed(number)


def normal(gradients=True):
    def log_prob(x):
        return -0.5 * (x**2).sum(1)

    function = log_prob if gradients else lambda x: log_prob(torch.as_tensor(x)).numpy()
    return UnconstrainedDensity(LogDensity(function, 2))


def mixture_of(draws):
    return Mixture({"gmm": GMM(max_components=1).fit(draws)}, [1.0])


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("sd", [0.8, 1.3])
@pytest.mark.parametrize("seed", [0, 1])
def test_draws_of_a_wrong_width_are_corrected(gradients, sd, seed):
    """2,000 draws: the standard error of a mean is .022, of a standard deviation .016."""
    mixture = mixture_of(sd * torch.randn(2000, 2, generator=seeded(seed)).double())
    draws = correct_draws(mixture, normal(gradients), 2000, seeded(seed + 10))
    assert draws.shape == (2000, 2)
    assert float(draws.mean(dim=0).abs().max()) < 0.12
    assert float((draws.std(dim=0) - 1).abs().max()) < 0.08
    assert len(torch.unique(draws, dim=0)) > 1900


def test_correction_keeps_to_the_constraints():
    gamma = LogDensity(lambda x: 2 * x[:, 0].log() - x[:, 0], 1, constraints=[(0, None)])
    posterior = amfvi.fit(gamma, experts="gmm", n_draws=1000, folds=2, max_refinements=0, seed=0)
    draws = posterior.corrected_draws(2000, seed=1)
    assert bool((draws > 0).all())
    assert float(draws.mean()) == pytest.approx(3.0, abs=0.2)
    assert float(draws.std()) == pytest.approx(math.sqrt(3.0), abs=0.2)
    assert torch.equal(draws, posterior.corrected_draws(2000, seed=1))


def test_a_density_of_another_place_is_an_error():
    mixture = mixture_of(torch.randn(500, 1, generator=seeded(0)).double())
    far = LogDensity(lambda x: torch.where(x[:, 0] > 1e6, 0.0, -math.inf), 1, box=(1e6, 2e6))
    with pytest.raises(amfvi.InputError, match="-inf at every draw of the mixture"):
        correct_draws(mixture, UnconstrainedDensity(far), 100, seeded(1))


def test_correction_needs_the_density(tmp_path):
    posterior = amfvi.fit("bimodal", experts="gmm", n_draws=200)
    with pytest.raises(amfvi.UsageError, match=r"with_log_density\(density\)"):
        posterior.corrected_draws(10)
