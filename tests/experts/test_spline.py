"""The monotone spline: increasing, inverse to itself, smooth across knots."""

from __future__ import annotations

import pytest
import torch

from amfvi.experts.flows.spline import MonotoneSpline


def random_spline(seed: int, d: int = 4, knots: int = 12, ratio: float = 1.5) -> MonotoneSpline:
    generator = torch.Generator().manual_seed(seed)

    def increasing():
        gaps = (ratio * torch.randn(d, knots, generator=generator, dtype=torch.float64)).exp()
        return gaps.cumsum(dim=1) - 6

    return MonotoneSpline.through(increasing(), increasing())


@pytest.mark.parametrize("seed", range(5))
def test_inverse_undoes_forward_inside_and_in_the_tails(seed):
    spline = random_spline(seed)
    v = torch.linspace(-60, 120, 4001, dtype=torch.float64).expand(4, -1)
    value, log_slope = spline.forward(v)
    back, inverse_log_slope = spline.inverse(value)
    assert torch.allclose(back, v, atol=1e-8, rtol=1e-8)
    assert torch.allclose(log_slope, -inverse_log_slope, atol=1e-6)
    assert (value.diff(dim=1) > 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_log_slope_is_the_derivative(seed):
    spline = random_spline(seed)
    v = torch.linspace(-30, 60, 997, dtype=torch.float64).expand(4, -1).clone().requires_grad_()
    value, log_slope = spline.forward(v)
    (slope,) = torch.autograd.grad(value.sum(), v)
    assert torch.allclose(slope.log(), log_slope, atol=1e-8)


def test_knots_are_met_with_their_slopes():
    spline = random_spline(0)
    value, log_slope = spline.forward(spline.x)
    assert torch.allclose(value, spline.y, atol=1e-9)
    assert torch.allclose(log_slope, spline.slope.log(), atol=1e-7)


def test_straight_knots_give_a_straight_line():
    x = torch.linspace(-2, 3, 7, dtype=torch.float64)[None]
    spline = MonotoneSpline.through(x, 3 * x - 1)
    v = torch.linspace(-50, 50, 101, dtype=torch.float64)[None]
    assert torch.allclose(spline.forward(v)[0], 3 * v - 1, atol=1e-10)
