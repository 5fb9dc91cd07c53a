"""RBIG: from coarse to fine, with the tails kept."""

from __future__ import annotations

import pytest
import torch

from amfvi.experts import RBIG
from amfvi.experts.flows.marginals import marginal_knots, normal_scores
from amfvi.targets import get


def grain(expert, points):
    """Mean square of the second differences of the log density along lines (lines, n, d)."""
    return float(expert.log_prob(points).diff(n=2, dim=1).square().mean())


@pytest.mark.parametrize("seed", [0, 1])
def test_a_smooth_density_has_little_grain(seed, monkeypatch):
    """Its density showed streaks: details of the draws that only many knots can follow."""
    draws = get("banana").sample(6000, torch.Generator().manual_seed(seed))
    lines = torch.linspace(-2, 2, 200).double()
    points = torch.stack(torch.meshgrid(lines[::20], lines, indexing="ij"), dim=2)
    smooth = RBIG().fit(draws, seed=seed)
    monkeypatch.setattr("amfvi.experts.rbig.FIRST_KNOTS", 10_000)  # all layers alike, as before
    rough = RBIG().fit(draws, seed=seed)
    assert grain(smooth, points) < 0.7 * grain(rough, points)
    assert smooth.report.heldout_nll < rough.report.heldout_nll + 0.002


@pytest.mark.parametrize("blocks", [3, 8, 30, 200])
def test_knots_increase_and_reach_into_the_tails(blocks):
    n = 6000
    marginals = 2 * normal_scores(n, torch.zeros(())).double().expand(3, -1)
    x, y = marginal_knots(marginals, blocks, 1.0, torch.Generator().manual_seed(0))
    assert bool((x.diff(dim=1) > 0).all())
    assert torch.allclose(y, x / 2, atol=1e-9)
    assert float(x.abs().amin(dim=0)[[0, -1]].min()) > 2 * 2  # of 1 draw in 44


@pytest.mark.parametrize("n", [2, 5, 40])
def test_few_draws_have_knots(n):
    marginals = normal_scores(n, torch.zeros(())).double()[None]
    x, y = marginal_knots(marginals, max(1, n // 2), 0.5, torch.Generator().manual_seed(0), n)
    assert x.shape == y.shape
    assert bool((x.diff(dim=1) > 0).all())
