"""Constraints: the change of variables and its Jacobian, and what users write."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch.distributions import constraints

from amfvi.constraints.constraints import Constraints
from amfvi.constraints.transform import UnconstrainingTransform
from amfvi.constraints.vectors import ordered
from amfvi.errors import UsageError

NAMES = ("a", "b", "c", "d")
BOX = Constraints((-math.inf, 0.0, -1.0, -math.inf), (math.inf, math.inf, 3.0, 5.0))
TRANSFORM = UnconstrainingTransform(BOX)


def test_unconstrained_and_back_with_the_jacobian():
    y = torch.randn(200, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = TRANSFORM.from_unconstrained(y)
    assert bool(BOX.contains(x).all())
    back, log_det = TRANSFORM.to_unconstrained(x)
    assert torch.allclose(back, y, atol=1e-9)
    for i in range(5):
        jacobian = torch.autograd.functional.jacobian(
            lambda p: TRANSFORM.to_unconstrained(p[None])[0][0], x[i]
        )
        expected = torch.linalg.slogdet(jacobian).logabsdet
        assert float(log_det[i]) == pytest.approx(float(expected), abs=1e-9)


@pytest.mark.parametrize("size", [50.0, 800.0, 1e6])
def test_no_rounding_leaves_the_box(size):
    """Where exp underflows and the logistic saturates, points stay strictly inside."""
    y = torch.tensor([[-size] * 4, [size] * 4], dtype=torch.float64)
    x = TRANSFORM.from_unconstrained(y)
    assert bool(BOX.contains(x).all())
    assert bool(torch.isfinite(x).all())


def test_boundary_and_outside_are_not_inside():
    x = torch.tensor([[0.0, 0, 0, 0], [0, 1, 3, 0], [0, 1, 0, 5], [0, 1, 0, 4]])
    assert BOX.contains(x).tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (constraints.real, (-math.inf, math.inf)),
        (constraints.positive, (0, math.inf)),
        (constraints.nonnegative, (0, math.inf)),
        (constraints.unit_interval, (0, 1)),
        (constraints.interval(-2, 5), (-2, 5)),
        (constraints.greater_than(3.0), (3, math.inf)),
        (constraints.less_than(3.0), (-math.inf, 3)),
        ((None, 2), (-math.inf, 2)),
        ("positive", (0, math.inf)),
        ("unit_interval", (0, 1)),
        ((1, 2), (1, 2)),
    ],
)
def test_constraints_a_user_writes(given, expected):
    parsed = Constraints.parse(NAMES, {"b": given})
    assert (parsed.lower[1], parsed.upper[1]) == expected
    assert (parsed.lower[0], parsed.upper[0]) == (-math.inf, math.inf)
    assert Constraints.from_json(json.loads(json.dumps(parsed.to_json()))) == parsed


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"z": constraints.positive}, "no parameter 'z' to constrain"),
        ({"a": constraints.simplex}, "simplex constraint cannot hold 1 parameter"),
        ({"a": "negative"}, "unsupported constraint 'negative': .* 'positive'"),
        ([constraints.real], "1 entries for 4 parameters"),
        ({"a": (2, 1)}, "lower bound must be below"),
    ],
)
def test_unsupported_constraints_are_refused(given, message):
    with pytest.raises(UsageError, match=message):
        Constraints.parse(NAMES, given)


def test_torch_constraint_of_the_whole_works_with_biject_to():
    y = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.distributions.biject_to(BOX.torch_constraint)(y)
    assert torch.allclose(x, TRANSFORM.from_unconstrained(y))
    assert bool(BOX.torch_constraint.check(x).all())
    x[:, 1] = -1
    assert not bool(BOX.torch_constraint.check(x).all(dim=-1).any())


@pytest.mark.parametrize("scale", [0.3, 5.0, math.inf])
@pytest.mark.parametrize("bounds", [(2.0, math.inf), (-math.inf, 2.0)])
def test_a_half_line_of_any_scale_and_back_with_the_jacobian(bounds, scale):
    half_line = Constraints((bounds[0],), (bounds[1],))
    transform = UnconstrainingTransform(half_line, (scale,))
    y = torch.linspace(-8, 8, 60, dtype=torch.float64)[:, None]
    x = transform.from_unconstrained(y)
    assert bool(half_line.contains(x).all())
    back, log_det = transform.to_unconstrained(x)
    assert torch.allclose(back, y, atol=1e-7)
    slope = torch.autograd.functional.jacobian(lambda p: transform.to_unconstrained(p)[0].sum(), x)
    assert torch.allclose(slope[:, 0].abs().log(), log_det, atol=1e-9)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_fitted_scales_follow_the_draws_and_their_unit(unit):
    noise = torch.randn(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    decades, half = (2 * noise).exp() * unit, noise.abs() * unit
    positive = Constraints((0.0, 0.0), (math.inf, math.inf))
    transform = UnconstrainingTransform.fit(positive, torch.stack([decades, half], dim=1))
    assert transform.softplus_scales[0] == math.inf  # its logarithm is normal
    assert transform.softplus_scales[1] < 10 * unit  # its tail is not that of a logarithm


LONG_NAMES = (
    "mu",
    "p[1]",
    "p[2]",
    "p[3]",
    "c1",
    "c2",
    "tau",
    *(f"L[{i},{j}]" for i in "123" for j in "123"),
)
WITH_VECTORS = Constraints.parse(
    LONG_NAMES,
    {
        "p": constraints.simplex,
        ("c1", "c2"): ordered,
        "tau": constraints.positive,
        "L": constraints.corr_cholesky,
    },
)
VECTOR_TRANSFORM = UnconstrainingTransform(WITH_VECTORS)


def test_vectors_there_and_back_with_the_jacobian():
    assert (WITH_VECTORS.dim, WITH_VECTORS.unconstrained_dim) == (16, 1 + 2 + 2 + 1 + 3)
    y = torch.randn(200, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, log_det = VECTOR_TRANSFORM.from_unconstrained_with_log_det(y)
    assert bool(WITH_VECTORS.contains(x).all())
    assert bool(WITH_VECTORS.torch_constraint.check(x).all())
    back, back_log_det = VECTOR_TRANSFORM.to_unconstrained(x)
    assert torch.allclose(back, y, atol=1e-8)
    assert torch.allclose(log_det, -back_log_det, atol=1e-8)
    # All but the last of a simplex, and what lies below the diagonal, are coordinates.
    coordinates = [0, 1, 2, 4, 5, 6, 10, 13, 14]
    for i in range(5):
        jacobian = torch.autograd.functional.jacobian(
            lambda p: VECTOR_TRANSFORM.from_unconstrained(p[None])[0, coordinates], y[i]
        )
        expected = torch.linalg.slogdet(jacobian).logabsdet
        assert float(log_det[i]) == pytest.approx(float(expected), abs=1e-8)


def test_vectors_outside_are_not_inside():
    x = VECTOR_TRANSFORM.from_unconstrained(torch.zeros(4, 9, dtype=torch.float64))
    x[1, 1] += 0.1  # no longer a sum of one
    x[2, [4, 5]] = x[2, [5, 4]]
    x[3, 7 + 4] = 2.0
    assert WITH_VECTORS.contains(x).tolist() == [True, False, False, False]


def test_vectors_through_json():
    assert Constraints.from_json(WITH_VECTORS.to_json()) == WITH_VECTORS
