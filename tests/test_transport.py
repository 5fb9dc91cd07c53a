"""The bijection between a standard normal and a posterior."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import constraints

import amfvi
from amfvi.errors import UsageError
from amfvi.experts import GMM, MAF, RBIG, RealNVP
from amfvi.mixture import Mixture


def seeded(number):
    return torch.Generator().manual_seed(number)


def bent(n=800):
    """Draws of x₁ ~ N(0, 1), x₂ | x₁ ~ N(x₁², .3²)."""
    z = torch.randn(n, 2, generator=seeded(0), dtype=torch.float64)
    return torch.stack([z[:, 0], z[:, 0].square() + 0.3 * z[:, 1]], dim=1)


CONFIGS = {
    "maf": MAF(layers=2, max_steps=100),
    "realnvp": RealNVP(layers=4, max_steps=100),
    "rbig": RBIG(max_layers=5),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_it_is_a_bijection_with_the_jacobian_of_autograd(name):
    expert = CONFIGS[name].fit(bent(), folds=2)
    transport = Mixture({name: expert}, [1.0])
    transport = amfvi.Transport(transport, name)
    u = torch.randn(5, 2, generator=seeded(1), dtype=torch.float64)
    x = transport(u)
    assert torch.allclose(transport.inv(x), u, atol=1e-6)
    jacobians = torch.autograd.functional.jacobian(lambda v: transport(v).sum(dim=0), u)
    expected = jacobians.permute(1, 0, 2).det().abs().log()
    assert torch.allclose(transport.log_abs_det_jacobian(u, x), expected, atol=1e-5)
    assert transport(u.reshape(5, 1, 2)).shape == (5, 1, 2)


def test_constraints_are_kept():
    shares = torch.softmax(torch.randn(len(bent()), 3, generator=seeded(4)).double(), dim=1)
    draws = torch.cat([(0.3 * bent()).exp(), shares], dim=1)
    simplex = {("p[1]", "p[2]", "p[3]"): constraints.simplex, "a": constraints.positive,
               "b": constraints.positive}  # fmt: skip
    posterior = amfvi.fit(
        draws, names=["a", "b", "p[1]", "p[2]", "p[3]"], constraints=simplex,
        experts={"maf": MAF(layers=2, max_steps=50)}, folds=2,
    )  # fmt: skip
    transport = posterior.transport()
    u = torch.randn(6, 4, generator=seeded(2), dtype=torch.float64)
    x = transport(u)
    assert x.shape == transport.forward_shape(u.shape) == (6, 5)
    assert transport.inverse_shape(x.shape) == u.shape
    assert bool(posterior.constraints.contains(x).all())
    assert torch.allclose(transport.inv(x), u, atol=1e-6)


def test_it_is_the_most_important_expert_with_a_map_or_the_one_asked_for():
    draws = bent()
    maf, rbig = (CONFIGS[name].fit(draws, folds=2) for name in ("maf", "rbig"))
    gmm = GMM().fit(draws)
    mixture = Mixture({"maf": maf, "rbig": rbig, "gmm": gmm}, [0.3, 0.1, 0.6])
    u = torch.randn(4, 2, generator=seeded(3), dtype=torch.float64)
    by_default = amfvi.Transport(mixture)(u)
    assert torch.equal(by_default, amfvi.Transport(mixture, "maf")(u))
    assert not torch.allclose(by_default, amfvi.Transport(mixture, "rbig")(u))
    with pytest.raises(UsageError, match=r"no expert 'gmm' with a map.*maf, rbig"):
        amfvi.Transport(mixture, "gmm")
    linear = amfvi.Transport(Mixture({"gmm": gmm}, [1.0]))(u)
    assert torch.allclose(
        linear[0]
        + linear[1]
        - linear[2]
        - amfvi.Transport(Mixture({"gmm": gmm}, [1.0]))((u[0] + u[1] - u[2])[None])[0],
        torch.zeros(2).double(),
    )


@pytest.mark.slow
def test_hamiltonian_chains_of_pyro_in_its_latent_space_are_exact():
    """NeuTra: the target is narrower than the draws that the map was fitted to."""
    from pyro.infer import MCMC, NUTS

    transport = amfvi.fit(bent(), experts={"maf": MAF(layers=3, max_steps=150)}).transport()

    def potential(values):
        u = values["u"]
        x = transport(u)
        log_p = -0.5 * (x[0].square() + ((x[1] - x[0].square()) / 0.2).square())
        return -(log_p + transport.log_abs_det_jacobian(u, x))

    import pyro

    with torch.random.fork_rng(devices=[]):
        pyro.set_rng_seed(0)
        chains = MCMC(
            NUTS(potential_fn=potential, max_tree_depth=4), num_samples=250, warmup_steps=100,
            initial_params={"u": torch.zeros(2, dtype=torch.float64)}, disable_progbar=True,
        )  # fmt: skip
        chains.run()
        u = chains.get_samples()["u"]
    x = transport(u).detach()
    residual = x[:, 1] - x[:, 0].square()
    assert float(residual.std()) == pytest.approx(0.2, rel=0.2)
    assert float(x[:, 0].std()) == pytest.approx(1.0, rel=0.25)
