"""Draws of flows stay near what the flows were fitted to; densities know nothing of it."""

from __future__ import annotations

import pytest
import torch

from amfvi.experts import MAF, NSF, RealNVP, config_from_json

FLOWS = [MAF(max_steps=75), RealNVP(max_steps=75), RealNVP(max_steps=75, base_components=1),
         NSF(max_steps=75)]  # fmt: skip


def bent(n=600, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, generator=generator).double()
    return torch.stack([x[:, 0], x[:, 1] + x[:, 0] ** 2], dim=1) * torch.tensor([1.0, 1e4]) + 1e3


def stretched(flow):
    """The same flow with a base so wide that many of its draws lie far out."""
    return flow.widened(6.0)


@pytest.mark.parametrize("config", FLOWS)
def test_draws_are_within_reach(config):
    x = bent()
    expert = config.fit(x, folds=2)
    flow = getattr(expert, "flow", None)
    if hasattr(flow, "reach"):  # behind a mixture as its base
        assert flow.reach is not None
        return
    wide = stretched(expert)
    generator = torch.Generator().manual_seed(1)
    drawn = wide.sample(20_000, generator)
    wide.reach = None
    free = wide.sample(20_000, torch.Generator().manual_seed(1))
    limit = 3 * (x - x.mean(dim=0)).abs().amax(dim=0) * 3  # whitening turns and shears
    assert bool((drawn - x.mean(dim=0)).abs().le(limit).all())
    kept = (drawn == free).all(dim=1)
    assert 0.05 < float(kept.double().mean()) < 1


@pytest.mark.parametrize("config", FLOWS)
def test_where_nothing_lies_beyond_nothing_changes(config):
    expert = config.fit(bent(), folds=2)
    flow = getattr(expert, "flow", None)
    flow = flow if hasattr(flow, "reach") else expert
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
