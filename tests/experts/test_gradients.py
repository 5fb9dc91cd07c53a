"""Gradients of log densities: right for every family, and free where none is asked for."""

from __future__ import annotations

import pytest
import torch

pytestmark = pytest.mark.usefixtures("global_state_untouched")


def gradient_of(expert, x):
    (gradient,) = torch.autograd.grad(expert.log_prob(x).sum(), x)
    return gradient


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("dim", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_gradient_is_that_of_central_differences(kind, dim, members, fitted, curved):
    """Where both one-sided differences agree: densities have kinks, of measure zero."""
    expert, _ = fitted(kind, dim, 0, members)
    x = curved(dim, 60, 8).requires_grad_()
    h = 1e-6
    with torch.no_grad():
        here = expert.log_prob(x)
        steps = h * torch.eye(dim, dtype=torch.float64)
        ahead, behind = (
            torch.stack([expert.log_prob(x + sign * step) for step in steps], dim=1)
            for sign in (1, -1)
        )
    forward, backward = (ahead - here[:, None]) / h, (here[:, None] - behind) / h
    is_smooth = (forward - backward).abs() < 1e-3 * (1 + forward.abs())
    assert float(is_smooth.double().mean()) > 0.95
    gradient = gradient_of(expert, x)
    error = (gradient - (ahead - behind) / (2 * h)).abs() / (1 + gradient.abs())
    assert float(error[is_smooth].max()) < 1e-6


def test_values_are_the_same_with_and_without_a_gradient(kind, fitted, curved):
    expert, _ = fitted(kind, 3)
    x = curved(3, 200, 8)
    with_gradient = expert.log_prob(x.clone().requires_grad_())
    assert with_gradient.requires_grad
    assert torch.allclose(with_gradient, expert.log_prob(x), rtol=1e-12, atol=1e-12)


def test_gradients_in_single_precision_are_those_in_double(kind, fitted, curved):
    expert, _ = fitted(kind, 3)
    single = curved(3, 200, 8).float().requires_grad_()
    double = single.detach().double().requires_grad_()
    expected = gradient_of(expert, double)
    gradient = gradient_of(expert, single)
    assert gradient.dtype == torch.float32
    error = (gradient.double() - expected).abs() / (1 + expected.abs())
    # Next to a kink, rounding may pick the other side.
    assert float(error.flatten().quantile(0.95)) < 1e-3


def test_gradients_pass_through_threads(kind, fitted, curved):
    expert, _ = fitted(kind, 2)
    x = curved(2, 6000, 8).requires_grad_()
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        gradient = gradient_of(expert, x)
    finally:
        torch.set_num_threads(before)
    last = x[-50:].detach().requires_grad_()
    assert torch.allclose(gradient[-50:], gradient_of(expert, last), atol=1e-9)


def test_no_graph_is_built_where_no_gradient_is_asked_for(kind, fitted, curved):
    expert, _ = fitted(kind, 2)
    x = curved(2, 50, 8)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        plain = expert.log_prob(x)
        with torch.no_grad():
            switched_off = expert.log_prob(x.clone().requires_grad_())
        assert not saved
        expert.log_prob(x.clone().requires_grad_())
        assert saved
    assert not plain.requires_grad
    assert not switched_off.requires_grad
    assert torch.equal(plain, switched_off)
