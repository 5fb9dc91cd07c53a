"""Where a user's function is computed. What needs a GPU is in tests/test_gpu.py."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from amfvi.density.log_density import LogDensity
from amfvi.density.placement import place

CENTER = torch.ones(2, dtype=torch.float64)

CPU = torch.device("cpu")


def near_center(x):
    return -0.5 * (x - CENTER).square().sum(dim=1)


def of_numpy(x):
    return -0.5 * (np.asarray(x) ** 2).sum(axis=1)


def of_one_point(x):
    return -0.5 * x.square().sum() if x[0] > 0 else -x.square().sum()


def nowhere(x):
    return torch.full((len(x),), -torch.inf)


@pytest.mark.filterwarnings("ignore:the log density takes one point")
@pytest.mark.parametrize("function", [near_center, of_numpy, of_one_point, nowhere])
def test_what_fails_or_gains_nothing_elsewhere_stays_on_the_cpu(function):
    """A tensor on torch's "meta" device stands for one on a GPU: neither goes with the CPU's."""
    assert place(LogDensity(function, 2), "meta") == CPU


def test_what_workers_share_stays_on_the_cpu():
    with ThreadPoolExecutor(2) as threads:
        assert place(LogDensity(near_center, 2, pool=threads), "meta") == CPU


def test_the_calls_that_it_takes_are_counted():
    density = LogDensity(near_center, 2)
    place(density, "cpu")
    before = density.n_evaluations
    place(density, "cpu")
    assert density.n_evaluations == before
    place(density, "meta")
    assert density.n_evaluations == before + len(density.test_points())
