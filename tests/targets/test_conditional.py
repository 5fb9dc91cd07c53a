"""Conditional targets: densities, draws and entropies against one another and against Bayes."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, dataclass

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from amfvi.constraints.constraints import Constraints
from amfvi.errors import InputError, UsageError
from amfvi.targets.conditional import CONDITIONAL, GaussianMixture, Sinus, get, lorenz, saddle
from amfvi.targets.conditional.numerics import log_interval, runge_kutta

ONE_DIMENSION = [name for name in CONDITIONAL if get(name).dim == 1]
TWO_DIMENSIONS = [name for name in CONDITIONAL if get(name).dim == 2]
ENTROPIES_FOUND_BEFORE = {  # by another program, over 5,000 pairs
    "sinus": -1.208, "saddle": -1.014, "lorenz": 3.031, "linear10": -0.799,
    "moons": -3.790, "gmix": 1.038,
}  # fmt: skip


def sample(target, n, seed=0):
    return target.sample(n, torch.Generator().manual_seed(seed))


def axis(low, high, n):
    """Centers of n cells, and the width of one."""
    edges = torch.linspace(low, high, n + 1, dtype=torch.float64)
    return (edges[1:] + edges[:-1]) / 2, (high - low) / n


def at(target, c, points):
    return target.log_prob(points, c.expand(len(points), -1))


VIEW = {"sinus": (0.0, 1.0), "saddle": (-2.2, 2.2), "lorenz": (-25.0, 25.0)}


def integral(target, c):
    """∫ p(y | c) dy for one condition, by the midpoint rule."""
    if target.dim == 1:
        y, width = axis(*VIEW[target.name], 800)
        return float(at(target, c, y[:, None]).exp().sum() * width)
    if target.name == "gmix":
        return integral_around(target, c)
    return integral_over_crescents(target, c)


def integral_around(target, c):
    """On a grid that is fine around c and coarse elsewhere."""
    edges = []
    for center in c.tolist():
        fine, coarse = np.linspace(-0.6, 0.6, 97) + center, np.linspace(-10, 10, 201)
        edges.append(torch.from_numpy(np.unique(np.clip([*fine, *coarse], -10, 10))))
    centers = [(e[1:] + e[:-1]) / 2 for e in edges]
    p = at(target, c, torch.cartesian_prod(*centers)).exp().view(len(centers[0]), -1)
    return float(edges[0].diff() @ p @ edges[1].diff())


def integral_over_crescents(target, c):
    """Over two rectangles, turned by 45°, that begin where the crescents do."""
    begin = max(0.25 - float(c[0]), 0.0)
    first, width = axis(begin, max(0.42 - float(c[0]), 0.0), 150)
    second, height = axis(float(c[1]) - 0.17, float(c[1]) + 0.17, 250)
    total = 0.0
    for sign in (-1, 1):
        z = torch.cartesian_prod(sign * first, second)
        y = torch.stack([z[:, 0] - z[:, 1], z[:, 0] + z[:, 1]], dim=1) / 2**0.5
        total += float(at(target, c, y).exp().sum()) * width * height
    return total


@pytest.mark.parametrize("name", [*ONE_DIMENSION, *TWO_DIMENSIONS])
def test_the_density_of_y_integrates_to_one_given_any_c(name):
    c, _ = sample(get(name), 4, seed=1)
    found = [integral(get(name), row) for row in c]
    print(name, *(f"{value:.6f}" for value in found))
    assert found == pytest.approx([1.0] * 4, abs=5e-4 if name in TWO_DIMENSIONS else 1e-5)


def test_an_evidence_that_is_off_shows_in_the_integral():
    @dataclass(frozen=True, repr=False)
    class Wrong(Sinus):
        def log_evidence(self, given):
            return super().log_evidence(given) + 0.001 * given[:, 0]

    c, _ = sample(Wrong(), 4, seed=1)
    assert max(abs(integral(Wrong(), row) - 1) for row in c) > 2e-4

    @dataclass(frozen=True, repr=False)
    class NotTruncated(GaussianMixture):
        def log_evidence(self, given):
            return 0 * given[:, 0] - math.log(400)

    near_the_edge = torch.tensor([9.0, 0.0], dtype=torch.float64)
    assert integral(NotTruncated(), near_the_edge) == pytest.approx(
        1 - stats.norm.sf(1) / 2, abs=1e-3
    )


@pytest.mark.parametrize("name", CONDITIONAL)
def test_entropy_is_the_mean_of_minus_log_p(name):
    target = get(name)
    c, y = sample(target, 5000 if name in ("saddle", "lorenz", "moons") else 20_000)
    terms = -target.log_prob(y, c)
    se = float(terms.std()) / len(terms) ** 0.5
    print(name, f"{float(terms.mean()):.4f} ± {se:.4f}, entropy {target.entropy:.4f}")
    assert float(terms.mean()) == pytest.approx(target.entropy, abs=4 * se)
    if name in ENTROPIES_FOUND_BEFORE:
        of_5000 = float(terms.std()) / 5000**0.5
        assert target.entropy == pytest.approx(ENTROPIES_FOUND_BEFORE[name], abs=3 * of_5000)


def cumulative(target, c, n=300):
    """Edges (n + 1,) of the view and P(Y ≤ edge | c), (len(c), n + 1), by the midpoint rule."""
    low, high = VIEW[target.name]
    centers, width = axis(low, high, n)
    p = target.log_prob(centers.repeat(len(c))[:, None], c.repeat_interleave(n, dim=0)).exp()
    cdf = p.view(len(c), n).cumsum(dim=1) * width
    return np.linspace(low, high, n + 1), torch.cat([0 * cdf[:, :1], cdf], dim=1).numpy()


@pytest.mark.parametrize("name", ONE_DIMENSION)
@pytest.mark.parametrize("seed", [0, 1])
def test_probability_integral_transforms_are_uniform(name, seed):
    c, y = sample(get(name), 150, seed)
    edges, cdf = cumulative(get(name), c)

    def p_value(y):
        values = [np.interp(v, edges, row) for v, row in zip(y[:, 0].tolist(), cdf, strict=True)]
        return stats.kstest(values, "uniform").pvalue

    assert p_value(y) > 1e-4
    assert p_value(y + 0.5 * y.std()) < 1e-4


Y = torch.tensor([[0.3, -0.4]], dtype=torch.float64)
VIEWS = {  # of c given Y, and of c
    "moons": (((0.15, 0.31), (-0.63, -0.36)), ((-1.3, 0.4), (-1.6, 1.6))),
    "gmix": (((-3.0, 3.6), (-3.7, 2.9)), ((-12.0, 12.0), (-12.0, 12.0))),
}


@pytest.mark.parametrize("name", TWO_DIMENSIONS)
@pytest.mark.parametrize("seed", [0, 1])
def test_simulations_and_conditions_follow_their_densities(name, seed, goodness_of_fit):
    """χ² of c at one y, and of c over pairs: with the integral above, all of Bayes' rule."""
    target = get(name)
    generator = torch.Generator().manual_seed(seed)
    c = target.simulate(Y.expand(20_000, 2), generator)

    def likelihood(c, y=Y):
        return target.log_likelihood(c, y.expand(len(c), 2))

    given_y, over_pairs = VIEWS[name]
    assert goodness_of_fit(c, likelihood, given_y) > 1e-4
    shifted = Y + 0.1 * (c.std(dim=0) / 2**0.5)
    assert goodness_of_fit(c, lambda c: likelihood(c, shifted), given_y) < 1e-4
    c, y = target.sample(20_000, generator)
    assert goodness_of_fit(c, target.log_evidence, over_pairs, cells=16) > 1e-4
    bound = -target.constraints["y1"][0]
    for column in y.T:
        assert stats.kstest(column / bound, stats.uniform(-1, 2).cdf).pvalue > 1e-4


@pytest.mark.parametrize("name", CONDITIONAL)
def test_sampling_is_seeded_and_input_is_checked(name, global_state_untouched):
    target = get(name)
    c, y = sample(target, 50, seed=3)
    assert (c.dtype, c.shape) == (torch.float64, (50, target.given_dim))
    assert (y.dtype, y.shape) == (torch.float64, (50, target.dim))
    assert all(torch.equal(*pair) for pair in zip((c, y), sample(target, 50, seed=3), strict=True))
    assert not torch.equal(y, sample(target, 50, seed=4)[1])
    assert target.log_prob(y[:0], c[:0]).shape == (0,)
    with pytest.raises(InputError, match=rf"y must have shape \(n, {target.dim}\), found \(5, 30"):
        target.log_prob(torch.zeros(5, 30), c[:5])
    with pytest.raises(InputError, match=rf"given= must have shape \(n, {target.given_dim}\)"):
        target.log_prob(y, c[:, 0])
    with pytest.raises(InputError, match="y has 50 rows, given= 49; give one condition a row"):
        target.log_prob(y, c[1:])
    with pytest.raises(InputError, match="number of pairs must be positive, found 0"):
        target.sample(0, torch.Generator())


@pytest.mark.parametrize("name", CONDITIONAL)
def test_rows_do_not_depend_on_one_another(name):
    c, y = sample(get(name), 40, seed=2)
    together = get(name).log_prob(torch.cat([y, y]), torch.cat([c, c.flip(0)]))
    order = torch.arange(39, -1, -1)
    assert torch.allclose(together[:40].flip(0), get(name).log_prob(y[order], c[order]), atol=1e-9)
    assert torch.allclose(together[40:], get(name).log_prob(y, c[order]), atol=1e-9)


@pytest.mark.parametrize("name", CONDITIONAL)
def test_targets_are_values(name):
    target = get(name)
    assert (target.name, target) == (name, CONDITIONAL[name]())
    assert hash(target) == hash(CONDITIONAL[name]())
    assert repr(target).startswith(
        f"<conditional target {name}: {target.dim} given {target.given_dim}, entropy "
    )
    assert len(target.names) == target.dim
    assert len(target.given_names) == target.given_dim
    with pytest.raises(FrozenInstanceError):
        target.dim = 3


@pytest.mark.parametrize("name", CONDITIONAL)
def test_the_support_is_what_the_constraints_say(name):
    target = get(name)
    bounds = Constraints.parse(target.names, target.constraints)
    c, y = sample(target, 300)
    assert bool(bounds.contains(y).all())
    assert bool(target.log_prob(y, c).isfinite().all())
    for j in range(target.dim):
        for edge, sign in ((bounds.lower[j], -1), (bounds.upper[j], 1)):
            if math.isfinite(edge):
                beyond = y.clone()
                beyond[:, j] = edge + sign * 1e-9
                assert bool((target.log_prob(beyond, c) == -torch.inf).all())


def test_misspelt_name_names_the_nearest():
    with pytest.raises(UsageError, match="conditional target 'lorentz'; did you mean lorenz"):
        get("lorentz")


def test_a_condition_that_no_y_leads_to_is_an_error():
    with pytest.raises(InputError, match=r"row 1 of given= is \[-9.0, 0.0\], which no y leads to"):
        get("moons").log_prob(torch.zeros(2, 2), torch.tensor([[0.0, 0.0], [-9.0, 0.0]]))


@pytest.mark.parametrize("name", ["linear3", "linear10"])
def test_linear_posteriors_by_scipy(name):
    """Mean and covariance by the information form, which shares nothing with Bayes' rule."""
    target = get(name)
    c, y = sample(target, 20)
    a, noise = target.matrix.numpy(), target.noise_covariance.numpy()
    precision = np.eye(target.dim) / target.prior_variance + a.T @ np.linalg.solve(noise, a)
    covariance = np.linalg.inv(precision)
    means = c.numpy() @ np.linalg.solve(noise, a) @ covariance
    if name == "linear10":
        assert np.allclose(means, c / 2)
        assert np.allclose(covariance, 0.05 * np.eye(10))
    expected = [
        stats.multivariate_normal(m, covariance).logpdf(v) for m, v in zip(means, y, strict=True)
    ]
    assert np.allclose(target.log_prob(y, c), expected, atol=1e-9)
    assert target.entropy == pytest.approx(
        0.5 * np.linalg.slogdet(2 * np.pi * np.e * covariance)[1], abs=1e-9
    )


@pytest.mark.parametrize("name", ["linear3", "linear10"])
def test_moments_of_linear_pairs(name):
    target = get(name)
    c, y = sample(target, 100_000, seed=5)
    joint = torch.cov(torch.cat([c, y], dim=1).T)
    a, v = target.matrix, target.prior_variance
    k = target.given_dim
    scale = float(joint.diagonal().max())
    assert torch.allclose(joint[:k, k:], v * a, atol=0.02 * scale)
    assert torch.allclose(joint[:k, :k], v * a @ a.T + target.noise_covariance, atol=0.02 * scale)


def test_probabilities_of_intervals_far_out():
    low = torch.tensor([-1.0, 3.0, 30.0, -31.0, 1.0], dtype=torch.float64)
    high = torch.tensor([2.0, math.inf, 31.0, -30.0, 0.5], dtype=torch.float64)
    expected = [math.log(stats.norm.cdf(2) - stats.norm.cdf(-1)), stats.norm.logsf(3)]
    tail = stats.norm.logsf(30) + math.log1p(-math.exp(stats.norm.logsf(31) - stats.norm.logsf(30)))
    assert np.allclose(log_interval(low, high), [*expected, tail, tail, -math.inf], rtol=1e-12)


def test_sinus_by_adaptive_quadrature():
    c, y = sample(Sinus(), 5)

    def joint(y, c):
        score = (c - y - 0.3 * math.sin(2 * math.pi * y)) / 0.05
        return math.exp(-0.5 * score**2) / (0.05 * math.sqrt(2 * math.pi))

    for row in range(5):
        condition = float(c[row])
        evidence, _ = integrate.quad(joint, 0, 1, args=(condition,), limit=200, epsabs=1e-10)
        expected = math.log(joint(float(y[row]), condition) / evidence)
        assert float(Sinus().log_prob(y, c)[row]) == pytest.approx(expected, abs=1e-8)


def test_gmix_by_scipy():
    target = get("gmix")
    c = torch.tensor([[0.0, 1.0], [9.9, -9.9], [11.0, 0.0]], dtype=torch.float64)
    y = torch.tensor([[0.3, 1.0], [9.0, -9.5], [9.9, 0.1]], dtype=torch.float64)
    numerator, evidence = 0.0, 0.0
    for sd in (1.0, 0.1):
        numerator = numerator + stats.norm(c, sd).pdf(y).prod(axis=1)
        around = stats.norm(c, sd)
        evidence = evidence + (around.cdf(10) - around.cdf(-10)).prod(axis=1)
    assert np.allclose(target.log_prob(y, c), np.log(numerator / evidence), atol=1e-9)


def test_evidence_of_the_moons_by_simulation_at_the_prior():
    """Mean of p(c | y) over y from a grid of the prior, for c anywhere and near the edges."""
    target = get("moons")
    c, _ = sample(target, 3, seed=7)
    points, _ = axis(-1, 1, 1000)
    y = torch.cartesian_prod(points, points)
    for row in c:
        mean = float(target.log_likelihood(row.expand(len(y), -1), y).exp().mean())
        assert float(target.log_evidence(row[None])) == pytest.approx(math.log(mean), abs=5e-3)


def test_saddle_by_many_quantiles_of_the_initial_state():
    target = get("saddle")
    c, y = sample(target, 30, seed=3)
    start = 0.7 * torch.special.ndtri((torch.arange(8000).double() + 0.5) / 8000)
    x = saddle._state(start.expand(30, -1), c)
    expected = torch.logsumexp(-0.5 * ((y - x) / 0.05).square(), dim=1)
    expected -= math.log(8000 * 0.05 * math.sqrt(2 * math.pi))
    assert torch.allclose(target.log_prob(y, c), expected, atol=3e-3)


def test_steps_of_the_saddle_are_fine_enough():
    c = torch.linspace(-0.8, 0.8, 33, dtype=torch.float64)[:, None]
    start = torch.linspace(-3, 3, 101, dtype=torch.float64).expand(33, -1)
    finer = runge_kutta(lambda x: c + x - x**3, start, 5 / 800, 800)
    assert torch.allclose(saddle._state(start, c), finer, atol=3e-3)
    assert bool((finer.diff(dim=1) > 0).all())


def test_lorenz_by_all_pairs():
    target = get("lorenz")
    c, y = sample(target, 20, seed=3)
    pairs = lorenz._pairs()
    for row in range(8):
        near = -2 * (c[row] - pairs[:, 0]).square()  # 1/(2 · 0.5²) = 2
        joint = near - 2 * (y[row] - pairs[:, 1]).square()
        expected = torch.logsumexp(joint, dim=0) - torch.logsumexp(near, dim=0)
        expected -= 0.5 * math.log(2 * math.pi * 0.25)
        assert float(target.log_prob(y, c)[row]) == pytest.approx(float(expected), abs=5e-4)
