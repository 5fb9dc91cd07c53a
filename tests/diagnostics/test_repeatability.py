"""A density that is random in rare calls, or far out, is found by calling it again."""

from __future__ import annotations

import pytest
import torch

from amfvi.density.budget import Budget
from amfvi.density.log_density import LogDensity
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.diagnostics.repeatability import require_repeatable
from amfvi.errors import InputError

X = torch.randn(5000, 2, generator=torch.Generator().manual_seed(0)).double()


def check(function, **limits):
    density = UnconstrainedDensity(LogDensity(function, 2), budget=Budget(**limits))
    _ = density.log_density.vectorized
    require_repeatable(density, X, density.log_prob_constrained(X))
    return density


def steady(x):
    return -0.5 * x.square().sum(dim=1)


def test_a_density_of_its_argument_alone_passes():
    assert check(steady).budget.spent > 5000


def test_noise_in_one_of_fifty_calls_is_found():
    calls = 0

    def log_prob(x):
        nonlocal calls
        calls += 1
        return steady(x) + (0.3 if calls % 50 == 49 else 0.0)

    with pytest.raises(InputError, match="the log density is random"):
        check(log_prob)


@pytest.mark.parametrize("size", [1e-3, 0.05, 1.0])
def test_noise_far_from_the_points_that_are_tried_first_is_found(size):
    generator = torch.Generator().manual_seed(1)

    def log_prob(x):
        noise = size * torch.randn(len(x), generator=generator).double()
        return steady(x) + torch.where(x.norm(dim=1) > 2, noise, 0.0)

    with pytest.raises(InputError, match="the log density is random"):
        check(log_prob)


def test_rounding_in_single_precision_is_not_noise():
    check(lambda x: -0.5 * x.float().square().sum(dim=1) - 1e4)


def test_nothing_is_spent_where_little_is_left():
    density = check(steady, max_evaluations=6000)
    assert density.budget.spent == 5000
