"""A frozen flow is the flow that was trained, and its evaluation leaves nothing behind."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event, Thread

import pytest
import torch

from amfvi.experts import MAF, NSF, LogisticMAF, RealNVP
from amfvi.experts.flows.frozen import FrozenFlow
from amfvi.experts.parallel import MIN_ROWS_PER_THREAD, _pool, map_chunked, one_thread

FLOWS = {
    "maf": MAF(),
    "maf, silu": MAF(activation="silu"),
    "realnvp": RealNVP(),
    "nsf": NSF(),
    "logistic_maf": LogisticMAF(),
    "one hidden layer": MAF(hidden_layers=1),
    "one layer": RealNVP(layers=1),
}


@pytest.mark.parametrize("dim", [1, 2, 3, 6, 40])
@pytest.mark.parametrize("name", FLOWS)
def test_frozen_is_the_trained_map_and_its_inverse(name, dim):
    generator = torch.Generator().manual_seed(dim)
    flow, noise = FLOWS[name].build(dim), 0.1 if dim < 10 else 0.02
    parameters = {
        key: (value.double() + noise * torch.randn(value.shape, generator=generator).double())
        * flow.masks[key]
        for key, value in flow.initial(3, generator).items()
    }
    z = 2 * torch.randn(3, dim, 200, generator=generator, dtype=torch.float64)
    u, log_det = flow.forward(parameters, z)
    frozen = FrozenFlow(flow, parameters)
    frozen_u, frozen_log_det = frozen.forward(z)
    assert torch.allclose(u, frozen_u, atol=1e-12, rtol=1e-12)
    assert torch.allclose(log_det, frozen_log_det, atol=1e-12, rtol=1e-12)
    back, inverse_log_det = frozen.inverse(u)
    assert torch.allclose(back, z, atol=1e-8)
    assert torch.allclose(inverse_log_det, -log_det, atol=1e-8)


def test_an_inverse_is_differentiated_as_the_map_is():
    flow = MAF().build(6)
    generator = torch.Generator().manual_seed(0)
    parameters = {
        key: (value.double() + 0.2 * torch.randn(value.shape, generator=generator).double())
        * flow.masks[key]
        for key, value in flow.initial(1, generator).items()
    }
    frozen = FrozenFlow(flow, parameters)
    z = torch.randn(1, 6, 1, generator=generator, dtype=torch.float64)

    def image(points):
        return frozen.forward(points)[0]

    def original(scores):
        return frozen.inverse(scores)[0]

    of_map = torch.autograd.functional.jacobian(image, z).view(6, 6)
    of_inverse = torch.autograd.functional.jacobian(original, image(z)).view(6, 6)
    assert torch.allclose(of_map @ of_inverse, torch.eye(6).double(), atol=1e-9)


def double_and_sum(x):
    return 2 * x, x.sum(dim=2)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_a_function_of_chunks_may_have_chunks_of_its_own(two_threads):
    """It had waited for ever: both threads for a third."""
    points = torch.arange(2 * 3 * 20_000.0).view(2, 20_000, 3)

    def nested(x):
        return map_chunked(lambda y: y.sum(dim=2), x, 1000)

    results = []
    thread = Thread(target=lambda: results.append(map_chunked(nested, points, 5000)), daemon=True)
    thread.start()
    thread.join(timeout=60)
    assert results, "the threads wait for each other"
    assert torch.equal(results[0], points.sum(dim=2))


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("rows", [64, 700, 10**6])
@pytest.mark.parametrize(("members", "n"), [(1, 0), (1, 1), (3, 4999), (5, 2000)])
def test_chunks_are_joined_in_order(members, n, rows):
    points = torch.randn(members, n, 2, generator=torch.Generator().manual_seed(0))
    sizes = []

    def record_size(x):
        sizes.append(x.shape[0] * x.shape[1])
        return double_and_sum(x)

    both = map_chunked(record_size, points, rows)
    assert all(torch.equal(a, b) for a, b in zip(both, double_and_sum(points), strict=True))
    assert torch.equal(map_chunked(lambda x: x.sum(dim=2), points, rows), points.sum(dim=2))
    assert sum(sizes) == members * n
    assert max(sizes) <= rows + members


@pytest.mark.parametrize("threads", [2, 16])
def test_threads_get_at_least_min_rows(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        sizes = []
        map_chunked(lambda x: sizes.append(x.shape[1]) or x, torch.zeros(1, 10_000, 2), 10**6)
    finally:
        torch.set_num_threads(before)
    assert len(sizes) == min(threads, 10_000 // MIN_ROWS_PER_THREAD)
    assert max(sizes) - min(sizes) <= len(sizes)
    assert sum(sizes[:-1]) >= (len(sizes) - 1) * MIN_ROWS_PER_THREAD


@pytest.mark.usefixtures("two_threads")
def test_an_error_in_a_chunk_is_raised():
    def broken(x):
        raise ArithmeticError("in a chunk")

    with pytest.raises(ArithmeticError, match="in a chunk"):
        map_chunked(broken, torch.zeros(1, 20_000, 2), 1000)


@pytest.mark.usefixtures("two_threads")
def test_first_callers_side_by_side_leave_threads_as_they_were(fitted, curved):
    with one_thread():
        expert, _ = fitted("maf", 2)
    _pool.cache_clear()
    points = curved(2, 20_000, 3)
    with ThreadPoolExecutor(4) as callers:
        parallel = list(callers.map(expert.log_prob, [points] * 8))
    whole = expert.log_prob(points)
    assert all(torch.allclose(log_q, whole, atol=1e-10) for log_q in parallel)
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("leaves_first", [0, 1])
def test_side_by_side_uses_of_one_thread_give_back_the_threads(leaves_first):
    """In whatever order two of them end, threads born later begin with what was before."""
    inside, has_left = Barrier(2), Event()

    def use(number):
        with one_thread():
            inside.wait(60)
            if number != leaves_first:
                has_left.wait(60)
        has_left.set()

    # The second thread is born while the first has already set its number of threads.
    with ThreadPoolExecutor(2) as pool:
        for job in [pool.submit(use, number) for number in range(2)]:
            job.result()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 2
    assert torch.get_num_threads() == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.usefixtures("two_threads")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forking beside threads
def test_a_forked_process_has_threads_of_its_own():
    points = torch.randn(1, 12_000, 2, generator=torch.Generator().manual_seed(0))
    expected = map_chunked(double_and_sum, points, 1000)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(60)  # waiting for the parent's threads would never end
            results = map_chunked(double_and_sum, points, 1000)
            code = 0 if all(map(torch.equal, results, expected)) else 1
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
