"""What must hold on a CUDA device; skipped where there is none."""

from __future__ import annotations

import pytest
import torch

import amfvi
from amfvi.experts import MAF, NSF, RealNVP
from amfvi.targets import get

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

SMALL = {
    "maf": MAF(max_steps=300),
    "realnvp": RealNVP(max_steps=300),
    "nsf": NSF(max_steps=300),
    "rbig": "rbig",
    "gmm": "gmm",
    "tmm": "tmm",
}


@pytest.fixture(scope="module")
def posterior():
    return amfvi.fit("banana", n_draws=2000, experts=SMALL, device="cuda")


def test_a_fit_on_a_gpu_is_as_good_as_one_on_the_cpu(posterior):
    assert posterior.device.type == "cuda"
    on_cpu = amfvi.fit("banana", n_draws=2000, experts=SMALL, device="cpu")
    scores = [amfvi.evaluate(q, "banana").mixture.kl for q in (posterior, on_cpu)]
    assert scores[0] < 1.3 * scores[1] + 0.002


def test_densities_and_gradients_are_those_of_the_cpu(posterior):
    x = get("banana").sample(5000, torch.Generator().manual_seed(0)).requires_grad_()
    on_cpu = posterior.to("cpu")
    here, there = posterior.log_prob(x), on_cpu.log_prob(x)
    assert here.device.type == "cpu"
    assert torch.allclose(here, there, atol=1e-4)
    gradients = [torch.autograd.grad(value.sum(), x)[0] for value in (here, there)]
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-3)
    on_device = x.detach().cuda().requires_grad_()
    value = posterior.log_prob(on_device)
    assert value.device.type == "cuda"
    (gradient,) = torch.autograd.grad(value.sum(), on_device)
    assert torch.allclose(gradient.cpu(), gradients[1], rtol=1e-3, atol=1e-3)


def test_a_seed_means_the_same_draws_on_every_device(posterior):
    draws = [
        q.sample((2000,), torch.Generator().manual_seed(3))
        for q in (posterior, posterior.to("cpu"))
    ]
    assert torch.allclose(*draws, atol=1e-3)


def test_a_model_saved_from_a_gpu_is_read_on_a_cpu_and_back(posterior, tmp_path):
    posterior.save(tmp_path / "model")
    x = get("banana").sample(500, torch.Generator().manual_seed(0))
    for device in ("cpu", "cuda"):
        restored = amfvi.load(tmp_path / "model", device=device)
        assert restored.device.type == device
        assert torch.allclose(restored.log_prob(x), posterior.log_prob(x), atol=1e-4)


def test_a_log_density_is_called_on_the_device(posterior):
    devices = set()

    def log_density(x):
        devices.add(x.device.type)
        return -0.5 * x.square().sum(dim=1)

    density = amfvi.LogDensity(log_density, 2)
    fitted = amfvi.fit(density, experts="gmm", n_draws=1000, folds=2, device="cuda")
    assert "cuda" in devices
    assert fitted.diagnostics.verdict == amfvi.Verdict.TRUST
    assert abs(fitted.diagnostics.log_z - 1.8379) < 0.02


CENTER = torch.tensor([1.0, -1.0], dtype=torch.float64)
"""Data of a user, on the CPU."""


def by_torch(x):
    return -0.5 * (x - CENTER).square().sum(dim=1)


def by_numpy(x):
    return -0.5 * ((x - CENTER.numpy()) ** 2).sum(axis=1)


@pytest.mark.parametrize(("function", "pool"), [(by_torch, None), (by_numpy, None), (by_torch, 2)])
def test_a_function_whose_data_are_on_the_cpu_is_computed_there(function, pool):
    density = amfvi.LogDensity(function, 2, pool=pool)
    fitted = amfvi.fit(density, experts=[MAF(max_steps=300)], n_draws=1000, folds=2, device="cuda")
    assert fitted.device.type == "cuda"
    assert fitted.diagnostics.verdict == amfvi.Verdict.TRUST, fitted.diagnostics.reasons
    assert abs(fitted.diagnostics.log_z - 1.8379) < 0.02
    weighted = fitted.weighted_draws(500)
    assert abs(weighted.importance.log_z.mean - 1.8379) < 0.05


def test_a_fit_of_pairs_is_normalized_and_read_back(tmp_path):
    generator = torch.Generator().manual_seed(0)
    c = torch.randn(400, 1, generator=generator).double()
    y = c + 0.5 * torch.randn(400, 1, generator=generator).double()
    fitted = amfvi.fit(y, given=c, device="cuda", folds=2)
    grid = torch.linspace(-5, 5, 1001, dtype=torch.float64)[:, None]
    density = fitted.log_prob(grid, given=torch.zeros(1001, 1).double()).exp()
    assert abs(float(density.sum() * 0.01) - 1) < 1e-3
    again = amfvi.load(fitted.save(tmp_path / "model"))
    assert torch.allclose(again.log_prob(y, given=c), fitted.log_prob(y, given=c), atol=1e-4)
