"""Work on a Ray cluster: the same numbers as without, whatever happens to a worker."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import amfvi
from amfvi import targets
from amfvi.cluster import Cluster, share
from amfvi.errors import AmfviWarning, InputError, UsageError
from amfvi.experts import MAF, RBIG, RealNVP
from amfvi.two_stage.experts import fit_experts
from amfvi.two_stage.split import split_target

on_a_cluster = pytest.mark.slow
"""A local cluster of Ray takes half a minute to start and to stop."""

EXPERTS = {
    "maf": MAF(layers=2, max_steps=100),
    "realnvp": RealNVP(layers=2, max_steps=100),
    "rbig": RBIG(max_layers=20),
}


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    yield Cluster("local", n_workers=3)
    ray.shutdown()


def draws(n=1500):
    return targets.get("banana").sample(n, torch.Generator().manual_seed(0)).numpy()


def workers():
    """Process numbers of the workers that run a task."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::_call"):
                found.append(int(path.parent.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


@on_a_cluster
def test_a_fit_on_the_cluster_is_the_fit_here(cluster):
    here = amfvi.fit(draws(), experts=EXPERTS, seed=3)
    there = amfvi.fit(draws(), experts=EXPERTS, seed=3, cluster="local")
    x = torch.from_numpy(draws(100))
    assert torch.equal(here.weights, there.weights)
    assert torch.equal(here.log_prob(x), there.log_prob(x))
    for name, expert in here.experts.items():
        for key, tensor in expert.tensors().items():
            assert torch.equal(tensor, there.experts[name].tensors()[key])


@on_a_cluster
@pytest.mark.skipif(sys.platform != "linux", reason="workers are found in /proc")
def test_a_worker_that_is_killed_changes_nothing(cluster):
    split = split_target(targets.get("banana"), 4000, seed=0, n_test=0)
    experts = {"maf": MAF(max_steps=300), "realnvp": RealNVP(max_steps=300, base_components=1)}
    killed = []

    def kill_one():
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not killed:
            time.sleep(0.5)
            for pid in workers()[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    thread = threading.Thread(target=kill_one)
    thread.start()
    there = fit_experts(experts, split.folds, seed=0, cluster="local")
    thread.join()
    here = fit_experts(experts, split.folds, seed=0)
    assert killed
    for name in experts:
        expected = here[name].expert.tensors()
        for key, tensor in there[name].expert.tensors().items():
            assert torch.equal(tensor, expected[key]), (name, key)


@on_a_cluster
def test_points_of_a_density_are_shared_and_its_values_are_the_same(cluster):
    def log_density(x):
        return float(-0.5 * (x**2).sum() - 0.1 * x[0] ** 4)

    here, there = amfvi.LogDensity(log_density, 2), amfvi.LogDensity(log_density, 2)
    share(there, "local")
    x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with pytest.warns(AmfviWarning, match="one point at a time"):
        expected = here.log_prob(x)
    assert torch.equal(there.log_prob(x), expected)
    assert there.n_workers == 3


@on_a_cluster
def test_what_a_task_raises_and_warns_of_arrives(cluster):
    wild = {"maf": MAF(max_steps=50, learning_rate=1e30)}
    with pytest.warns(AmfviWarning, match="maf: non-finite loss"):
        amfvi.fit(draws(400), experts=wild, cluster="local")

    def fail(argument):
        raise ValueError(f"no {argument}")

    with pytest.raises(ValueError, match="no 3"):
        list(cluster.map(fail, [3, 4]))


@on_a_cluster
def test_values_come_in_the_order_of_their_arguments(cluster):
    def slow_first(i):
        time.sleep(0.3 if i == 0 else 0.0)
        return i

    assert list(cluster.map(slow_first, range(20))) == list(range(20))
    assert cluster.size == 3


@on_a_cluster
def test_a_simulator_without_a_pool_gets_the_workers(cluster):
    def simulate(y, rng):
        return y + rng.normal(size=y.shape)

    prior = torch.distributions.Normal(torch.zeros(1), 1.0)
    here = amfvi.Simulator(simulate, prior).simulate(50, seed=0)
    simulator = amfvi.Simulator(simulate, prior)
    share(simulator, "local")
    assert simulator.pool.size == 3
    assert torch.equal(simulator.simulate(50, seed=0).given, here.given)


def test_a_pool_of_the_users_stays_and_without_an_address_nothing_is_shared():
    alone = amfvi.LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), 1)
    share(alone, None)
    assert alone.pool is None
    density = amfvi.LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), 1, pool=1)
    share(density, "local")
    assert density.pool == 1


def test_without_ray_the_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'amfvi\[ray\]'"):
        amfvi.fit(draws(100), experts="gmm", cluster="local")


def test_wrong_addresses_are_named(monkeypatch):
    with pytest.raises(UsageError, match="cluster= must be the address"):
        amfvi.fit(draws(100), experts="gmm", cluster=3)
    with pytest.raises(UsageError, match="n_workers="):
        Cluster("auto", n_workers=3)

    def init(**_):
        raise ConnectionError("Could not find any running Ray instance.")

    stopped = SimpleNamespace(is_initialized=lambda: False, init=init)
    monkeypatch.setitem(sys.modules, "ray", stopped)
    with pytest.raises(InputError, match=r"no Ray cluster at 'auto' .*ray start --head"):
        amfvi.fit(draws(100), experts="gmm", cluster="auto")


@on_a_cluster
def test_the_command_line_shares_the_density_of_a_file_and_says_what_it_says_without(
    command, tmp_path
):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    (tmp_path / "helper.py").write_text("minus_half = -0.5\n")
    (tmp_path / "model.py").write_text(
        "import helper\ndef log_density(x):\n    return helper.minus_half * float((x**2).sum())\n"
    )
    told = []
    for where in (("--ray", "local"), ("--jobs", "2")):
        result = command(
            "fit", "--log-density", "model.py:log_density", "--dim", "2", "--experts", "gmm",
            "-n", "300", "--no-figures", "--json", "--force", "--out", "run", *where,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        told.append(json.loads(result.stdout)["density"])
    assert told[0]["log_z"] == told[1]["log_z"]
    assert told[0]["verdict"] == "trust"
