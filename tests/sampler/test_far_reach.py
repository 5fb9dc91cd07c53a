"""Cusps: the sampler reaches what lies orders of magnitude beyond a mode's curvature."""

from __future__ import annotations

import math

import pytest
import torch

from amfvi.density.log_density import LogDensity
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.sampler.far_reach import far_covariances
from amfvi.sampler.modes import Mode
from amfvi.sampler.runs import sample_posterior


def mode(*sds):
    covariance = torch.diag(torch.tensor(sds, dtype=torch.float64).square())
    return Mode(point=torch.zeros(len(sds)).double(), log_density=0.0, covariance=covariance)


def density(log_p, dim):
    return UnconstrainedDensity(LogDensity(log_p, dim))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("seed", range(2))
def test_a_cusp_is_left_whatever_the_scale(scale, seed):
    """exp(-sqrt(|x| / scale)): |x| / scale is the square of a Gamma(2) variable."""
    cusp = density(lambda x: -(x / scale).abs().sqrt().sum(dim=1), 1)
    sample = sample_posterior(cusp, 8000, seed=seed)
    assert sample.log_z.mean == pytest.approx(math.log(4 * scale), abs=0.1)
    u = (sample.x.abs() / scale).sqrt()
    for level, quantile in ((0.5, 1.6783), (0.9, 3.8897), (0.99, 6.6384)):
        assert float(u.quantile(level)) == pytest.approx(quantile, rel=0.1)


def test_only_the_axes_that_reach_far_are_widened():
    log_p = density(lambda x: -x[:, 0].abs().sqrt() - 0.5 * x[:, 1].square(), 2)
    far = far_covariances(log_p, [mode(1e-4, 1.0)])
    assert len(far) > 3
    widths = torch.stack([covariance.diagonal().sqrt() for covariance in far])
    assert bool((widths[:, 0].diff() > 0).all())
    assert float(widths[-1, 0]) > 30
    assert torch.allclose(widths[:, 1], torch.ones(len(far)).double())


@pytest.mark.parametrize(
    "log_p",
    [
        lambda x: -0.5 * x.square().sum(dim=1),
        lambda x: -x.abs().sum(dim=1),
        lambda x: -2 * torch.log1p(x.square()).sum(dim=1),
        lambda x: torch.zeros(len(x)).double(),  # falls nowhere: told by the check of its integral
    ],
    ids=["normal", "laplace", "heavy", "flat"],
)
def test_nothing_is_added_where_curvature_tells(log_p):
    assert far_covariances(density(log_p, 2), [mode(1.0, 1.0)]) == []


def test_without_a_mode_there_is_nothing_to_reach():
    assert far_covariances(density(lambda x: -x.abs().sum(dim=1), 1), []) == []


def test_a_function_that_fails_far_out_is_no_error():
    """0 · log 0 = NaN of a probability that has underflowed, a hundred widths away."""
    log_p = density(
        lambda x: torch.where(x.abs() > 100, torch.nan, -0.5 * x.square()).sum(dim=1), 2
    )
    assert far_covariances(log_p, [mode(1.0, 1.0)]) == []
