"""A user's log density: called the way it wants, checked, counted, constrained."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import HalfNormal, Independent, MultivariateNormal, Normal, constraints

from amfvi import LogDensity
from amfvi.errors import AmfviWarning, InputError, UsageError
from amfvi.log_density import Budget, OutOfBudgetError, UnconstrainedDensity

POINTS = torch.randn(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
NORMAL = MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())


def branching(x):
    """Not to be vectorised: Python decides by a number."""
    return -0.5 * (x**2).sum() if x[0] > 0 else -0.5 * (x @ x)


FORMS = {
    "torch, in batches": lambda x: -0.5 * (x**2).sum(dim=1),
    "torch, in batches, of a distribution": NORMAL.log_prob,
    "torch, point by point, by vmap": lambda x: -0.5 * (x[0] ** 2 + x[1] ** 2),
    "torch, point by point": branching,
    "numpy, in batches": lambda x: stats.norm.logpdf(np.asarray(x)).sum(axis=1),
    "numpy, point by point": lambda x: (
        float(stats.norm.logpdf(np.asarray(x)).sum()) + 0 * x[1].item()
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore:the log density takes one point")
def test_every_form_gives_the_same_density(form):
    density = LogDensity(FORMS[form], 2)
    found = density.log_prob(POINTS)
    expected = NORMAL.log_prob(POINTS)
    assert density.batched.form == form.partition(", of a")[0]
    assert density.batched.differentiable == form.startswith("torch")
    assert found.dtype == torch.float64
    assert torch.allclose(found - found[0], expected - expected[0], atol=1e-12)


@pytest.mark.parametrize("form", [f for f in FORMS if f.startswith("torch")])
@pytest.mark.filterwarnings("ignore:the log density takes one point")
def test_gradients_of_every_form(form):
    value, gradient = UnconstrainedDensity(LogDensity(FORMS[form], 2)).log_prob_and_gradient(POINTS)
    assert torch.allclose(gradient, -POINTS, atol=1e-12)
    assert not value.requires_grad


@pytest.mark.parametrize("form", ["torch, point by point", "numpy, point by point"])
def test_a_loop_is_warned_of(form):
    with pytest.warns(AmfviWarning, match="one point at a time and cannot be vectorised"):
        LogDensity(FORMS[form], 2).log_prob(POINTS)


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


def test_calls_are_counted_and_limited():
    density = LogDensity(lambda x: -x.square().sum(dim=1), 2)
    unconstrained = UnconstrainedDensity(density, budget=Budget(max_calls=100))
    before = density.calls
    unconstrained.log_prob(POINTS)
    unconstrained.log_prob_and_gradient(POINTS)
    assert (density.calls - before, unconstrained.budget.spent) == (80, 80)
    with pytest.raises(OutOfBudgetError, match="--max-calls 100"):
        unconstrained.log_prob(POINTS)
    assert density.calls - before == 80


def test_a_slow_density_is_called_in_pieces_and_stopped_in_time():
    def slow(x):
        time.sleep(0.02 * len(x))
        return -x.square().sum(dim=1)

    density = LogDensity(slow, 2)
    unconstrained = UnconstrainedDensity(density, budget=Budget(seconds=0.5))
    unconstrained.log_prob(POINTS[:5])
    started = time.monotonic()
    with pytest.raises(OutOfBudgetError, match="--timeout"):
        unconstrained.log_prob(POINTS.repeat(10, 1))
    assert time.monotonic() - started < 4  # of the 8 s that it would have taken


def test_the_jacobian_of_a_constraint_is_part_of_it():
    """An exponential law is one in unconstrained space too: its integral stays 1."""
    density = LogDensity(lambda x: -x[:, 0], 1, constraints=[constraints.positive])
    y = torch.linspace(-30, 8, 20_001, dtype=torch.float64)[:, None]
    mass = UnconstrainedDensity(density).log_prob(y).exp().sum() * (y[1] - y[0])
    assert float(mass) == pytest.approx(1, abs=1e-6)


def test_constraints_are_those_of_the_prior_unless_given():
    prior = Independent(HalfNormal(torch.ones(3)), 1)
    assert LogDensity(lambda x: -x.sum(1), 3, prior=prior).support.lower == (0, 0, 0)
    assert LogDensity(lambda x: -x.sum(1), 3, prior=HalfNormal(torch.ones(3))).support.lower[1] == 0
    free = LogDensity(lambda x: -x.sum(1), 3, prior=Normal(torch.zeros(3), 1.0))
    assert not free.support.bounded
    given = LogDensity(
        lambda x: -x.sum(1), 3, prior=prior, constraints={"x1": constraints.positive}
    )
    assert given.support.lower == (0, -math.inf, -math.inf)


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
        ({"constraints": {("x1", "x2"): constraints.simplex}, "box": (0, 1)}, "bounded together"),
    ],
)
def test_arguments_that_do_not_fit(arguments, message):
    given = {"function": FORMS["torch, in batches"], "dim": 2, **arguments}
    with pytest.raises(UsageError, match=message):
        LogDensity(given.pop("function"), given.pop("dim"), **given)
