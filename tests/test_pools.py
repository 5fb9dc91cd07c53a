"""Workers: the same values whatever the pool, and no process left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor

import pytest
import torch

from amfvi.errors import InputError, UsageError
from amfvi.pools import Workers, check_pool, pool_size

FORK = multiprocessing.get_context("fork")

needs_fork = pytest.mark.skipif(
    torch.cuda.is_available(), reason="a process that uses a GPU is not forked"
)


class Client:
    """The map of a client of Dask, which returns futures."""

    def __init__(self):
        self.threads = ThreadPoolExecutor(2)

    def map(self, function, arguments, *, pure):
        assert pure is False  # calls with the same argument are made again
        return [self.threads.submit(function, argument) for argument in arguments]

    def gather(self, futures: list[Future]):
        return [future.result() for future in futures]


class OnlyMap:
    def map(self, function, arguments):
        return [function(argument) for argument in arguments]


POOLS = {
    "none": lambda: None,
    "one": lambda: 1,
    "processes": lambda: 2,
    "threads": lambda: ThreadPoolExecutor(2),
    "executor": lambda: ProcessPoolExecutor(2, mp_context=FORK),
    "multiprocessing": lambda: FORK.Pool(2),
    "dask": Client,
    "map": OnlyMap,
}


@pytest.fixture(params=POOLS)
def pool(request):
    made = POOLS[request.param]()
    yield made
    if hasattr(made, "terminate"):
        made.terminate()
        made.join()
    elif hasattr(made, "shutdown"):
        made.shutdown()


def test_values_come_in_order_whatever_the_pool(pool):
    with Workers(abs, pool, "function").closing() as workers:
        for n in (0, 1, 50):
            assert list(workers.map(list(range(-n, 0)))) == list(range(n, 0, -1))


@pytest.mark.parametrize(
    ("pool", "size"),
    [(None, 1), (4, 4), (OnlyMap(), os.cpu_count()), (type("P", (), {"num_workers": 7})(), 7)],
)
def test_sizes(pool, size):
    assert pool_size(pool) == size


@pytest.mark.parametrize("pool", ["many", 0, -1, True, 2.0])
def test_what_is_no_pool(pool):
    with pytest.raises(UsageError, match="number of processes, or have a method map"):
        check_pool(pool)


def pid(_):
    time.sleep(0.02)
    return os.getpid()


def is_alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until_gone(processes, seconds=20):
    deadline = time.monotonic() + seconds
    while any(map(is_alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(is_alive, processes))


@needs_fork
def test_processes_start_once_at_the_first_use_and_end():
    before = set(multiprocessing.active_children())
    with Workers(lambda x: pid(x), 2, "function").closing() as workers:
        assert set(multiprocessing.active_children()) == before
        first, second = (set(workers.map(range(20))) for _ in range(2))
        assert len(first | second) == 2
        assert os.getpid() not in first
    assert wait_until_gone(first)
    again = set(workers.map(range(20)))  # others start for further use
    workers.close()
    assert wait_until_gone(again)


@needs_fork
def test_a_process_that_dies_is_one_line():
    with (
        Workers(lambda x: os._exit(3) if x == 7 else x, 2, "simulator").closing() as workers,
        pytest.raises(InputError, match="pool: a process died while it computed the simulator"),
    ):
        list(workers.map(range(20)))


def test_what_cannot_be_pickled_is_one_line():
    executor = ProcessPoolExecutor(1, mp_context=FORK)
    with executor, pytest.raises(InputError, match="define it at the top of a module") as error:
        list(Workers(lambda x: x, executor, "log density").map([1]))
    assert "\n" not in str(error.value)


@needs_fork
def test_warnings_of_processes_are_those_of_this_one():
    def warns(x):
        warnings.warn("rough", UserWarning, stacklevel=1)
        return x

    with (
        Workers(warns, 2, "function").closing() as workers,
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("default")
        assert list(workers.map(range(30))) == list(range(30))
    # JAX, where another test has imported it, warns of every fork.
    ours = [each for each in caught if each.category is UserWarning]
    assert [(str(each.message), each.filename) for each in ours] == [("rough", __file__)]


SCRIPT = """
import os, signal, sys, time
from amfvi.pools import Workers

# A shell that starts the tests in the background has Ctrl-C ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

def sleep(path):
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(60)

with Workers(sleep, 3, "function").closing() as workers:
    list(workers.map([sys.argv[1]] * 3))
"""


@pytest.mark.parametrize("kind", ["interrupt", "kill"])
def test_no_process_is_left_behind(tmp_path, kind):
    """Ctrl-C reaches all processes of a terminal; a kill only the first."""
    seen = tmp_path / "pids"
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(seen)],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (
        not seen.exists() or len(seen.read_text().splitlines()) < 3
    ):
        time.sleep(0.05)
    workers = [int(line) for line in seen.read_text().splitlines()]
    started = time.monotonic()
    if kind == "interrupt":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.kill()
    try:
        message = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert wait_until_gone(workers)
    assert time.monotonic() - started < 20  # not the minute that they sleep
    assert message.count("Traceback") == (kind == "interrupt")
