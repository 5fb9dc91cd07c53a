"""How far flows reach beyond their draws: exact, the identity at them, no wild images."""

from __future__ import annotations

import pytest
import torch

from amfvi.experts import MAF
from amfvi.experts.flows.reach import Reach
from amfvi.experts.neural import REACH


def test_the_map_is_a_bijection_with_its_jacobian():
    reach = Reach(torch.tensor([[3.0, 50.0]]))
    z = torch.linspace(-20, 20, 41, dtype=torch.float64).expand(1, 2, 41)
    y, log_det = reach.forward(z)
    back, log_det_back = reach.inverse(y)
    assert torch.allclose(back, z, rtol=1e-12)
    assert torch.allclose(log_det, -log_det_back, atol=1e-9)
    for i in (0, 13, 20, 40):
        point = z[..., i : i + 1].clone().requires_grad_()
        jacobian = torch.autograd.functional.jacobian(
            lambda p: reach.forward(p)[0].flatten(), point
        )
        assert float(jacobian.reshape(2, 2).det().log()) == pytest.approx(float(log_det[0, i]))


def test_numbers_stay_finite_far_out():
    reach = Reach(torch.tensor([[3.0]]))
    for z in (1e3, 1e9):
        y, log_det = reach.forward(torch.tensor([[[z]]], dtype=torch.float64))
        assert bool(y.isfinite())
        assert bool(log_det.isfinite())
        assert float(reach.inverse(y)[0]) == pytest.approx(z)


@pytest.mark.parametrize("kind", ["maf", "realnvp", "nsf"])
def test_it_is_the_identity_at_every_draw(kind, fitted, curved):
    expert, _ = fitted(kind, 2)
    z = expert.whitening.forward(curved(2, 1500, 0).expand(expert.n_members, -1, -1))
    assert torch.equal(expert.reach.forward(z)[0], z)


@pytest.mark.parametrize("seed", range(3))
def test_no_image_lies_far_beyond_the_draws(seed):
    """Half-heavy tails: scales grow with the distance, and on beyond all draws."""
    generator = torch.Generator().manual_seed(seed)
    gamma = -torch.rand(2, 2000, 2, generator=generator).double().log().sum(dim=0)
    sign = torch.randint(2, (2000, 2), generator=generator) * 2 - 1
    x = sign * gamma.square() / 4
    expert = MAF(max_steps=400).fit(x, folds=2, seed=seed)
    images = expert.sample(100_000, generator=torch.Generator().manual_seed(seed))
    # With an edge of 1.25 farthest draws, log(1e9) widths of a tenth of it are 2.1 edges more.
    assert float((images.abs().amax(dim=0) / x.abs().amax(dim=0)).max()) < 6
    without = {name: value for name, value in expert.parameters.items() if name != REACH}
    far = type(expert)(expert.config, expert.whitening, without).sample(
        100_000, generator=torch.Generator().manual_seed(seed)
    )
    assert float(far.abs().max()) > float(images.abs().max())


def test_what_was_saved_without_is_restored_without(fitted, curved):
    expert, _ = fitted("maf", 2)
    tensors = {name: value for name, value in expert.tensors().items() if REACH not in name}
    restored = expert.config.restore(2, tensors)
    assert restored.reach is None
    x = curved(2, 100, 0)
    assert torch.allclose(restored.log_prob(x), expert.log_prob(x))
