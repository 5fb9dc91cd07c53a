"""Reflection at bounds: every expert is a density on the interval, given a condition or not."""

from __future__ import annotations

import pytest
import torch

from amfvi.conditional.reflection import reflect
from amfvi.constraints.constraints import Constraints
from amfvi.constraints.transform import UnconstrainingTransform
from amfvi.errors import InputError, UsageError
from amfvi.experts import GMM, NLE, Folds, ReflectedExpert, config_from_json

ONE = UnconstrainingTransform(Constraints((-1.0,), (3.0,)), (0.0,))
TWO = UnconstrainingTransform(Constraints((-1.0, 0.0), (3.0, 1.0)), (0.0, 0.0))


def pairs(n, dim, seed=0):
    """Conditions (n, 1), and parameters that pile up at their bounds."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.rand(n, dim, generator=generator, dtype=torch.float64)
    c = y[:, :1] + 0.1 * torch.randn(n, 1, generator=generator, dtype=torch.float64)
    low = torch.tensor([-1.0, 0.0])[:dim]
    width = torch.tensor([4.0, 1.0])[:dim]
    return torch.cat([c, low + width * y], dim=1)


@pytest.fixture(scope="module", params=["gmm", "nle"])
def on_interval(request):
    """Two members each, given one number."""
    config = {"gmm": GMM(max_components=3), "nle": NLE(max_steps=50)}[request.param]
    rows = pairs(400, 1)
    folds = Folds(rows, torch.arange(400) % 2, given=1)
    expert, _ = config.fit_folds(folds, generator=torch.Generator().manual_seed(0))
    return expert, reflect(expert, ONE)


@pytest.mark.parametrize("c", [-0.2, 0.0, 0.5, 1.1])
def test_the_integral_over_the_interval_is_one(c, on_interval):
    expert, reflected = on_interval
    y = torch.linspace(-1, 3, 4001, dtype=torch.float64)
    rows = torch.stack([torch.full_like(y, c), y], dim=1)
    whole = float(torch.trapezoid(reflected.log_prob(rows).exp(), y))
    assert whole == pytest.approx(1, abs=2e-3)
    if c == 0.0:  # else there would be nothing to reflect
        assert float(torch.trapezoid(expert.log_prob(rows).exp(), y)) < 0.99


def test_draws_follow_the_density(on_interval):
    _, reflected = on_interval
    c = torch.full((20_000, 1), 0.05, dtype=torch.float64)
    draws = reflected.sample_given(c, torch.Generator().manual_seed(0))[:, 0]
    assert bool(((draws > -1) & (draws < 3)).all())
    y = torch.linspace(-1, 3, 4001, dtype=torch.float64)
    density = reflected.log_prob(torch.stack([torch.full_like(y, 0.05), y], dim=1)).exp()
    cdf = torch.cumulative_trapezoid(density, y)
    for level in (0.1, 0.5, 0.9):
        quantile = float(draws.quantile(level))
        at = float(cdf[torch.searchsorted(y, torch.tensor(quantile).double()) - 1])
        assert at == pytest.approx(level, abs=0.02)  # five standard errors of 20,000 draws


def test_a_reflected_expert_is_restored_from_its_tensors(on_interval):
    _, reflected = on_interval
    config = config_from_json(reflected.config.to_json())
    restored = config.restore(1, reflected.tensors(), given=1)
    rows = pairs(50, 1, seed=1)
    assert torch.equal(restored.log_prob(rows), reflected.log_prob(rows))


def test_two_intervals_reflect_in_both():
    rows = pairs(400, 2)
    expert = GMM(max_components=3).fit(rows, given=1, folds=2)
    reflected = reflect(expert, TWO)
    first = torch.linspace(-1, 3, 201, dtype=torch.float64)
    second = torch.linspace(0, 1, 201, dtype=torch.float64)
    grid = torch.cartesian_prod(torch.tensor([0.0]).double(), first, second)
    density = reflected.log_prob(grid).exp().view(201, 201)
    whole = float(torch.trapezoid(torch.trapezoid(density, second), first))
    assert whole == pytest.approx(1, abs=5e-3)
    draws = reflected.sample_given(rows[:, :1])
    assert bool(((draws[:, 0] > -1) & (draws[:, 0] < 3)).all())
    assert bool(((draws[:, 1] > 0) & (draws[:, 1] < 1)).all())


def test_what_lies_in_no_interval_stays():
    """An unbounded parameter beside one in an interval."""
    transform = UnconstrainingTransform(
        Constraints((-1.0, -float("inf")), (3.0, float("inf"))), (0.0, float("inf"))
    )
    expert = GMM(max_components=1).fit(pairs(200, 2), given=1, folds=2)
    reflected = reflect(expert, transform)
    wide = torch.tensor([[0.5, 1.0, 40.0]]).double()
    assert bool(reflected.log_prob(wide) < -50)
    assert float(reflected.sample_given(wide[:, :1].expand(100, 1))[:, 1].abs().max()) < 5


def test_too_many_intervals_or_none_are_refused():
    expert = GMM(max_components=1).fit(pairs(200, 2), given=1, folds=2)
    with pytest.raises(UsageError, match="from 1 to 3 intervals can reflect, found 0"):
        ReflectedExpert(expert, torch.full((2,), -torch.inf), torch.full((2,), torch.inf))
    with pytest.raises(InputError, match="2 lower and 2 upper bounds"):
        reflect(expert, TWO).config.restore(2, expert.tensors(), given=1)


def test_only_an_interval_may_reflect():
    with pytest.raises(UsageError, match="or zero for an interval"):
        UnconstrainingTransform(Constraints((0.0,), (float("inf"),)), (0.0,))
