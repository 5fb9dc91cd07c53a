"""Flow matching: a normalized density by an ODE, with and without a condition."""

from __future__ import annotations

import dataclasses
import sys
from functools import cache

import pytest
import torch

import amfvi
from amfvi.errors import UsageError
from amfvi.experts import PRESETS, FlowMatching
from amfvi.experts.flow_matching import MatchedFlow
from amfvi.experts.flows.velocity import Velocity
from amfvi.experts.whitening import Whitening

SMALL = FlowMatching(
    hidden_features=16, hidden_layers=2, max_steps=100, learning_rate=1e-2, ema_decay=0.98
)


def rows(given, n=400, seed=0):
    """c, and y on either of two branches; the condition is left out where ``given`` is zero."""
    generator = torch.Generator().manual_seed(seed)
    c = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    sign = torch.where(torch.rand(n, 1, generator=generator) < 0.4, -1.0, 1.0)
    y = torch.cat([c + sign, sign * c.square()], dim=1) + 0.3 * noise
    return torch.cat([c, y], dim=1)[:, 1 - given :]


@cache
def fitted(given, dim):
    """An expert of two members for the first ``dim`` parameters."""
    return SMALL.fit(rows(given)[:, : given + dim], given=given, folds=2)


def with_steps(expert, steps):
    config = dataclasses.replace(expert.config, integration_steps=steps)
    return config.restore(expert.dim, expert.tensors(), expert.given)


@pytest.mark.parametrize("given", [0, 1])
def test_it_integrates_to_one(given):
    """At three conditions, on a grid that is finer than the noise; to 1e-3."""
    expert = fitted(given, 1)
    y = (torch.arange(500).double() + 0.5) / 500 * 20 - 10
    for c in (-1.5, 0.0, 1.0)[: 1 + 2 * given]:
        points = torch.stack([torch.full_like(y, c), y], dim=1)[:, 1 - given :]
        assert float(expert.log_prob(points).exp().sum()) * 20 / 500 == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("given", "dim"), [(0, 2), (1, 1), (1, 2)])
def test_two_numbers_of_steps_give_the_same_likelihood(given, dim):
    expert, points = fitted(given, dim), rows(given, seed=1)[:, : given + dim]
    difference = expert.log_prob(points) - with_steps(expert, 60).log_prob(points)
    assert float(difference.abs().mean()) < 1e-3
    coarse = expert.log_prob(points) - with_steps(expert, 3).log_prob(points)
    assert float(coarse.abs().mean()) > 2 * float(difference.abs().mean())


@pytest.mark.parametrize("given", [0, 1])
def test_the_log_determinant_is_that_of_the_map(given):
    expert = with_steps(fitted(given, 2), 60)
    for x in rows(given, n=3, seed=2):

        def to_normal(y, x=x):
            point = torch.cat([x[:given], y])
            return expert.forward(point.expand(expert.n_members, 1, -1))[0][0, 0]

        jacobian = torch.autograd.functional.jacobian(to_normal, x[given:])
        log_det = expert.forward(x.expand(expert.n_members, 1, -1))[1][0, 0]
        expected = torch.linalg.slogdet(jacobian).logabsdet
        assert float(log_det) == pytest.approx(float(expected), abs=1e-4)


def test_it_starts_at_the_linear_regression():
    """Before it has learned anything it carries the normal to itself."""
    velocity = SMALL.build(2, 1)
    whitening = Whitening.fit_pooled(rows(1), given=1)
    parameters = velocity.initial(1, torch.Generator().manual_seed(0))
    untrained = MatchedFlow(SMALL, whitening, parameters)
    points = rows(1, n=50, seed=3)
    z = whitening.forward(points[None])[0, 1:].T
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(dim=1)
    assert torch.allclose(untrained.log_prob(points), normal + whitening.log_det, atol=1e-4)


@pytest.mark.parametrize("dim", [1, 3])
def test_the_divergence_is_the_trace_of_the_jacobian(dim):
    velocity = Velocity(dim=dim, given=2, width=8, depth=3)
    generator = torch.Generator().manual_seed(0)
    parameters = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in velocity.shapes(1).items()
    }
    condition = torch.randn(1, 2, 1, generator=generator, dtype=torch.float64)
    y = 3 * torch.randn(dim, generator=generator, dtype=torch.float64)
    t = torch.tensor(0.7).double()

    def at(y):
        return velocity.at(parameters, condition, y.view(1, dim, 1), t).view(dim)

    v, divergence = velocity.with_divergence(parameters, condition, y.view(1, dim, 1), t)
    assert torch.allclose(v.view(dim), at(y))
    expected = torch.autograd.functional.jacobian(at, y).trace()
    assert float(divergence) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("given", [0, 1])
def test_far_points_have_a_small_density(given):
    expert = fitted(given, 2)
    x = torch.tensor([[0.0, 200.0, 0.0], [0.0, -1e15, 1e15]]).double()[:, 1 - given :]
    log_q = expert.log_prob(x)
    assert bool((log_q < -100).all())
    assert bool(log_q[0].isfinite())


def test_a_mixture_with_it_is_saved(tmp_path):
    pairs = rows(1, n=200)
    model = amfvi.fit(pairs[:, 1:], given=pairs[:, :1], experts=["gmm", SMALL], folds=2)
    again = amfvi.load(model.save(tmp_path / "model"), device=model.device)
    y, c = pairs[:20, 1:], pairs[:20, :1]
    assert torch.equal(again.log_prob(y, given=c), model.log_prob(y, given=c))
    seed = torch.Generator().manual_seed
    assert torch.equal(again.sample(3, c, seed(0)), model.sample(3, c, seed(0)))


def test_it_is_in_no_preset():
    assert not [name for name, experts in PRESETS.items() if "fm" in experts]


def test_without_torchdiffeq_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(UsageError, match=r"needs torchdiffeq: pip install 'amfvi\[fm\]'"):
        SMALL.fit(rows(1), given=1, folds=2)


def test_settings_are_checked():
    with pytest.raises(UsageError, match="integration_steps"):
        FlowMatching(integration_steps=0)
