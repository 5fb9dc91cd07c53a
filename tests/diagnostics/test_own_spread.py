"""Standard deviations of a mixture's plain draws, those that no sample shows among them."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal

import amfvi
from amfvi.constraints.constraints import Constraints
from amfvi.constraints.transform import UnconstrainingTransform
from amfvi.diagnostics.own_spread import RAREST, _ratio_of_variances, measure_own_spread
from amfvi.experts import GMM, RBIG, RealNVP
from amfvi.experts.elliptical.mixture import EllipticalMixture
from amfvi.experts.flows.bijection import BijectiveExpert
from amfvi.experts.mixture_base import MixtureBaseFlow, to_latent_space
from amfvi.experts.whitening import Whitening
from amfvi.mixture import Mixture

EDGE = 4.5
"""Normal score beyond which an outlier begins: seven draws in a million."""


NORMAL = Normal(*torch.tensor([0.0, 1.0], dtype=torch.float64))


class Thrower(BijectiveExpert):
    """A map that is the identity up to a normal score, and steep as a cubic beyond."""

    def __init__(self, steepness):
        identity = torch.eye(1, dtype=torch.float64)[None]
        super().__init__(RBIG(), Whitening.from_factor(torch.zeros(1, 1).double(), identity))
        self.steepness = steepness

    def far(self, u):
        return self.steepness * (u.abs() - EDGE).clamp(min=0)

    def _from_normal(self, u):
        log_det = (1 + 3 * self.far(u).square() * self.steepness).log().sum(dim=1)
        return u + u.sign() * self.far(u) ** 3, log_det

    def _to_normal(self, z):
        low, high = torch.zeros_like(z), z.abs()
        for _ in range(200):  # bisection
            middle = (low + high) / 2
            too_low = middle + self.far(middle) ** 3 < z.abs()
            low, high = torch.where(too_low, middle, low), torch.where(too_low, high, middle)
        u = z.sign() * (low + high) / 2
        return u, -self._from_normal(u)[1]

    def tensors(self):
        return {}

    def to(self, device):
        return self


def exact_sd(expert):
    most = -NORMAL.icdf(torch.tensor(RAREST / 2, dtype=torch.float64))
    u = torch.linspace(-float(most), float(most), 400_001, dtype=torch.float64)
    x = expert._from_normal(u[None, None])[0][0, 0]
    return math.sqrt(float(torch.trapezoid(NORMAL.log_prob(u).exp() * x.square(), u)))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("steepness", [0.0, 20.0, 100.0])
def test_an_outlier_in_a_hundred_thousand_draws_counts(steepness, seed):
    """Its share of the variance is measured to about a half, from draws that rarely have it."""
    expert = Thrower(steepness)
    mixture = amfvi.Mixture({"thrower": expert}, [1.0])
    spread = measure_own_spread(mixture, torch.Generator().manual_seed(seed))
    exact = exact_sd(expert)
    assert {0.0: 0.99 < exact < 1.01, 20.0: 1.5 < exact < 2.5, 100.0: exact > 100}[steepness]
    assert float(spread.sd[0]) == pytest.approx(exact, rel=0.03 if steepness == 0 else 0.5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["maf", "rbig", "nsf", "gmm", "tmm"])
def test_of_a_tame_mixture_it_is_that_of_its_draws(fitted, kind, seed):
    expert, _ = fitted(kind, 3)
    mixture = amfvi.Mixture({kind: expert}, [1.0])
    spread = measure_own_spread(mixture, torch.Generator().manual_seed(seed))
    plain = mixture.sample((50_000,), torch.Generator().manual_seed(100 + seed))
    assert torch.allclose(spread.sd, plain.std(dim=0), rtol=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_what_the_density_supports_is_told_from_outliers(seed):
    """Outliers count for nothing where there is no density, and in full where there is."""
    mixture = amfvi.Mixture({"thrower": Thrower(100.0)}, [1.0])

    def normal_alone(x):  # log p − log q, of a posterior that ends where the outliers begin
        return torch.where(x[:, 0].abs() > EDGE, -math.inf, 0.0).double()

    def measure(log_excess):
        return measure_own_spread(mixture, torch.Generator().manual_seed(seed), log_excess)

    spread = measure(normal_alone)
    assert spread.sd[0] > 50
    assert float(spread.supported[0]) == pytest.approx(1.0, rel=0.05)
    assert torch.equal(measure(lambda x: torch.zeros(len(x)).double()).supported, spread.sd)
    assert measure(None).supported is None


def test_an_infinite_draw_is_an_infinite_spread():
    class Infinite(Thrower):
        def _from_normal(self, u):
            x, log_det = super()._from_normal(u)
            return torch.where(u > 1, math.inf, x), log_det

    mixture = amfvi.Mixture({"infinite": Infinite(0.0)}, [1.0])
    assert measure_own_spread(mixture, torch.Generator()).sd.isinf().all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["gmm", "realnvp"])
def test_components_behind_a_steep_transform_are_measured_too(kind, seed):
    """A log-normal of a log sd of three: 20,000 draws mostly give half of its spread or less."""
    config, sd = GMM(), torch.full((1, 1), 3.0, dtype=torch.float64)
    expert = EllipticalMixture.single(config, torch.zeros(1).double(), sd)
    if kind == "realnvp":  # no layer bends it
        z = sd * torch.randn(400, 1, generator=torch.Generator().manual_seed(9)).double()
        flow = RealNVP(layers=2, max_steps=25, base_components=1).fit(z, folds=1)
        outputs = {n: v for n, v in flow.parameters.items() if n.startswith("output")}
        untrained = flow.flow.initial(1, torch.Generator())
        flow.parameters.update({name: untrained[name] for name in outputs})
        expert = MixtureBaseFlow(flow, to_latent_space(expert, flow.whitening))
    positive = UnconstrainingTransform(Constraints((0.0,), (math.inf,)))
    mixture = amfvi.Mixture({kind: expert}, [1.0], transform=positive)
    farthest = float(-NORMAL.icdf(torch.tensor(RAREST, dtype=torch.float64)))
    exact = math.exp(9) * math.sqrt(float(NORMAL.cdf(torch.tensor(farthest - 6))))
    spread = measure_own_spread(mixture, torch.Generator().manual_seed(seed))
    assert float(spread.sd[0]) == pytest.approx(exact, rel=0.5)
    samples = [mixture.sample((20_000,), torch.Generator().manual_seed(s)) for s in range(9)]
    assert torch.stack([x.std() for x in samples]).median() < 0.6 * exact


def sinh_log_prob(x, factor):
    """Of ``factor`` sinh z with a normal z."""
    return NORMAL.log_prob((x / factor).asinh()) - 0.5 * torch.log(factor**2 + x.square())


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("factor", [0.8, 1.0, 1.15])
def test_the_density_tells_its_own_spread(factor, seed):
    """Draws whose first coordinate is too narrow, right, or too wide throughout."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([factor, 1.0]).double()
    x = scale * torch.randn(40_000, 2, generator=generator, dtype=torch.float64).sinh()

    def log_excess(points):
        return (sinh_log_prob(points, 1.0) - sinh_log_prob(points, scale)).sum(dim=1)

    ratio, se = _ratio_of_variances(x, x.square() / len(x), log_excess, generator)
    assert ratio.tolist() == pytest.approx([1 / factor**2, 1.0], rel=0.1)
    assert bool((se < 0.05).all())


def test_it_is_asked_where_tails_are_heavy_and_not_where_they_are_light():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5000, 1, generator=generator, dtype=torch.float64)
    for draws, is_asked in ((x, False), (x.sign() * x.abs() ** 3, True)):
        mixture = Mixture({"rbig": RBIG().fit(draws)}, [1.0])
        spread = measure_own_spread(mixture, generator, lambda points: 0 * points[:, 0])
        assert (spread.told is not None) == is_asked
