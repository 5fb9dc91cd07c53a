"""Bounds: the change of variables and its Jacobian, and what users write."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import constraints

from amfvi.blocks import ordered
from amfvi.bounds import parse_bounds, split_names
from amfvi.errors import UsageError
from amfvi.support import Support

NAMES = ("a", "b", "c", "d")
BOX = Support((-math.inf, 0.0, -1.0, -math.inf), (math.inf, math.inf, 3.0, 5.0))


def test_unconstrained_and_back_with_the_jacobian():
    y = torch.randn(200, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = BOX.from_unconstrained(y)
    assert bool(BOX.contains(x).all())
    back, log_det = BOX.to_unconstrained(x)
    assert torch.allclose(back, y, atol=1e-9)
    for i in range(5):
        jacobian = torch.autograd.functional.jacobian(
            lambda p: BOX.to_unconstrained(p[None])[0][0], x[i]
        )
        expected = torch.linalg.slogdet(jacobian).logabsdet
        assert float(log_det[i]) == pytest.approx(float(expected), abs=1e-9)


@pytest.mark.parametrize("size", [50.0, 800.0, 1e6])
def test_no_rounding_leaves_the_box(size):
    """Where exp underflows and the logistic saturates, points stay strictly inside."""
    y = torch.tensor([[-size] * 4, [size] * 4], dtype=torch.float64)
    x = BOX.from_unconstrained(y)
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
        ((1, 2), (1, 2)),
    ],
)
def test_constraints_a_user_writes(given, expected):
    support = Support.of(NAMES, {"b": given})
    assert (support.lower[1], support.upper[1]) == expected
    assert (support.lower[0], support.upper[0]) == (-math.inf, math.inf)
    assert Support.from_json(support.to_json()) == support


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"z": constraints.positive}, "no parameter 'z' to bound"),
        ({"a": constraints.simplex}, "simplex constraint cannot hold 1 parameter"),
        ({"a": "positive"}, "unsupported constraint"),
        ([constraints.real], "1 entries for 4 parameters"),
        ({"a": (2, 1)}, "lower bound must be below"),
    ],
)
def test_unsupported_constraints_are_refused(given, message):
    with pytest.raises(UsageError, match=message):
        Support.of(NAMES, given)


def test_command_line_bounds():
    assert split_names("tau, theta[1,2],mu") == ["tau", "theta[1,2]", "mu"]
    assert parse_bounds("tau", ["p=0:1,q=:2", "r[1,2]=-1:"]) == {
        "tau": (0, math.inf),
        "p": (0, 1),
        "q": (-math.inf, 2),
        "r[1,2]": (-1, math.inf),
    }


@pytest.mark.parametrize("text", ["p", "p=1", "p=a:b", "=0:1:2"])
def test_malformed_bounds_are_refused(text):
    with pytest.raises(UsageError, match="NAME=LOW:HIGH"):
        parse_bounds("", [text])


def test_bounded_twice_is_refused():
    with pytest.raises(UsageError, match="bounded twice"):
        parse_bounds("p", ["p=0:1"])


def test_torch_constraint_of_the_whole_works_with_biject_to():
    y = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.distributions.biject_to(BOX.constraint)(y)
    assert torch.allclose(x, BOX.from_unconstrained(y))
    assert bool(BOX.constraint.check(x).all())
    x[:, 1] = -1
    assert not bool(BOX.constraint.check(x).all(dim=-1).any())


@pytest.mark.parametrize("turn", [0.3, 5.0, math.inf])
@pytest.mark.parametrize("bounds", [(2.0, math.inf), (-math.inf, 2.0)])
def test_a_turned_half_line_and_back_with_the_jacobian(bounds, turn):
    box = Support((bounds[0],), (bounds[1],), (turn,))
    y = torch.linspace(-8, 8, 60, dtype=torch.float64)[:, None]
    x = box.from_unconstrained(y)
    assert bool(box.contains(x).all())
    back, log_det = box.to_unconstrained(x)
    assert torch.allclose(back, y, atol=1e-7)
    slope = torch.autograd.functional.jacobian(lambda p: box.to_unconstrained(p)[0].sum(), x)
    assert torch.allclose(slope[:, 0].abs().log(), log_det, atol=1e-9)
    assert Support.from_json(box.to_json()) == box


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_what_turns_follows_the_draws_and_their_unit(unit):
    noise = torch.randn(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    decades, half = (2 * noise).exp() * unit, noise.abs() * unit
    box = Support((0.0, 0.0), (math.inf, math.inf)).turned(torch.stack([decades, half], dim=1))
    assert box.turn[0] == math.inf  # its logarithm is normal
    assert box.turn[1] < 10 * unit  # its tail is not that of a logarithm


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
WITH_BLOCKS = Support.of(
    LONG_NAMES,
    {
        "p": constraints.simplex,
        ("c1", "c2"): ordered,
        "tau": constraints.positive,
        "L": constraints.corr_cholesky,
    },
)


def test_blocks_there_and_back_with_the_jacobian():
    assert (WITH_BLOCKS.dim, WITH_BLOCKS.free) == (16, 1 + 2 + 2 + 1 + 3)
    y = torch.randn(200, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, log_det = WITH_BLOCKS.from_unconstrained_with_log_det(y)
    assert bool(WITH_BLOCKS.contains(x).all())
    assert bool(WITH_BLOCKS.constraint.check(x).all())
    back, back_log_det = WITH_BLOCKS.to_unconstrained(x)
    assert torch.allclose(back, y, atol=1e-8)
    assert torch.allclose(log_det, -back_log_det, atol=1e-8)
    # All but the last of a simplex, and what lies below the diagonal, are coordinates.
    coordinates = [0, 1, 2, 4, 5, 6, 10, 13, 14]
    for i in range(5):
        jacobian = torch.autograd.functional.jacobian(
            lambda p: WITH_BLOCKS.from_unconstrained(p[None])[0, coordinates], y[i]
        )
        expected = torch.linalg.slogdet(jacobian).logabsdet
        assert float(log_det[i]) == pytest.approx(float(expected), abs=1e-8)


def test_blocks_outside_are_not_inside():
    x = WITH_BLOCKS.from_unconstrained(torch.zeros(4, 9, dtype=torch.float64))
    x[1, 1] += 0.1  # no longer a sum of one
    x[2, [4, 5]] = x[2, [5, 4]]
    x[3, 7 + 4] = 2.0
    assert WITH_BLOCKS.contains(x).tolist() == [True, False, False, False]


def test_blocks_through_json():
    assert Support.from_json(WITH_BLOCKS.to_json()) == WITH_BLOCKS
