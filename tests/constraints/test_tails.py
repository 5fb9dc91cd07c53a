"""Compression of heavy tails: a bijection with its Jacobian, only where it is needed."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scipy import stats

import amfvi
from amfvi.constraints.constraints import Constraints
from amfvi.constraints.tails import PERHAPS_HEAVY, TailCompression
from amfvi.constraints.transform import UnconstrainingTransform
from amfvi.errors import UsageError
from amfvi.mixture import Mixture
from amfvi.saving import read_model, write_model

FREE = UnconstrainingTransform(Constraints.unbounded(2))


def draws(name, n=5000, seed=0):
    """A column of quantiles and random draws of a distribution of scipy, (n, 1)."""
    frozen = getattr(stats, name.partition("-")[0])(*map(float, name.split("-")[1:]))
    return torch.from_numpy(frozen.rvs(size=(n, 1), random_state=seed))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("name", "is_heavy"),
    [("norm", False), ("logistic", False), ("uniform", False), ("gumbel_r", False),
     ("t-5", False), ("cauchy", True), ("t-1.5", True), ("levy", True)],
)  # fmt: skip
def test_heavy_tails_are_told_from_light_ones(name, is_heavy, seed):
    assert TailCompression.fit(draws(name, seed=seed)).is_needed == is_heavy


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_round_trip_and_jacobian(scale):
    y = scale * torch.cat([draws("cauchy"), draws("norm")], dim=1)
    compression = TailCompression.fit(y)
    assert [math.isfinite(s) for s in compression.scales] == [True, False]
    v, log_det = compression.compress(y)
    back, log_det_back = compression.expand(v)
    assert torch.allclose(back, y, rtol=1e-9)
    assert torch.allclose(log_det, -log_det_back, atol=1e-9)
    row = y[:1].clone().requires_grad_()
    jacobian = torch.autograd.functional.jacobian(lambda p: compression.compress(p)[0], row)
    assert float(jacobian[0, :, 0].det().log()) == pytest.approx(float(log_det[0]), abs=1e-9)
    assert float(v[:, 0].abs().max()) < 30 * scale  # a tail of 1e4 and more before


def test_beyond_the_numbers_there_is_no_density():
    compression = TailCompression.fit(draws("cauchy"))
    y, log_det = compression.expand(torch.tensor([[1e4], [-1e4], [0.0]]).double())
    assert bool(y.isfinite().all())
    assert log_det[:2].tolist() == [-math.inf, -math.inf]
    assert math.isfinite(log_det[2])


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_far_beyond_the_draws_the_map_is_a_straight_line(scale):
    """A tail in compressed coordinates is not thrown exponentially far."""
    y = scale * torch.cat([draws("cauchy"), draws("norm")], dim=1)
    straight = TailCompression.fit(y).straight_beyond(y)
    assert torch.equal(straight.compress(y)[0], TailCompression.fit(y).compress(y)[0])
    assert [math.isfinite(edge) for edge in straight.edges] == [True, False]
    far = torch.tensor([[1e9, 0.0], [2e9, 0.0], [3e9, 0.0]]).double() * scale
    v, log_det = straight.compress(far)
    back, log_det_back = straight.expand(v)
    assert torch.allclose(back, far, rtol=1e-9)
    assert torch.allclose(log_det, -log_det_back, atol=1e-9)
    steps = v[:, 0].diff()
    assert float(steps[1] / steps[0]) == pytest.approx(1.0)


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="one positive edge for each"):
        TailCompression((0.0,), (1.0,), (1.0, 2.0))
    with pytest.raises(UsageError, match="one positive scale for each"):
        TailCompression((0.0,), (1.0, 1.0))
    with pytest.raises(UsageError, match="one positive scale for each"):
        TailCompression((0.0,), (0.0,))
    with pytest.raises(UsageError, match="a compression of 2 tails is needed, found one of 1"):
        replace(FREE, compression=TailCompression((0.0,), (1.0,)))


def test_only_free_parameters_are_compressed():
    """The logarithm of a positive one is compressed already."""
    constraints = Constraints((0.0, -math.inf), (math.inf, math.inf))
    x = torch.cat([draws("levy"), draws("cauchy")], dim=1)
    transform = UnconstrainingTransform(constraints).with_compressed_tails(x)
    assert transform.compression is not None
    assert [math.isfinite(s) for s in transform.compression.scales] == [False, True]
    y, log_det = transform.to_unconstrained(x)
    back, log_det_back = transform.from_unconstrained_with_log_det(y)
    assert torch.allclose(back, x, rtol=1e-6)
    assert torch.allclose(log_det, -log_det_back, atol=1e-6)


def test_light_tails_stay_as_they_are():
    x = torch.cat([draws("norm"), draws("logistic")], dim=1)
    assert float((x / x.abs().median(dim=0).values).abs().max()) < PERHAPS_HEAVY
    assert FREE.with_compressed_tails(x) == FREE


@pytest.mark.filterwarnings("ignore::amfvi.errors.AmfviWarning")
def test_a_mixture_over_compressed_tails_is_one_density_however_it_is_asked(tmp_path):
    """Normalized in the user's parameter, drawn as it says, the same after saving."""
    x = draws("cauchy", 2000)
    transform = UnconstrainingTransform(Constraints.unbounded(1)).with_compressed_tails(x)
    y = transform.to_unconstrained(x)[0]
    mixture = amfvi.fit(y, experts="gmm", folds=2, device="cpu")
    compressed = Mixture(mixture.experts, mixture.weights, transform=transform)
    v = torch.linspace(-60, 60, 200_001, dtype=torch.float64)[:, None]
    x, log_det = transform.from_unconstrained_with_log_det(v)
    mass = torch.trapezoid((compressed.log_prob(x) + log_det).exp(), v[:, 0])
    assert float(mass) == pytest.approx(1, abs=1e-4)
    drawn = compressed.sample((20_000,), torch.Generator().manual_seed(0))[:, 0]
    cumulative = torch.cumulative_trapezoid((compressed.log_prob(x) + log_det).exp(), v[:, 0])
    at = torch.searchsorted(x[1:, 0].contiguous(), drawn).clamp(max=len(cumulative) - 1)
    assert stats.kstest(cumulative[at].numpy(), "uniform").pvalue > 1e-4
    write_model(compressed, tmp_path)
    again = read_model(tmp_path).mixture
    assert torch.equal(again.log_prob(x), compressed.log_prob(x))
