"""Axes along which draws are bent: found where there are some, left alone where there are none."""

from __future__ import annotations

import math

import pytest
import torch

import amfvi
from amfvi.experts import MAF, RBIG, Folds, RealNVP
from amfvi.experts.bent_axes import find_bent_axes
from amfvi.experts.flows import flow as flows
from amfvi.experts.flows.flow import MIXING
from amfvi.experts.gmm import GMM
from amfvi.experts.mixture_base import to_latent_space
from amfvi.experts.training.muon import Muon
from amfvi.experts.whitening import Whitening


def generator(seed):
    return torch.Generator().manual_seed(seed)


def random_rotation(d, seed):
    return torch.linalg.qr(torch.randn(d, d, generator=generator(seed), dtype=torch.float64)).Q


def bent(d, n, seed):
    """Whitened draws (d, n): every second coordinate is bent by the one before it."""
    z = torch.randn(d, n, generator=generator(seed), dtype=torch.float64)
    z[1::2] = (z[1::2] + z[0 : d - 1 : 2].square() - 1) / 3**0.5
    return z


def skewed(d, n, seed):
    return -torch.rand(d, n, generator=generator(seed), dtype=torch.float64).log() - 1


def heavy(d, n, seed):
    z = torch.randn(d, n, generator=generator(seed), dtype=torch.float64)
    squares = torch.randn(3, d, n, generator=generator(seed + 1), dtype=torch.float64).square()
    return z / squares.sum(dim=0).sqrt()


def normal(d, n, seed):
    return torch.randn(d, n, generator=generator(seed), dtype=torch.float64)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("d", "n"), [(4, 4000), (10, 8000), (40, 8000)])
def test_the_planes_of_bends_are_found_whatever_the_rotation(d, n, seed):
    turn = random_rotation(d, seed)
    axes = find_bent_axes(turn @ bent(d, n, seed)).double()
    assert torch.allclose(axes @ axes.T, torch.eye(d).double(), atol=1e-5)
    in_plane = (axes @ turn).square().unflatten(1, (d // 2, 2)).sum(dim=2)
    assert float(in_plane.amax(dim=1).min()) > 0.95
    assert in_plane.argmax(dim=1).bincount().tolist() == [2] * (d // 2)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("d", [2, 8, 30])
@pytest.mark.parametrize("draw", [normal, skewed, heavy])
def test_independent_coordinates_keep_their_axes(draw, d, seed):
    """But for one pair, now and then, where third moments are infinite."""
    moved = (find_bent_axes(draw(d, 5000, seed)) != torch.eye(d)).any(dim=1)
    assert int(moved.sum()) <= (2 if draw is heavy else 0)


def test_a_few_draws_far_out_turn_nothing():
    z = normal(10, 5000, 0)
    z[:, :5] *= 1000.0
    axes = find_bent_axes(z)
    assert float((axes - torch.eye(10)).abs().max()) < 0.5
    assert torch.isfinite(axes).all()


@pytest.mark.parametrize("config", [MAF(compare_unmixed=False, max_steps=25),
                                    RealNVP(base_components=1, max_steps=25)])  # fmt: skip
def test_flows_of_eight_parameters_start_there_and_of_seven_at_the_identity(config):
    for d, is_turned in ((7, False), (8, True)):
        draws = (random_rotation(d, 1) @ bent(d, 3000, 1)).T
        expert = config.fit(draws, folds=2)
        distance = float((expert.parameters[MIXING][:, 0] - torch.eye(d)).abs().max())
        assert (distance > 0.6) is is_turned
        # A rotation leaves the density of the standard normal as it is.
        normal_nll = 0.5 * d * (1 + math.log(2 * math.pi))
        assert expert.report.history[0].heldout_nll == pytest.approx(normal_nll, rel=0.05)


def test_a_flow_on_a_mixture_starts_as_the_mixture():
    """Seen from a mixture not all directions are alike: turned draws would be improbable."""
    d = 9
    draws = (random_rotation(d, 2) @ bent(d, 2000, 2)).T
    draws[:700, 0] += 9.0
    folds = Folds(draws, torch.arange(len(draws)) % 2)
    mixture, of_mixture = GMM(max_components=3).fit_mixture(folds, generator=generator(0))
    base = to_latent_space(mixture, Whitening.fit(folds))
    _, report = RealNVP(max_steps=25).fit_flow(
        folds, generator=generator(0),
        base_nll=lambda u, log_det: -base.density.log_prob(u) - log_det,
    )  # fmt: skip
    assert report.history[0].heldout_nll == pytest.approx(of_mixture.heldout_nll, abs=1e-3)


@pytest.mark.parametrize("d", [16, 17, 30])
def test_couplings_that_compute_one_half_are_the_masked_ones(d, monkeypatch):
    flow = RealNVP().build(dim=d)
    parameters = {
        name: (value + 0.1 * torch.randn(value.shape, generator=generator(3)) * flow.masks[name])
        .double()
        .requires_grad_()
        for name, value in flow.initial(3, generator(0)).items()
    }
    z = torch.randn(3, d, 7, generator=generator(1), dtype=torch.float64)
    found = []
    for many in (0, 1000):
        monkeypatch.setattr(flows, "MANY_COUPLED", many)
        u, log_det = flow.forward(parameters, z)
        gradients = torch.autograd.grad(flow.nll(parameters, z).sum(), list(parameters.values()))
        masked = [g * flow.masks[k] for k, g in zip(parameters, gradients, strict=True)]
        found.append([u, log_det, *masked])
    for half, full in zip(*found, strict=True):
        assert torch.allclose(half, full, atol=1e-12)


def test_rare_updates_go_as_far_as_all_of_them():
    gradient = torch.randn(2, 1, 6, 6, generator=generator(0))
    moved = []
    for every in (1, 4):
        matrices = torch.zeros(2, 1, 6, 6)
        muon = Muon(matrices, torch.ones_like(matrices), momentum=0.0, every=every)
        for step in range(1, 9):
            muon.step(gradient, torch.tensor(0.1))
            assert bool(matrices.any()) is (step >= every)
        moved.append(matrices)
    assert torch.allclose(moved[0], moved[1], atol=1e-5)


def test_rbig_of_many_numbers_is_exact_and_is_read_back(tmp_path):
    """Its layers are fitted in single precision, and are kept in double."""
    draws = (random_rotation(40, 0) @ bent(40, 10_000, 0)).T
    posterior = amfvi.fit(draws, experts=[RBIG(max_layers=4)], test_fraction=0.0, folds=2)
    posterior.save(tmp_path / "model")
    loaded = amfvi.load(tmp_path / "model")
    x = draws[:200]
    assert torch.equal(loaded.log_prob(x), posterior.to("cpu").log_prob(x))
    expert = loaded.experts["rbig"]
    back, inverse_log_det = expert.inverse(expert.forward(x.expand(2, -1, -1))[0])
    assert torch.allclose(back[0], x, atol=1e-9)
    assert torch.allclose(inverse_log_det, -expert.forward(x.expand(2, -1, -1))[1], atol=1e-9)
