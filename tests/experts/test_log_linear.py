"""Densities that are log-linear between nodes: exact integrals, quantiles and draws."""

from __future__ import annotations

import pytest
import torch

from amfvi.experts.log_linear import LogLinear


def densities(seed, dtype=torch.float64):
    """Three densities with nodes of their own: smooth, steep and with level parts."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(3, 40, generator=generator, dtype=torch.float64).mul(6).sub(3).sort(dim=1).values
    values = torch.randn(3, 40, generator=generator, dtype=torch.float64)
    values[0] = -0.5 * x[0].square()
    values[1] *= 5
    values[2, 10:20] = values[2, 10]
    return LogLinear(x=x.to(dtype), log_values=values.to(dtype))


def integrate(density, low, high):
    """Masses of the densities between two points, by a fine trapezoidal rule."""
    y = torch.linspace(low, high, 400_001, dtype=torch.float64)
    each = torch.stack([density.log_prob(at.expand(3)) for at in y[:: len(y) - 1]])
    assert each.shape == (2, 3)
    dense = density.interpolate(y.expand(3, -1))
    constant = density.log_prob(torch.zeros(3).double()) - dense[:, len(y) // 2]
    return torch.trapezoid((dense + constant[:, None]).exp(), y, dim=1)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_integral_is_one(seed):
    assert torch.allclose(integrate(densities(seed), -20, 20), torch.ones(3).double(), atol=2e-4)


@pytest.mark.parametrize("seed", [0, 1])
def test_quantiles_have_their_share_of_the_mass_below(seed):
    density = densities(seed)
    for probability in (0.001, 0.3, 0.5, 0.9, 0.9999):
        at = density.quantile(torch.full((3, 1), probability).double())[:, 0]
        for k in range(3):
            y = torch.linspace(-20, float(at[k]), 400_001, dtype=torch.float64)
            one = LogLinear(x=density.x[k : k + 1], log_values=density.log_values[k : k + 1])
            constant = one.log_prob(at[k : k + 1]) - one.interpolate(at[k : k + 1, None])[:, 0]
            below = torch.trapezoid((one.interpolate(y[None]) + constant[:, None]).exp(), y)
            assert float(below) == pytest.approx(probability, abs=2e-4)


def test_extreme_probabilities_are_finite_points_in_either_precision():
    for dtype in (torch.float32, torch.float64):
        edges = torch.tensor([0.0, 1e-12, 1 - 1e-7, 1.0], dtype=dtype).expand(3, -1)
        density = densities(0, dtype)
        assert bool(density.quantile(edges).isfinite().all())
        assert bool(density.spread(64).isfinite().all())


def test_the_derivative_in_the_point_is_the_slope_of_the_segment():
    density = densities(0)
    y = density.x[:, 3:5].mean(dim=1).requires_grad_()
    (gradient,) = torch.autograd.grad(density.log_prob(y).sum(), y)
    rise = density.log_values[:, 4] - density.log_values[:, 3]
    assert torch.allclose(gradient, rise / (density.x[:, 4] - density.x[:, 3]))
