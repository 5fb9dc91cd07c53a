"""A user's log density: called the way it wants, checked, counted, constrained."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import (
    HalfNormal,
    Independent,
    MultivariateNormal,
    Normal,
    Uniform,
    constraints,
)

from amfvi.density import budget, log_density, unconstrained
from amfvi.density.budget import Budget, OutOfBudgetError
from amfvi.density.log_density import LogDensity
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.errors import AmfviWarning, InputError, UsageError

POINTS = torch.randn(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
NORMAL = MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())


def branching(x):
    """Not to be vectorized: Python decides by a number."""
    return -0.5 * (x**2).sum() if x[0] > 0 else -0.5 * (x @ x)


CONVENTIONS = {
    "torch, in batches": lambda x: -0.5 * (x**2).sum(dim=1),
    "torch, in batches, of a distribution": NORMAL.log_prob,
    "torch, point by point, by vmap": lambda x: -0.5 * (x[0] ** 2 + x[1] ** 2),
    "torch, point by point": branching,
    "numpy, in batches": lambda x: stats.norm.logpdf(np.asarray(x)).sum(axis=1),
    "numpy, point by point": lambda x: (
        float(stats.norm.logpdf(np.asarray(x)).sum()) + 0 * x[1].item()
    ),
}


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.filterwarnings("ignore:the log density takes one point")
def test_every_calling_convention_gives_the_same_density(convention):
    density = LogDensity(CONVENTIONS[convention], 2)
    log_p = density.log_prob(POINTS)
    expected = NORMAL.log_prob(POINTS)
    assert density.vectorized.calling_convention == convention.partition(", of a")[0]
    assert density.vectorized.differentiable == convention.startswith("torch")
    assert log_p.dtype == torch.float64
    assert torch.allclose(log_p - log_p[0], expected - expected[0], atol=1e-12)


@pytest.mark.parametrize("convention", [f for f in CONVENTIONS if f.startswith("torch")])
@pytest.mark.filterwarnings("ignore:the log density takes one point")
def test_gradients_of_every_calling_convention(convention):
    value, gradient = UnconstrainedDensity(
        LogDensity(CONVENTIONS[convention], 2)
    ).log_prob_and_gradient(POINTS)
    assert torch.allclose(gradient, -POINTS, atol=1e-12)
    assert not value.requires_grad


@pytest.mark.parametrize("convention", ["torch, point by point", "numpy, point by point"])
def test_a_loop_is_warned_of(convention):
    with pytest.warns(AmfviWarning, match="one point at a time and cannot be vectorized"):
        LogDensity(CONVENTIONS[convention], 2).log_prob(POINTS)


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 7])
def test_shapes_tell_batches_from_points_in_any_dimension(dim):
    x = torch.ones(5, dim, dtype=torch.float64)
    for function in (lambda x: -x.square().sum(-1), lambda x: -x.pow(4)[0]):
        assert LogDensity(function, dim).log_prob(x).shape == (5,)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda x: x, r"returned shape \(3, 2\) \(expected shape \(3,\) for points"),
        (lambda x: x.sum(dim=1, keepdim=True), r"returned shape \(3, 1\)"),
        (lambda x: "a lot", "cannot be called: ValueError: could not convert"),
        (lambda x: None, "cannot be called: TypeError: it returned None"),
        (lambda x: (x - x.mean(dim=0)).square().sum(dim=1), "depends on the other points"),
    ],
)
def test_what_cannot_be_called(function, message):
    with pytest.raises(InputError, match=message) as error:
        LogDensity(function, 2).log_prob(POINTS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_plus_infinity_name_the_point(value):
    density = LogDensity(
        lambda x: torch.where(x[:, 0] > 5, value, -x.square().sum(1)), 2, names=("mu", "tau")
    )
    density.log_prob(POINTS)
    bad = torch.tensor([[0.0, 0.0], [7.0, 1.5]], dtype=torch.float64)
    with pytest.raises(InputError, match=rf"is {value} at mu = 7, tau = 1.5"):
        density.log_prob(bad)


def test_a_function_may_work_in_place():
    def in_place(x):
        x -= 1
        return -x.square().sum(axis=1)

    def in_place_numpy(x):
        x = np.asarray(x)
        x -= 1
        return -np.square(x).sum(axis=1)

    for function in (in_place, in_place_numpy):
        before = POINTS.clone()
        expected = -(POINTS - 1).square().sum(dim=1)
        assert torch.allclose(LogDensity(function, 2).log_prob(POINTS), expected)
        assert torch.equal(POINTS, before)


def test_minus_infinity_is_allowed():
    density = LogDensity(lambda x: torch.where(x[:, 0] > 0, -x[:, 0], -math.inf), 2)
    assert bool((density.log_prob(POINTS) == -math.inf).any())


def test_an_error_later_on_is_said_with_where():
    def fails_far_out(x):
        if float(x.abs().max()) > 10:
            raise ValueError("solver did not\nconverge")
        return -x.square().sum(dim=1)

    density = LogDensity(fails_far_out, 2)
    density.log_prob(POINTS)
    with pytest.raises(InputError, match="raised ValueError: solver did not converge at x1 = 20"):
        density.log_prob(torch.full((1, 2), 20.0, dtype=torch.float64))


def test_evaluations_are_counted_and_limited():
    density = LogDensity(lambda x: -x.square().sum(dim=1), 2)
    limited = UnconstrainedDensity(density, budget=Budget(max_evaluations=100))
    before = density.n_evaluations
    limited.log_prob(POINTS)
    limited.log_prob_and_gradient(POINTS)
    assert (density.n_evaluations - before, limited.budget.spent) == (80, 80)
    with pytest.raises(OutOfBudgetError, match="max_evaluations=100"):
        limited.log_prob(POINTS)
    assert density.n_evaluations - before == 80


def test_a_slow_density_is_called_in_chunks_and_stopped_in_time(monkeypatch):
    """On a clock that only the density moves, by 20 ms per point."""
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0])
    for module in (budget, log_density, unconstrained):
        monkeypatch.setattr(module, "time", clock)

    def slow(x):
        now[0] += 0.02 * len(x)
        return -x.square().sum(dim=1)

    density = LogDensity(slow, 2)
    limited = UnconstrainedDensity(density, budget=Budget(timeout=3))
    assert density.seconds_per_call == pytest.approx(0.02)
    limited.log_prob(POINTS)
    assert now[0] < 3
    with pytest.raises(OutOfBudgetError, match="timeout=3"):
        limited.log_prob(POINTS.repeat(10, 1))
    # It ends within a chunk of half a second, where all the points would take 8 s.
    assert now[0] < 4.5


def test_chunks_change_no_value():
    density = UnconstrainedDensity(LogDensity(CONVENTIONS["torch, in batches"], 2))
    at_once = density.log_prob(POINTS)
    density.log_density.seconds_per_call = density.seconds_per_point = 0.1
    assert density._chunk_size() == 5
    assert torch.allclose(density.log_prob(POINTS), at_once, atol=1e-12)


def test_the_jacobian_of_a_constraint_is_part_of_it():
    """An exponential law is one in unconstrained space too: its integral stays 1."""
    density = LogDensity(lambda x: -x[:, 0], 1, constraints=[constraints.positive])
    y = torch.linspace(-30, 8, 20_001, dtype=torch.float64)[:, None]
    mass = UnconstrainedDensity(density).log_prob(y).exp().sum() * (y[1] - y[0])
    assert float(mass) == pytest.approx(1, abs=1e-6)


def test_constraints_are_those_of_the_prior_unless_given():
    prior = Independent(HalfNormal(torch.ones(3)), 1)
    assert LogDensity(lambda x: -x.sum(1), 3, prior=prior).constraints.lower == (0, 0, 0)
    assert (
        LogDensity(lambda x: -x.sum(1), 3, prior=HalfNormal(torch.ones(3))).constraints.lower[1]
        == 0
    )
    between = Uniform(torch.zeros(3), torch.tensor([1.0, 2.0, 3.0]))
    assert LogDensity(lambda x: -x.sum(1), 3, prior=between).constraints.upper == (1, 2, 3)
    free = LogDensity(lambda x: -x.sum(1), 3, prior=Normal(torch.zeros(3), 1.0))
    assert not free.constraints.is_constrained
    explicit = LogDensity(
        lambda x: -x.sum(1), 3, prior=prior, constraints={"x1": constraints.positive}
    )
    assert explicit.constraints.lower == (0, -math.inf, -math.inf)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 0}, "dim must be a positive whole number"),
        ({"dim": 2.0}, "dim must be"),
        ({"function": 3}, "is a function, found int"),
        ({"names": ("a",)}, "names must be 2 different ones"),
        ({"names": ("a", "a")}, "names must be 2 different ones"),
        ({"prior": NORMAL, "box": (0, 1)}, "prior= or box=, not both"),
        ({"prior": Normal(0.0, 1.0)}, "prior must be over 2 parameters"),
        ({"prior": "normal"}, "must be a torch distribution"),
        ({"box": (1, 0)}, "finite lower below upper"),
        ({"box": [(0, 1)] * 3}, "box must be 2 pairs"),
        ({"box": (0, math.inf)}, "finite lower below upper"),
        ({"constraints": {"z": constraints.positive}}, "no parameter 'z'"),
        (
            {"constraints": {("x1", "x2"): constraints.simplex}, "box": (0, 1)},
            "constraint on a vector",
        ),
    ],
)
def test_arguments_that_do_not_fit(arguments, message):
    all_arguments = {"function": CONVENTIONS["torch, in batches"], "dim": 2, **arguments}
    with pytest.raises(UsageError, match=message):
        LogDensity(**all_arguments)
