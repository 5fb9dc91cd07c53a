"""A log density shared among workers: the same numbers, counts and errors as without them."""

from __future__ import annotations

import math
import multiprocessing
import os
import re
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

import amfvi
from amfvi.density.budget import Budget, OutOfBudgetError
from amfvi.density.log_density import LogDensity
from amfvi.density.pooled import PooledDensity
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.density.vectorize import vectorize
from amfvi.errors import AmfviWarning, InputError, UsageError

pytestmark = [
    pytest.mark.usefixtures("global_state_untouched"),
    pytest.mark.filterwarnings("ignore:the log density takes one point"),
]

# What torch differentiates cannot be forked where there is a GPU.
CONTEXT = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "fork")
POINTS = torch.randn(53, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def numpy_point(x):
    return float(-0.5 * np.sum((np.asarray(x) - 1.0) ** 2) - math.cos(x[0]))


def numpy_batch(x):
    x = np.asarray(x)
    x -= 1.0  # in place
    return -0.5 * (x**2).sum(axis=1)


def torch_batch(x):
    return -0.5 * (x - 1).square().sum(dim=1) - x[:, 0].exp()


def torch_point(x):
    return -0.5 * (x - 1).square().sum() - x[0].exp()


def branching(x):
    return -0.5 * (x**2).sum() if x[0] > 0 else torch.tensor(-math.inf, dtype=torch.float64)


def pair_of_point(x):
    x = np.asarray(x)
    return float(-0.5 * (x**2).sum()), -x


def pair_of_batch(x):
    return -0.5 * (x**2).sum(dim=1), -x


FUNCTIONS = {
    numpy_point: False, numpy_batch: False, torch_batch: False, torch_point: False,
    branching: False, pair_of_point: True, pair_of_batch: True,
}  # fmt: skip


@pytest.fixture(scope="module", params=["processes", "threads", "executor", "multiprocessing"])
def pool(request):
    if request.param == "processes":
        yield 3
    elif request.param == "threads":
        with ThreadPoolExecutor(3) as threads:
            yield threads
    elif request.param == "executor":
        with ProcessPoolExecutor(2, mp_context=CONTEXT) as executor:
            yield executor
    else:
        with CONTEXT.Pool(2) as processes:
            yield processes


@pytest.mark.parametrize("function", FUNCTIONS)
def test_values_gradients_and_counts_do_not_depend_on_the_pool(function, pool):
    densities = [
        LogDensity(function, 3, value_and_grad=FUNCTIONS[function], pool=p, names=("a", "b", "c"),
                   constraints={"b": (-5, None)})
        for p in (None, pool)
    ]  # fmt: skip
    budgets = [Budget(max_evaluations=1000) for _ in densities]
    alone, shared = (
        UnconstrainedDensity(density, budget=budget)
        for density, budget in zip(densities, budgets, strict=True)
    )
    with densities[1].closing():
        for n in (1, 2, 53):
            assert torch.equal(alone.log_prob(POINTS[:n]), shared.log_prob(POINTS[:n]))
            singly = [each.calling_singly().log_prob(POINTS[:n]) for each in (alone, shared)]
            assert torch.equal(*singly)
            if alone.differentiable:
                both = [each.log_prob_and_gradient(POINTS[:n]) for each in (alone, shared)]
                assert torch.equal(both[0][0], both[1][0])
                assert torch.equal(both[0][1], both[1][1])
        assert alone.differentiable == shared.differentiable
        assert densities[0].n_evaluations == densities[1].n_evaluations
        for each in (alone, shared):
            with pytest.raises(OutOfBudgetError):
                each.log_prob(POINTS.repeat(20, 1))
        assert budgets[0].spent == budgets[1].spent


def fails_far_out(x):
    if float(x[0]) > 9:
        raise ValueError("solver did not\nconverge")
    return numpy_point(x)


def is_nan_far_out(x):
    return math.nan if float(x[0]) > 9 else numpy_point(x)


def leaves_far_out(x):
    if float(x[0]) > 9:
        raise SystemExit(4)
    return numpy_point(x)


def batch_fails_far_out(x):
    if float(x[:, 0].max()) > 9:
        raise ValueError("too far")
    return torch_batch(x)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (fails_far_out, "raised ValueError: solver did not converge at x1 = 11, x2 = 2, x3 = 3"),
        (is_nan_far_out, "is nan at x1 = 11, x2 = 2, x3 = 3"),
        (leaves_far_out, r"raised RuntimeError: it called sys.exit\(4\) at x1 = 11, x2 = 2, x3"),
        (batch_fails_far_out, "raised ValueError: too far at one of 53 points"),
    ],
)
def test_errors_are_those_without_a_pool(function, message, pool):
    points = POINTS.clone()
    points[37] = torch.tensor([11.0, 2.0, 3.0])
    said = []
    for p in (None, pool):
        density = LogDensity(function, 3, pool=p)
        with density.closing():
            density.log_prob(POINTS)
            with pytest.raises(InputError, match=message) as error:
                density.log_prob(points)
            assert torch.equal(density.log_prob(POINTS), LogDensity(function, 3).log_prob(POINTS))
        said.append(str(error.value))
    assert said[0] == said[1]


def test_a_shape_that_is_wrong_later_on(pool):
    density = LogDensity(shrinks, 3, pool=pool)
    with density.closing(), pytest.raises(InputError, match=r"returned shape \(1,\) for \d+ po"):
        density.log_prob(POINTS)


def shrinks(x):
    return torch_batch(x)[: None if len(x) < 5 else 1]


def dies(x):
    """End the process, but for one that was not started by another."""
    return os._exit(1) if multiprocessing.parent_process() is not None else -x @ x


def test_a_process_that_dies_is_one_line():
    density = LogDensity(dies, 3, pool=2)
    with density.closing(), pytest.raises(InputError, match="pool: a process died") as error:
        density.log_prob(POINTS)
    assert "\n" not in str(error.value)


def test_a_function_that_cannot_be_pickled():
    shift = 1.0
    local = lambda x: float(x[0]) + shift  # noqa: E731
    expected = LogDensity(local, 3).log_prob(POINTS)
    density = LogDensity(local, 3, pool=2)  # processes of ours have it already
    with density.closing():
        assert torch.equal(density.log_prob(POINTS), expected)
    with ProcessPoolExecutor(1, mp_context=CONTEXT) as executor:
        density.pool = executor
        with pytest.raises(InputError, match="a log density that can be pickled: define it at"):
            density.log_prob(POINTS)
    density.pool = None
    assert torch.equal(density.log_prob(POINTS), expected)


def test_a_loop_is_warned_of_only_without_a_pool():
    with warnings.catch_warnings():
        warnings.simplefilter("error", AmfviWarning)
        density = LogDensity(numpy_point, 3, pool=2)
        with density.closing():
            density.log_prob(POINTS)
        density.pool = None
        with pytest.raises(AmfviWarning, match=r"point at a time .* pool= shares the points"):
            density.log_prob(POINTS)


def test_points_are_evaluated_beside_each_other():
    barrier = threading.Barrier(4, timeout=20)

    def waits_for_others(x):
        if threading.current_thread() is not threading.main_thread():
            barrier.wait()
        return float(-(x[0] ** 2))

    with ThreadPoolExecutor(4) as threads:
        density = LogDensity(waits_for_others, 3, pool=threads)
        assert density.n_workers == 4
        assert len(density.log_prob(POINTS[:4])) == 4


def test_a_density_of_jax_uses_all_cores_by_itself():
    compiled = replace(vectorize(torch_batch, POINTS[:4]), is_jax=True)
    with pytest.raises(UsageError, match="pool= is not for a log density of JAX"):
        PooledDensity(compiled, 2)


@pytest.mark.parametrize("pool", ["many", 0])
def test_what_is_no_pool(pool):
    with pytest.raises(UsageError, match="pool must be a number of processes"):
        LogDensity(numpy_point, 3, pool=pool)


def two_modes(x):
    x = np.asarray(x)
    near = -0.5 * np.square(x - 3).sum() / 0.3
    return float(np.logaddexp(near, -0.5 * np.square(x + 3).sum()))


@pytest.mark.parametrize(
    "max_evaluations", [2500, 12_000, pytest.param(None, marks=pytest.mark.slow)]
)
def test_a_fit_does_not_depend_on_the_pool(max_evaluations):
    fits, before = [], set(multiprocessing.active_children())
    for pool in (None, 2):
        density = LogDensity(two_modes, 2, pool=pool)
        try:
            fit = amfvi.fit(
                density, experts="gmm", n_draws=300, seed=3, max_evaluations=max_evaluations,
                max_refinements=0,
            )  # fmt: skip
        except amfvi.FitError as error:
            fits.append(re.sub(r"[\d.e+-]+ s each", "", str(error)))
            continue
        weighted = fit.weighted_draws()
        fits.append((
            density.n_evaluations, fit.diagnostics.n_evaluations, fit.diagnostics.log_z,
            weighted.x.tolist(), weighted.log_weights.tolist(), str(fit.diagnostics),
        ))  # fmt: skip
    assert fits[0] == fits[1]
    assert set(multiprocessing.active_children()) == before
