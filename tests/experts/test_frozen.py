"""A frozen flow is the flow that was trained, and its evaluation leaves nothing behind."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from amfvi.experts import MAF, NSF, RealNVP
from amfvi.experts.frozen import FrozenFlow
from amfvi.experts.pieces import in_pieces

FLOWS = {
    "maf": MAF(),
    "maf, silu": MAF(activation="silu"),
    "realnvp": RealNVP(),
    "nsf": NSF(),
    "one hidden layer": MAF(hidden_layers=1),
    "one layer": RealNVP(layers=1),
}


@pytest.mark.parametrize("dim", [1, 2, 3, 6])
@pytest.mark.parametrize("name", FLOWS)
def test_frozen_is_the_trained_map_and_its_inverse(name, dim):
    generator = torch.Generator().manual_seed(dim)
    flow = FLOWS[name].build(dim)
    parameters = {
        key: (value.double() + 0.1 * torch.randn(value.shape, generator=generator).double())
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


def doubled(x):
    return 2 * x, x.sum(dim=2)


@pytest.mark.parametrize("rows", [1, 700, 10**6])
@pytest.mark.parametrize(("members", "n"), [(1, 0), (1, 1), (3, 4999), (5, 2000)])
def test_pieces_are_joined_in_order(members, n, rows):
    if rows == 1 and n > 1:
        pytest.skip("five thousand pieces say no more than eight")
    points = torch.randn(members, n, 2, generator=torch.Generator().manual_seed(0))
    both = in_pieces(doubled, points, rows)
    assert all(torch.equal(a, b) for a, b in zip(both, doubled(points), strict=True))
    assert torch.equal(in_pieces(lambda x: x.sum(dim=2), points, rows), points.sum(dim=2))


def test_an_error_in_a_piece_comes_out_and_threads_stay_as_they_were(fitted, curved):
    expert, _ = fitted("maf", 2)
    before = torch.get_num_threads()

    def broken(x):
        raise ArithmeticError("in a piece")

    with pytest.raises(ArithmeticError, match="in a piece"):
        in_pieces(broken, torch.zeros(1, 20_000, 2), 1000)
    points = curved(2, 50_000, 3)
    whole = expert.log_prob(points)
    with ThreadPoolExecutor(4) as pool:  # callers of their own
        for parallel in pool.map(expert.log_prob, [points] * 8):
            assert torch.allclose(parallel, whole, atol=1e-10)
    assert torch.get_num_threads() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forking beside threads
def test_a_forked_process_has_threads_of_its_own():
    points = torch.randn(1, 12_000, 2, generator=torch.Generator().manual_seed(0))
    expected = in_pieces(doubled, points, 1000)
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # a wait for threads that are not there would be for ever
        found = in_pieces(doubled, points, 1000)
        os._exit(0 if all(map(torch.equal, found, expected)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
