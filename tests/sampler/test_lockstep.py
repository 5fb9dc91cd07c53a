"""Optimizations that advance together find what each finds alone."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from scipy.optimize import minimize, rosen, rosen_der

from amfvi.sampler.lockstep import minimize_together

STARTS = [np.random.default_rng(seed).normal(size=4) for seed in range(7)]
OPTIONS = {"method": "L-BFGS-B", "options": {"maxfun": 60, "maxcor": 20}}


def evaluate_all(points):
    return [(float(rosen(x)), rosen_der(x)) for x in points]


def test_results_are_those_of_each_alone_to_the_bit():
    sizes = []

    def counted(points):
        sizes.append(len(points))
        return evaluate_all(points)

    together = minimize_together(counted, STARTS, **OPTIONS)
    alone = [minimize(rosen, start, jac=rosen_der, **OPTIONS) for start in STARTS]
    for one, other in zip(together, alone, strict=True):
        assert np.array_equal(one.x, other.x)
        assert (one.fun, one.nfev) == (other.fun, other.nfev)
    assert sizes[0] == len(STARTS)
    assert sizes == sorted(sizes, reverse=True)  # all go on until they end
    assert sum(sizes) == sum(each.nfev for each in alone)


def test_no_starts():
    assert minimize_together(evaluate_all, [], **OPTIONS) == []


@pytest.mark.parametrize("error", [ArithmeticError("far out"), KeyboardInterrupt()])
def test_an_error_or_an_interrupt_ends_all_of_them(error):
    before, calls = threading.active_count(), []

    def fails(points):
        calls.append(len(points))
        if len(calls) == 3:
            raise error
        return evaluate_all(points)

    with pytest.raises(type(error)):
        minimize_together(fails, STARTS, **OPTIONS)
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and thread.daemon:
            thread.join(5)
    assert threading.active_count() <= before


def test_an_error_of_the_optimizer_is_raised_here():
    with pytest.raises(ValueError, match="Unknown solver"):
        minimize_together(evaluate_all, STARTS, method="no such")
