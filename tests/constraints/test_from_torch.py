"""Constraints of torch on whole arrays, entry by entry."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Dirichlet, constraints

from amfvi.constraints.constraints import Constraints
from amfvi.constraints.from_torch import constraints_of_entries
from amfvi.density.log_density import LogDensity
from amfvi.errors import UsageError

POSITIVE = (0.0, math.inf)
FREE = (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("constraint", "shape", "expected"),
    [
        (constraints.real, (2,), {}),
        (constraints.real_vector, (3,), {}),
        (constraints.positive, (), {(0,): POSITIVE}),
        (constraints.independent(constraints.positive, 1), (2,), {(0,): POSITIVE, (1,): POSITIVE}),
        (
            constraints.interval(torch.tensor([0.0, 1.0]), 3.0),
            (2, 2),
            {(0,): (0, 3), (1,): (1, 3), (2,): (0, 3), (3,): (1, 3)},
        ),
        (constraints.simplex, (2, 2), {(0, 1): "simplex", (2, 3): "simplex"}),
        (constraints.corr_cholesky, (2, 2), {(0, 1, 2, 3): "corr_cholesky"}),
        (
            constraints.stack([constraints.positive, constraints.unit_interval], dim=-1),
            (2, 2),
            {(0,): POSITIVE, (1,): (0, 1), (2,): POSITIVE, (3,): (0, 1)},
        ),
        (
            constraints.stack([constraints.positive, constraints.unit_interval], dim=0),
            (2, 2),
            {(0,): POSITIVE, (1,): POSITIVE, (2,): (0, 1), (3,): (0, 1)},
        ),
        (
            constraints.cat([constraints.positive, constraints.simplex], dim=-1, lengths=[1, 2]),
            (3,),
            {(0,): POSITIVE, (1, 2): "simplex"},
        ),
    ],
    ids=str,
)
def test_each_entry_has_its_constraint(constraint, shape, expected):
    held = constraints_of_entries(constraint, torch.Size(shape))
    assert held.keys() == expected.keys()
    for entries, each in expected.items():
        if isinstance(each, str):
            assert held[entries] is getattr(constraints, each)
        else:
            assert held[entries] == each


VARIED = Constraints.parse(
    ["a", "b", "p1", "p2", "p3"],
    {"a": (0, None), ("p1", "p2", "p3"): constraints.simplex},
)


@pytest.mark.parametrize(
    "original", [VARIED, Constraints((0.0, -math.inf), (1.0, 3.0)), Constraints.unbounded(2)]
)
def test_our_own_constraints_come_back_from_torch(original):
    names = [f"x{i}" for i in range(original.dim)]
    held = constraints_of_entries(original.torch_constraint, torch.Size([original.dim]))
    by_name = {tuple(names[i] for i in entries): each for entries, each in held.items()}
    assert Constraints.parse(names, by_name) == original


@pytest.mark.parametrize("constraint", [constraints.positive_definite, constraints.boolean])
def test_other_constraints_are_refused(constraint):
    with pytest.raises(UsageError, match="unsupported constraint"):
        constraints_of_entries(constraint, torch.Size([2, 2]))


def test_a_prior_over_a_simplex_constrains_its_density():
    prior = Dirichlet(torch.ones(3).double())
    density = LogDensity(lambda x: x.log().sum(dim=1), 3, prior=prior)
    assert density.constraints == Constraints.parse(
        density.names, {("x1", "x2", "x3"): constraints.simplex}
    )
