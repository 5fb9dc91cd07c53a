"""The known densities are known: integrals, draws, moments, boxes and gradients are right."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch.distributions import Beta, HalfCauchy, Laplace, Normal

from amfvi.constraints.transform import UnconstrainingTransform
from amfvi.targets import get
from experiments.lab.densities import all_densities, families
from experiments.lab.densities.parts import Table

DENSITIES = all_densities()
ANSWERED = {name: d for name, d in DENSITIES.items() if d.log_z is not None}

# Eight percent of its mass is nearer to one than floats are, so nothing finds its integral.
BEYOND_FLOATS = "beta0.05-d2"

# A mixture of eight Gaussians is too far from these to find their integrals within .03; their
# closed forms, or those of their relatives in fewer dimensions, are checked.
HARD = {
    "rosenbrock-d10-chains3", "ring-d2", "shell-d4", "shell-d5", "spiral-d2", "well-chain-d8",
    "blessing-funnel-d10", "blessing-students10-d10", "blessing-many-well-d10",
    "agrawal-funana-d10", "rippled-d2-bend0.5-width0.2-scale3",
}  # fmt: skip


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def bridge_estimate(density, n=3000):
    """Log Z and its standard error by bridge sampling from a mixture fitted to exact draws.

    Meng & Wong (1996), between draws and a mixture of eight Gaussians that is fitted to other
    draws, in unconstrained parameters; the inverse hyperbolic sine shortens heavy tails.
    """
    transform = UnconstrainingTransform(density.limits)
    x = density.sample(2 * n, generator())
    y, log_det = transform.to_unconstrained(x)
    center = y.median(dim=0).values
    scale = (y.quantile(0.75, dim=0) - y.quantile(0.25, dim=0)) / 1.35
    short = (y - center) / scale
    if not density.light_tails:
        short = torch.asinh(short)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        q = GaussianMixture(8, random_state=0, max_iter=40, reg_covar=1e-10).fit(short[:n].numpy())
    proposed = torch.from_numpy(q.sample(n)[0])[torch.randperm(n, generator=generator())]
    stretched = proposed if density.light_tails else torch.sinh(proposed)
    points, slope = transform.from_unconstrained_with_log_det(center + scale * stretched)

    def log_ratio(x, log_det, of):
        stretch = torch.zeros(len(of)) if density.light_tails else of.cosh().log().sum(dim=1)
        log_p = density.log_density(x).detach() + log_det + stretch + scale.log().sum()
        return log_p - torch.from_numpy(q.score_samples(of.numpy()))

    from_p = log_ratio(x[n:], -log_det[n:], short[n:])
    from_q = log_ratio(points, slope, proposed)
    blocks = [solve_bridge(from_p[i::8], from_q[i::8]) for i in range(8)]
    return solve_bridge(from_p, from_q), float(np.std(blocks, ddof=1)) / math.sqrt(8)


def solve_bridge(from_p, from_q):
    """The log Z at which both samples, of one size, agree."""
    estimate = float(from_p.median())
    for _ in range(200):
        numerator = torch.nn.functional.logsigmoid(from_q - estimate).logsumexp(dim=0)
        denominator = torch.nn.functional.logsigmoid(estimate - from_p).logsumexp(dim=0)
        step = float(numerator - denominator)
        estimate += step
        if abs(step) < 1e-8:
            break
    return estimate


@pytest.fixture(scope="module")
def estimates():
    """Bridge estimates and their standard errors, by name."""
    duplicates = {name for name, d in ANSWERED.items() if d.family == "curved" and d.dim == 5}
    return {
        name: bridge_estimate(density)
        for name, density in ANSWERED.items()
        if density.dim < 20 and name not in HARD | duplicates | {BEYOND_FLOATS}
        and density.family != "wrong-gradients"
    }  # fmt: skip


def disagrees(log_z, estimate):
    value, error = estimate
    return abs(value - log_z) > 4 * error + 0.005


@pytest.mark.slow
def test_integrals_agree_with_bridge_sampling(estimates):
    assert len(estimates) > 120
    assert [n for n, found in estimates.items() if disagrees(ANSWERED[n].log_z, found)] == []
    assert max(error for _, error in estimates.values()) < 0.03


@pytest.mark.slow
def test_a_wrong_integral_is_noticed(estimates):
    """Of .05 nats, in most; of .2 nats in all."""
    for wrong, share in ((0.05, 0.75), (-0.05, 0.75), (0.2, 1.0), (-0.2, 1.0)):
        noticed = [disagrees(ANSWERED[n].log_z + wrong, found) for n, found in estimates.items()]
        assert sum(noticed) >= share * len(noticed)


def test_the_integral_that_floats_cannot_find_is_that_of_beta():
    beta = Beta(*torch.tensor([0.05, 0.05]).double())
    points = torch.tensor([[0.1, 0.9], [1e-9, 0.4]]).double()
    density = ANSWERED[BEYOND_FLOATS]
    right = beta.log_prob(points).sum(dim=1)
    assert torch.allclose(density.log_density(points) - density.log_z, right)


def normal(mean, sd):
    mean, sd = (torch.as_tensor(value, dtype=torch.float64) for value in (mean, sd))
    return Normal(mean, sd)


def rosenbrock(x):
    total = normal(1.0, 0.5).log_prob(x[:, 0])
    for j in range(1, x.shape[1]):
        before = x[:, 0] if j % 3 == 1 else x[:, j - 1]
        total = total + normal(before**2, 0.3).log_prob(x[:, j])
    return total


def funnel(x):
    spread = normal(0.0, (0.5 * x[:, :1]).exp())
    return normal(0.0, 3.0).log_prob(x[:, 0]) + spread.log_prob(x[:, 1:]).sum(dim=1)


def funana(x):
    first = normal(0.0, 10.0).log_prob(x[:, 0]) + normal(0.0, 3.0).log_prob(x[:, 1])
    spread = normal(0.03 * (x[:, :1] ** 2 - 100), (0.5 * x[:, 1:2]).exp())
    return first + spread.log_prob(x[:, 2:]).sum(dim=1)


def horseshoe(x):
    half_cauchy = HalfCauchy(torch.ones(1).double())
    tau, lam, beta = x[:, :1], x[:, 1:3], x[:, 3:]
    scales = half_cauchy.log_prob(x[:, :3]).sum(dim=1)
    return scales + normal(0.0, tau * lam).log_prob(beta).sum(dim=1)


CLOSED_FORMS = {
    "rosenbrock-d10-chains3": rosenbrock,
    "blessing-funnel-d10": funnel,
    "agrawal-funana-d10": funana,
    "horseshoe-d5": horseshoe,
    "laplace-d30": lambda x: Laplace(*torch.tensor([0.0, 1.0]).double()).log_prob(x).sum(dim=1),
    "gaussian-d20": lambda x: normal(3.0, 2.0).log_prob(x).sum(dim=1),
    "gaussian-d50": lambda x: normal(3.0, 2.0).log_prob(x).sum(dim=1),
    "agrawal-student1.5-d10": lambda x: torch.from_numpy(
        stats.multivariate_t(np.zeros(10), np.eye(10), df=1.5).logpdf(x.numpy())
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_a_density_over_its_integral_is_the_closed_form(name):
    density = ANSWERED[name]
    x = density.sample(1000, generator())
    right = CLOSED_FORMS[name](x)
    assert torch.allclose(density.log_density(x) - density.log_z, right, rtol=1e-8, atol=1e-8)


RADIAL = (
    "cliff-d2", "cliff-d5", "cliff-d3", "plateau-d2", "plateau-d10", "ring-d2", "shell-d3",
    "shell-d4", "shell-d5", "blessing-rings-d2",
)  # fmt: skip


@pytest.mark.parametrize("name", RADIAL)
def test_integrals_of_functions_of_the_radius_agree_with_scipy(name):
    density = ANSWERED[name]
    d = density.dim

    def of_radius(r):
        point = torch.zeros(1, d, dtype=torch.float64)
        point[0, -1] = r
        return r ** (d - 1) * math.exp(float(density.log_density(point)))

    edges = [0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 4.5 * math.pi, 30, 60]
    parts = [integrate.quad(of_radius, a, b)[0] for a, b in itertools.pairwise(edges)]
    sphere = 2 * math.pi ** (d / 2) / math.gamma(d / 2)
    assert density.log_z == pytest.approx(math.log(sphere * sum(parts)), abs=1e-4)


@pytest.mark.parametrize(
    "name",
    ["spiral-d2", "rippled-d2-bend0.5-width0.2-scale3", "moons-d2", "ring-with-center-d2",
     "star-d2", "cubic-d2-bend1-width1-scale1", "label-switching-d2", "blessing-gaussians40-d2"],
)  # fmt: skip
def test_integrals_in_two_dimensions_agree_with_a_grid(name):
    density = ANSWERED[name]
    cells = 250 if name == "spiral-d2" else 500
    axes, area = [], 1.0
    for low, high in density.natural_box:
        step = (high - low) / cells
        axes.append(low + step * (torch.arange(cells, dtype=torch.float64) + 0.5))
        area *= step
    points = torch.cartesian_prod(*axes)
    log_p = torch.cat([density.log_density(part) for part in points.split(20_000)])
    assert density.log_z == pytest.approx(float(log_p.logsumexp(dim=0)) + math.log(area), abs=1e-4)


def test_integrals_that_others_published():
    wells = math.log(11784.50927) + 0.5 * math.log(2 * math.pi)  # two double-well coordinates
    for dim in (4, 10, 32):
        assert ANSWERED[f"blessing-many-well-d{dim}"].log_z == pytest.approx(dim / 2 * wells)
    schools = get("eight_schools_centered")
    density = ANSWERED["centered-eight-schools-d10"]
    x = density.sample(100, generator())
    difference = density.log_density(x) - schools.log_density(x)
    assert float(difference.std()) < 1e-9
    assert density.log_z - float(difference[0]) == pytest.approx(schools.log_z, abs=1e-5)


def test_forty_separate_gaussians_have_the_entropy_of_one_and_of_the_choice():
    density = ANSWERED["blessing-gaussians40-d50"]
    log_p = density.log_density(density.sample(40_000, generator())) - density.log_z
    entropy = math.log(40) + 25 * (1 + math.log(2 * math.pi))
    assert float(log_p.mean()) == pytest.approx(-entropy, abs=4 * float(log_p.std()) / 200)


def stein_scores(density, x):
    """Largest |z| of E[(x_i − c_i) ∂_i log p + 1] and, for light tails, of E[∂_i log p]."""
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(density.log_density(x).sum(), x)
    positive = torch.tensor(density.limits.lower).isfinite()
    center = torch.where(positive, 0.0, x.detach().median(dim=0).values)
    terms = [(x.detach() - center) * slope + 1]
    if density.light_tails:
        terms.append(slope[:, ~positive])
    means = torch.cat(terms, dim=1)
    spread = means.std(dim=0) / math.sqrt(len(x))
    return float((means.mean(dim=0) / spread).nan_to_num(0.0).abs().max())


def has_stein_identity(density):
    """Smooth enough, and nothing at its bounds; x p → 0 at 0 and at infinity is enough."""
    limits = density.limits
    return (
        not limits.vectors
        and not np.isfinite(limits.upper).any()
        and density.family not in {"wrong-gradients", "bounded"}
        and density.name not in {"blessing-rings-d2", "blessing-funnel-d10", "agrawal-funana-d10"}
    )


def test_draws_are_from_the_densities():
    smooth = {name: d for name, d in ANSWERED.items() if has_stein_identity(d)}
    assert len(smooth) > 120
    scores = {name: stein_scores(d, d.sample(4000, generator(1))) for name, d in smooth.items()}
    assert {name: score for name, score in scores.items() if score > 4.8} == {}


@pytest.mark.parametrize(
    "name", ["gaussian-d20", "half-cauchy-d3", "horseshoe-data-d3", "modes-widths-d10",
             "rosenbrock-d5-chains2", "well-chain-d4", "blessing-students10-d10"],
)  # fmt: skip
def test_draws_of_another_scale_are_noticed(name):
    density = ANSWERED[name]
    x = density.sample(4000, generator(1))
    x[:, -1] *= 1.2
    assert stein_scores(density, x) > 4.8


def test_wrong_gradients_are_wrong_and_values_right():
    for name in families()["wrong-gradients"]:
        density = DENSITIES[name]
        x = density.sample(2000, generator(9))
        if name == "single-precision-d2":
            assert density.log_density(x).dtype == torch.float32
            assert stein_scores(density, x) < 4.8
        else:
            assert stein_scores(density, x) > 4.8
            assert not disagrees(density.log_z, bridge_estimate(density))


def test_a_table_integrates_and_draws():
    table = Table(log_density=lambda x: -0.5 * (x - 1).square(), low=-9.0, high=11.0)
    assert table.log_z == pytest.approx(0.5 * math.log(2 * math.pi), abs=1e-9)
    draws = table.sample(20_000, generator(10)).numpy()
    assert stats.kstest(draws - 1, "norm").pvalue > 0.001
    assert stats.kstest(draws - 1.05, "norm").pvalue < 0.001
