"""Torch's default precision is the user's, and changes no number of ours."""

from __future__ import annotations

import pytest
import torch

import amfvi
from amfvi.experts import GMM, RBIG, RealNVP

DEFAULTS = (torch.float64, torch.float16)


@pytest.fixture
def under():
    """under(dtype, function): what a function returns while that is torch's default."""
    before = torch.get_default_dtype()

    def call(dtype, function):
        torch.set_default_dtype(dtype)
        try:
            return function()
        finally:
            torch.set_default_dtype(before)

    yield call
    torch.set_default_dtype(before)


def generator_of(seed):
    return torch.Generator().manual_seed(seed)


def numbers_of_fit_to_density():
    density = amfvi.LogDensity(lambda x: -0.5 * x.square().sum(dim=1), 2)
    posterior = amfvi.fit(density, experts="gmm", n_draws=1000, folds=2)
    return (
        posterior.log_prob(torch.zeros(1, 2).double()).item(), posterior.diagnostics.log_z,
        posterior.diagnostics.n_evaluations, posterior.sample((3,), generator_of(1)).tolist(),
    )  # fmt: skip


def numbers_of_fit_to_draws():
    draws = torch.randn(500, 2, generator=generator_of(0), dtype=torch.float64)
    experts = {
        "rbig": RBIG(max_layers=5), "gmm": GMM(max_components=2),
        "realnvp": RealNVP(layers=2, max_steps=20),
    }  # fmt: skip
    posterior = amfvi.fit(draws, experts=experts, folds=2)
    return posterior.log_prob(draws[:5]).tolist(), posterior.sample((3,), generator_of(1)).tolist()


@pytest.mark.parametrize("numbers", [numbers_of_fit_to_density, numbers_of_fit_to_draws])
def test_a_fit_is_the_same_whatever_the_default(under, numbers):
    expected = numbers()
    for dtype in DEFAULTS:
        assert under(dtype, numbers) == expected, dtype
