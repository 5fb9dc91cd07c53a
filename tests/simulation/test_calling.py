"""Simulators of every convention are found out, and mixed rows are not overlooked."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from amfvi.errors import InputError
from amfvi.simulation.calling import TRIAL_POINTS, find_calling

pytestmark = pytest.mark.usefixtures("global_state_untouched")

TIMES = np.linspace(0, 1, 4)
HIDDEN = np.random.default_rng(0)


def noise(y):
    return np.random.normal(size=np.shape(y))


# name: function, how it is called, shape for one point, whether it uses global states
CONVENTIONS = {
    "torch batch": (
        lambda y: torch.cat([y, y.sum(dim=1, keepdim=True)], 1) + torch.randn(len(y), 3),
        "torch, in batches", (3,), True,
    ),
    "numpy batch": (
        lambda y: np.hstack([y.copy(), y.sum(axis=1, keepdims=True)]) + noise(y[:, :1]),
        "numpy, in batches", (3,), True,
    ),
    "numpy point": (
        lambda y: y[0] + y[1] * TIMES + noise(TIMES), "numpy, point by point", (4,), True,
    ),
    "torch point": (
        lambda y: y[0] + y[1] * torch.linspace(0, 1, 4) + torch.randn(4),
        "torch, point by point", (4,), True,
    ),
    "rng": (
        lambda y, rng: rng.normal(y[0], y[1], size=3),
        "numpy, point by point, with rng", (3,), False,
    ),
    "elementwise": (
        lambda y, *, rng=None: y + rng.normal(size=y.shape),
        "numpy, in batches, with rng", (2,), False,
    ),
    "generator": (
        lambda y, generator: y + torch.randn(y.shape, generator=generator),
        "torch, in batches, with generator", (2,), False,
    ),
    "seed": (
        lambda y, seed: y[0] + np.random.default_rng(seed).normal(size=3),
        "numpy, point by point, with seed", (3,), False,
    ),
    "counts of columns": (
        lambda y, rng: np.stack([rng.poisson(20 * y[:, 0]), rng.poisson(20 * y[:, 1])], 1),
        "numpy, in batches, with rng", (2,), False,
    ),
    "matrix": (lambda y: np.outer(y, TIMES), "numpy, point by point", (2, 4), False),
    "number": (lambda y: float(y[0]), "numpy, point by point", (), False),
    "list": (lambda y: [float(y[0]), 2], "numpy, point by point", (2,), False),
    "number of a batch": (lambda y: y[:, 0] * y[:, 1], "torch, in batches", (), False),
    # Written for one point, these give as many rows as they are given, but mix them.
    "norm": (lambda y: y / (y**2).sum(), "torch, point by point", (2,), False),
    "noisy norm": (lambda y: y / (y**2).sum() + noise(y), "numpy, point by point", (2,), True),
    "less the first": (lambda y: y - y[0], "torch, point by point", (2,), False),
    "less the last": (lambda y: y - y[-1] + noise(y), "numpy, point by point", (2,), True),
    "length": (lambda y: y * len(y), "torch, point by point", (2,), False),
    "sorted rows": (lambda y: np.sort(y, axis=0), "numpy, point by point", (2,), False),
}  # fmt: skip


def points(d=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(TRIAL_POINTS, d, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", CONVENTIONS)
def test_conventions_are_found(name, seed):
    function, convention, shape, uses = CONVENTIONS[name]
    found = find_calling(function, points(seed=seed))
    assert (str(found), found.shape) == (convention, shape)
    assert found.uses_global_states == uses
    assert found.reproducible


@pytest.mark.parametrize("d", [1, 5, 6, 7])
def test_as_many_parameters_as_rows_are_no_ambiguity(d):
    assert find_calling(lambda y: y[0] * TIMES[:2], points(d)).many is False
    assert find_calling(lambda y: y[:, :1] + y, points(d)).many is True


def test_random_numbers_that_no_seed_reaches_are_noticed():
    by_point = find_calling(lambda y: y + HIDDEN.normal(size=np.shape(y)), points())
    assert not by_point.reproducible
    assert not by_point.many  # since nothing is known of its rows
    batch = find_calling(lambda y: y[:, :1] + HIDDEN.normal(size=(len(y), 1)), points())
    assert not batch.reproducible
    assert batch.many


@pytest.mark.parametrize(
    "function",
    [
        lambda y: y[:, :1] / y[:, :1].mean(),
        lambda y, rng: y[:, :1] / y[:, :1].mean() + rng.normal(size=(len(y), 2)),
        lambda y, rng: rng.poisson(50 * y[:, :1]) + 0.1 * y[:, :1].mean(),
    ],
)
def test_batches_that_mix_rows_are_refused(function):
    with pytest.raises(InputError, match="depend on the other points"):
        find_calling(function, points())


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda y: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda y: None, "it returned None"),
        (lambda y: np.asarray(y) * 1j, "complex128, not real numbers"),
        (lambda y: {"a": 1}, "dict of object"),
        (lambda y: np.zeros(0), "no numbers"),
        (lambda y: np.zeros(int(100 * float(y[0]))), "shapes .* for two points"),
        (lambda y: exit(3), r"sys.exit\(3\)"),
    ],
)
def test_what_is_no_simulator_is_an_error_of_one_line(function, message):
    with pytest.raises(InputError, match=message) as caught:
        find_calling(function, points())
    assert "\n" not in str(caught.value)


def test_a_point_where_it_fails_is_not_the_end():
    first = float(points()[0, 0])

    def fails_at_first(y):
        if float(y[0]) == first:
            raise ArithmeticError("diverged")
        return [float(y[0]), 1.0]

    assert find_calling(fails_at_first, points()).shape == (2,)
