"""Draws of flows stay near what the flows were fitted to; densities know nothing of it."""

from __future__ import annotations

import pytest
import torch

from amfvi.experts import MAF, NSF, RealNVP, config_from_json
from amfvi.experts.mixture_base import MixtureBaseFlow

FLOWS = [MAF(max_steps=75), RealNVP(max_steps=75), RealNVP(max_steps=75, base_components=1),
         NSF(max_steps=75)]  # fmt: skip


def bent(n=600, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, generator=generator).double()
    return torch.stack([x[:, 0], x[:, 1] + x[:, 0] ** 2], dim=1) * torch.tensor([1.0, 1e4]) + 1e3


def flow_of(expert):
    """The flow itself, which may have a mixture as its base."""
    return expert.flow if isinstance(expert, MixtureBaseFlow) else expert


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("config", FLOWS)
def test_draws_are_within_reach(config, seed):
    """From a base four times as wide as the normal distribution."""
    flow = flow_of(config.fit(bent(seed=seed), folds=2))

    def draws():
        generator = torch.Generator().manual_seed(seed)

        def wide(n):
            return 4 * torch.randn(2, n, 2, generator=generator, dtype=torch.float64)

        x = flow.draw_images(wide, 5000)
        return x, (flow.whitening.forward(x).abs() <= flow.reach[..., None]).all(dim=1)

    drawn, is_within = draws()
    assert bool(is_within.all())
    reach, flow.reach = flow.reach, 1e9 * flow.reach
    free, _ = draws()
    flow.reach = reach
    was_within = (flow.whitening.forward(free).abs() <= reach[..., None]).all(dim=1)
    assert 0.3 < float(was_within.double().mean()) < 1
    assert torch.equal(drawn[was_within], free[was_within])


@pytest.mark.parametrize("config", FLOWS)
def test_where_nothing_lies_beyond_nothing_changes(config):
    expert = config.fit(bent(), folds=2)
    flow = flow_of(expert)
    drawn = expert.sample(5000, torch.Generator().manual_seed(2))
    reach, flow.reach = flow.reach, None
    free = expert.sample(5000, torch.Generator().manual_seed(2))
    flow.reach = reach
    beyond = (drawn != free).any(dim=1)
    assert float(beyond.double().mean()) < 0.002


@pytest.mark.parametrize("config", FLOWS)
def test_reach_is_saved_and_moved(config):
    expert = config.fit(bent(), folds=2)
    again = config_from_json(config.to_json()).restore(2, expert.tensors())
    for flow in (again, again.to("cpu")):
        assert torch.equal(flow.tensors()["reach"], expert.tensors()["reach"])
    drawn = [e.sample(100, torch.Generator().manual_seed(3)) for e in (expert, again)]
    assert torch.equal(*drawn)


def test_weights_of_zero_reach_nowhere():
    x = bent()
    x[0] += 40 * x.std(dim=0)
    weights = torch.ones(len(x)).double()
    weights[0] = 0
    of_weighted = MAF(max_steps=25).fit(x, folds=2, sample_weight=weights).reach
    assert float(of_weighted.max()) < 60


def test_infinite_draws_are_drawn_again():
    expert = RealNVP(max_steps=25, base_components=1).fit(bent(), folds=2)
    inverse = expert.inverse
    calls = []

    def sometimes_infinite(u):
        x, log_det = inverse(u)
        if not calls:
            x[:, :7] = torch.inf
        calls.append(len(u))
        return x, log_det

    expert.inverse = sometimes_infinite
    assert bool(expert.sample(50, torch.Generator().manual_seed(0)).isfinite().all())
    assert len(calls) > 1
