"""Simulations of a simulator: the same whatever the pool, with what failed counted and told."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.distributions import Dirichlet, Normal, Uniform

import amfvi
from amfvi.errors import AmfviWarning, InputError, UsageError
from amfvi.reporting import Reporter

pytestmark = pytest.mark.usefixtures("global_state_untouched")

PRIOR = Normal(torch.zeros(2), 1.0)


def linear(y, rng):
    return y @ np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0]]) + rng.normal(size=(*y.shape[:-1], 3))


def by_point(y):
    return [y[0] + np.random.normal(), float(torch.randn(())), y[1]]


def by_batch(y):
    return y[:, :1] + 0.1 * torch.randn(len(y), 2)


def sometimes(y):
    if y[0] > 1:
        raise ArithmeticError(f"diverged at {'low' if y[1] < 0 else 'high'}")
    return [np.log(y[0] + 0.5) if y[0] > -0.5 else np.nan, y[1]]


def simulate(fn, n=60, seed=0, pool=None, prior=PRIOR, **options):
    return amfvi.Simulator(fn, prior, pool=pool).simulate(n, seed=seed, **options)


def same(first, second):
    return torch.equal(first.given, second.given) and torch.equal(first.y, second.y)


@pytest.mark.parametrize("fn", [linear, by_point, by_batch])
def test_pairs_do_not_depend_on_the_pool(fn):
    whole = simulate(fn)
    assert same(whole, simulate(fn))
    assert not same(whole, simulate(fn, seed=1))
    assert len(torch.unique(whole.given, dim=0)) == 60
    with ThreadPoolExecutor(3) as threads:
        assert same(whole, simulate(fn, pool=threads))
    with multiprocessing.get_context("fork").Pool(2) as processes:
        assert same(whole, simulate(fn, pool=processes))
    shift = 0.0
    local = {linear: lambda y, rng: linear(y, rng) + shift}.get(fn, lambda y: fn(y))
    assert same(whole, simulate(local, pool=2))  # which could not be pickled


def test_pairs_are_of_the_simulator():
    """Data are those of their own parameters, with the noise that was asked for."""
    pairs = simulate(linear, n=2000)
    matrix = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0]], dtype=torch.float64)
    residual = pairs.given - pairs.y @ matrix
    assert bool((residual.mean(dim=0).abs() < 5 / 2000**0.5).all())
    assert bool((residual.var(dim=0) - 1).abs().max() < 0.2)
    assert (pairs.names, pairs.given_names) == (("y1", "y2"), ("c1", "c2", "c3"))
    assert pairs.n_failed == 0
    assert pairs.failures == ()


@pytest.mark.parametrize(("fn", "many"), [(by_point, False), (by_batch, True)])
def test_rows_of_different_chunks_have_different_noise(fn, many):
    simulator = amfvi.Simulator(fn, PRIOR)
    pairs = simulator.simulate(200)
    assert simulator.calling.many is many
    column = pairs.given[:, 1] if fn is by_point else pairs.given[:, 1] - pairs.y[:, 0]
    assert len(torch.unique(column)) == 200


def test_failed_rows_are_left_out_counted_and_told():
    with pytest.warns(AmfviWarning, match=r"of 200 simulations failed .*the simulation succeeds"):
        pairs = simulate(sometimes, n=200)
    y = amfvi.Simulator(sometimes, PRIOR).prior.sample(200, seed=0)
    good = (y[:, 0] <= 1) & (y[:, 0] > -0.5)
    assert torch.equal(pairs.y, y[good])
    assert torch.equal(pairs.given[:, 1], pairs.y[:, 1])
    assert (len(pairs), pairs.n_failed) == (int(good.sum()), 200 - int(good.sum()))
    assert pairs.n_simulated == 200
    assert set(pairs.failures) == {
        "ArithmeticError: diverged at low", "ArithmeticError: diverged at high",
        "it returned NaN or infinity",
    }  # fmt: skip


def test_a_batch_that_raises_loses_its_bad_rows_only():
    def strict(y):
        if bool((y[:, 0] > 2).any()):
            raise ValueError("out of range")
        return y[:, :1] * torch.ones(1, 3)

    with pytest.warns(AmfviWarning, match="out of range"):
        pairs = simulate(strict, n=400)
    y = amfvi.Simulator(strict, PRIOR).prior.sample(400, seed=0)
    assert torch.equal(pairs.y, y[y[:, 0] <= 2])
    assert torch.equal(pairs.given[:, 2], pairs.y[:, 0])


def late(y):
    return np.zeros(3 if y[0] < 1.5 else 2) + float(y[0])


@pytest.mark.parametrize("pool", [None, 2])
def test_another_shape_at_a_later_row(pool):
    with pytest.raises(InputError, match=r"returned shape \(2,\) at row \d+, expected \(3,\)"):
        simulate(late, n=400, pool=pool)


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda y: 1 / 0, "cannot be called: ZeroDivisionError"),
        (lambda y: [float(y[0]) if y[0] > 0.5 else np.nan], "more than half of 100"),
        (lambda y: np.ones(3), "all 100 simulations give the same data"),
        (lambda y: os._exit(1) if multiprocessing.parent_process() else [float(y[0])], "pool: "),
    ],
)
def test_what_cannot_be_used(fn, message):
    with pytest.raises(InputError, match=message):
        simulate(fn, n=100, pool=2)


def test_a_pool_that_needs_pickles_says_so():
    with (
        multiprocessing.get_context("fork").Pool(1) as pool,
        pytest.raises(InputError, match="define it at the top of a module"),
    ):
        simulate(lambda y: y[0] * np.ones(3), pool=pool)


def test_random_numbers_that_no_seed_reaches_are_told():
    generator = np.random.default_rng(0)
    with pytest.warns(AmfviWarning, match=r"the simulator draws random numbers that no seed"):
        simulate(lambda y: y[0] + generator.normal(size=3))


@pytest.mark.parametrize(
    "call",
    [
        lambda: amfvi.Simulator(3, PRIOR),
        lambda: amfvi.Simulator(linear, PRIOR, pool="many"),
        lambda: amfvi.Simulator(linear, PRIOR, pool=0),
        lambda: amfvi.Simulator(linear, PRIOR, given_names=["a"]).simulate(10),
        lambda: amfvi.Simulator(linear, PRIOR, given_names=["a", "b", "y1"]).simulate(10),
        lambda: amfvi.Simulator(linear, PRIOR).simulate(0),
        lambda: amfvi.Simulator(linear, PRIOR).simulate(1.5),
    ],
)
def test_arguments_that_do_not_fit(call):
    with pytest.raises(UsageError):
        call()


def test_constraints_and_names():
    pairs = simulate(lambda y: y[:, :2], prior=Dirichlet(torch.ones(3)))
    assert pairs.constraints.vectors[0].kind == "simplex"
    simulator = amfvi.Simulator(
        lambda y: y * torch.ones(3), Uniform(0.0, 2.0), names=["rate"], given_names=list("abc")
    )
    assert simulator.constraints == amfvi.Constraints((0.0,), (2.0,))
    assert simulator.simulate(30).given_names == ("a", "b", "c")
    assert simulator.names == ("rate",)


class Progress(Reporter):
    def __init__(self, kill_at=None):
        self.lines, self.seen, self.kill_at = [], [], kill_at

    def log(self, line):
        self.lines.append(line)

    def simulation_progress(self, done, total):
        self.seen.append((done, total))
        if done == self.kill_at:
            raise KeyboardInterrupt


@pytest.mark.parametrize("fn", [by_point, by_batch])
@pytest.mark.parametrize("pool", [None, 2])
def test_an_interrupted_run_goes_on(tmp_path, fn, pool):
    calls = []

    def counted(y):
        calls.append(len(y))
        return fn(y)

    with pytest.raises(KeyboardInterrupt):
        simulate(counted, n=200, pool=pool, checkpoint=tmp_path, reporter=Progress(kill_at=100))
    progress = Progress()
    calls.clear()
    resumed = simulate(counted, n=200, checkpoint=tmp_path, reporter=progress)
    on = len(calls)
    calls.clear()
    assert same(resumed, simulate(counted, n=200))
    assert on < len(calls)
    assert any("were found in" in line for line in progress.lines)
    assert progress.seen[-1] == (200, 200)


def test_saved_simulations_of_another_simulator_are_not_used(tmp_path):
    simulate(by_point, checkpoint=tmp_path)
    progress = Progress()
    # Of other settings, there is nothing to be told.
    simulate(by_point, seed=1, checkpoint=tmp_path, reporter=progress)
    simulate(by_point, n=50, checkpoint=tmp_path, reporter=progress)
    simulate(by_point, prior=Normal(torch.ones(2), 1.0), checkpoint=tmp_path, reporter=progress)
    assert not any("were found" in line for line in progress.lines)

    def changed(y):
        return [by_point(y)[0] + 1e-3, *by_point(y)[1:]]

    with pytest.warns(AmfviWarning, match="of another simulator.* starts again"):
        pairs = simulate(changed, checkpoint=tmp_path)
    assert same(pairs, simulate(changed))
    assert same(pairs, simulate(changed, checkpoint=tmp_path))


def test_a_prior_that_no_seed_reaches_is_saved_too(tmp_path):
    generator = np.random.default_rng(0)
    simulator = amfvi.Simulator(by_point, lambda n: generator.normal(size=(n, 2)))
    with pytest.warns(AmfviWarning, match="the prior draws"):
        first = simulator.simulate(40, checkpoint=tmp_path)
    with pytest.warns(AmfviWarning, match="the prior draws"):
        assert same(first, simulator.simulate(40, checkpoint=tmp_path))


@pytest.mark.parametrize("pool", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_run_goes_on(tmp_path, pool):
    def slow(y, rng):
        time.sleep(0.005)
        with (tmp_path / "calls").open("a") as file:
            file.write("x")
        return [y[0] + rng.normal(), y[1]]

    def run(**options):
        return simulate(slow, n=150, pool=pool, **options)

    context = multiprocessing.get_context("fork")
    process = context.Process(target=run, kwargs={"checkpoint": tmp_path / "saved"})
    process.start()
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("saved/*.npz"))) < 30 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    time.sleep(2.0 if pool > 1 else 0.0)  # its processes notice within a second
    calls, results = [], []
    for options in ({"checkpoint": tmp_path / "saved"}, {}):
        (tmp_path / "calls").unlink()
        results.append(run(**options))
        calls.append((tmp_path / "calls").stat().st_size)
    assert same(*results)
    assert calls[0] < calls[1] - 20


def test_a_simulator_that_uses_no_global_numbers_runs_beside_itself_in_threads():
    """Threads do not wait for each other where nothing is shared."""
    running, most = [], []

    def sleeper(y):
        running.append(1)
        most.append(len(running))
        time.sleep(0.005)
        running.pop()
        return [float(y[0]), 1.0]

    with ThreadPoolExecutor(4) as threads, warnings.catch_warnings():
        simulate(sleeper, n=40, pool=threads)
    assert max(most) > 1
