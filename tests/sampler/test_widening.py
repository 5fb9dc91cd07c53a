"""A widened flow, and a widened reference: normalized, drawn as they say, along the ridge."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from scipy import stats

from amfvi.errors import FitError
from amfvi.experts import MAF
from amfvi.sampler import widening
from amfvi.sampler.gaussians import GaussianMixture
from amfvi.sampler.widening import WidenedFlow, WidenedReference

pytestmark = pytest.mark.usefixtures("global_state_untouched")

SMALL = MAF(layers=3, hidden_features=16, max_steps=300)
VIEW = ((-6.0, 6.0), (-8.0, 12.0))
BENDS = {
    "quadratic": lambda z, bend, scale: bend * (z**2 - scale**2),
    "cubic": lambda z, bend, scale: bend * (z**3 - 3 * scale**2 * z) / scale,
}


def ridge(z1, shape="quadratic", scale=2.0, bend=0.5, width=0.4, seed=9):
    """Points near a bent ridge at z1 (n,); (n, 2)."""
    noise = torch.randn(len(z1), generator=torch.Generator().manual_seed(seed)).double()
    return torch.stack([z1, BENDS[shape](z1, bend, scale) + width * noise], dim=1)


def draws_of(dim):
    z1 = 2 * torch.randn(2000, generator=torch.Generator().manual_seed(3)).double()
    return ridge(z1)[:, :dim]


@cache
def fitted(kind, dim):
    """Either of the two; the flow is an ensemble, of which every member is widened."""
    if kind == "flow":
        return WidenedFlow(SMALL.fit(draws_of(dim), folds=2), draws_of(dim))
    generator = torch.Generator().manual_seed(0)
    return WidenedReference.fit(draws_of(dim), generator).as_reference()


@pytest.fixture(params=[1, 2], ids=["d = 1", "d = 2"])
def dim(request):
    return request.param


@pytest.fixture(params=["flow", "reference"])
def widened(request, dim):
    return fitted(request.param, dim)


def integrate(log_prob, dim):
    """∫ exp log_prob by the midpoint rule, over all but some 1e-4 of the mass."""
    limits = [(-400.0, 400.0)] if dim == 1 else [(-60.0, 60.0), (-60.0, 200.0)]
    number = 400_000 if dim == 1 else 1_200
    steps = [(high - low) / number for low, high in limits]
    axes = [
        low + step * (torch.arange(number, dtype=torch.float64) + 0.5)
        for (low, _), step in zip(limits, steps, strict=True)
    ]
    points = torch.cartesian_prod(*axes).view(-1, dim)
    return float(log_prob(points).exp().sum()) * math.prod(steps)


def test_it_is_normalized_and_wider_than_the_draws(widened, dim, seeded):
    assert integrate(widened.log_prob, dim) == pytest.approx(1, abs=2e-3)  # measured: 4e-4
    drawn = widened.sample(4000, seeded(5))
    assert drawn.shape == (4000, dim)
    assert drawn.dtype == torch.float64
    # Quantiles, since the reference has the tails of a Student-t. Measured: 1.15 to 1.71.
    levels = torch.tensor([0.05, 0.95], dtype=torch.float64)
    ratio = drawn.quantile(levels, dim=0).diff(dim=0) / draws_of(dim).quantile(levels, dim=0).diff(
        dim=0
    )
    assert bool((ratio > 1.1).all())
    assert bool((ratio < 2.2).all())


def p_value(widened, draws, goodness_of_fit):
    """Of draws against the density, in one dimension by Kolmogorov and Smirnov."""
    if draws.shape[1] == 2:
        return goodness_of_fit(draws, widened.log_prob, VIEW)
    grid = torch.linspace(-400, 400, 800_001, dtype=torch.float64)
    cumulative = widened.log_prob(grid[:, None]).exp().cumsum(dim=0)
    at = torch.searchsorted(grid, draws[:, 0].contiguous()).clamp(max=len(grid) - 1)
    return float(stats.kstest((cumulative[at] / cumulative[-1]).numpy(), "uniform").pvalue)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_draws_are_of_the_density(seed, widened, seeded, goodness_of_fit):
    assert p_value(widened, widened.sample(20_000, seeded(seed)), goodness_of_fit) > 1e-4


@pytest.mark.parametrize(
    ("planted", "value"), [("SCALES", (1.0, 1.0, 1.0)), ("SCALE_WEIGHTS", (0.05, 0.05, 0.9))]
)
def test_draws_of_other_widths_are_noticed(
    planted, value, widened, seeded, monkeypatch, goodness_of_fit
):
    """So that the test above can fail."""
    drawn = widened.sample(20_000, seeded(0))
    monkeypatch.setattr(widening, planted, value)
    assert p_value(widened, drawn, goodness_of_fit) < 1e-6


def widened_gaussians(reference):
    """The Gaussian mixture of a reference, widened as its flow is."""
    mixture, parts = reference.mixture, reference.mixture.components
    factor = mixture.whitening.factor.double().view(mixture.dim, mixture.dim)
    means = parts.means[0].double() @ factor.T + mixture.whitening.mean.double().view(-1)
    scales = torch.tensor(widening.SCALES, dtype=torch.float64)
    weights = torch.tensor(widening.SCALE_WEIGHTS, dtype=torch.float64)
    factors = scales[:, None, None, None] * (factor @ parts.factors[0].double())
    return GaussianMixture(
        weights=(weights[:, None] * parts.log_weights[0].double().exp()).flatten(),
        means=means.repeat(len(scales), 1),
        factors=factors.flatten(0, 1),
        n_modes=len(means),
    )


@pytest.mark.parametrize(
    ("shape", "bend", "width", "scale"),
    [
        ("quadratic", 0.5, 0.4, 2.0),
        pytest.param("quadratic", 0.3, 0.3, 3.0, marks=pytest.mark.slow),
        pytest.param("cubic", 0.3, 0.3, 3.0, marks=pytest.mark.slow),
    ],
)
def test_a_curved_ridge_is_extended_along_itself(shape, bend, width, scale, seeded):
    """Draws of half its length: at its ends, a widened flow has more than Gaussians have.

    Measured log ratios at both ends of three seeds: .9 and more, on average 3.2 and more.
    Where draws end abruptly, as if cut with a knife, a flow ends there too.
    """
    settings = {"shape": shape, "bend": bend, "width": width, "scale": scale}
    log_ratios = []
    for seed in range(3):
        z1 = 0.5 * scale * torch.randn(3000, generator=seeded(seed)).double()
        reference = WidenedReference.fit(ridge(z1, **settings), seeded(seed))
        flow, gaussians = reference.flow, widened_gaussians(reference)
        for end in (-2 * scale, 2 * scale):
            points = ridge(torch.full((400,), end).double(), **settings, seed=1)
            both = (flow.log_prob(points), gaussians.log_prob(points))
            log_ratios.append(float(both[0].logsumexp(dim=0) - both[1].logsumexp(dim=0)))
    assert min(log_ratios) > 0
    assert sum(log_ratios) / len(log_ratios) > math.log(10)


def test_the_reference_has_a_density_however_far_out(dim):
    """Where a flow overflows, the tails still bound the weights."""
    reference = fitted("reference", dim)
    far = torch.logspace(2, 150, 75, dtype=torch.float64)[:, None].expand(-1, dim)
    for points in (far, -far):
        log_q = reference.log_prob(points)
        assert bool(log_q.isfinite().all())
        # No lighter than a Student-t of three degrees of freedom: slope −(3 + d) in log distance.
        slope = log_q.diff() / far[:, 0].log().diff()
        assert bool((slope[5:] > -(3 + dim) - 0.01).all())


def test_the_same_generator_gives_the_same_reference(seeded):
    y = draws_of(2)[:500]
    first, second = (WidenedReference.fit(y, seeded(4)).as_reference() for _ in range(2))
    assert torch.equal(first.log_prob(y), second.log_prob(y))
    assert torch.equal(first.sample(50, seeded(1)), second.sample(50, seeded(1)))


def test_draws_that_do_not_vary_are_refused(seeded):
    constant = torch.cat([torch.randn(200, 1, generator=seeded(0)), torch.ones(200, 1)], dim=1)
    with pytest.raises(FitError):
        WidenedReference.fit(constant.double(), seeded(0))


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_scales_of_any_size(scale, seeded):
    """Ratios of medians, measured over three seeds: 1.09 to 1.17."""
    scales = torch.tensor([scale, 1 / scale], dtype=torch.float64)
    y = scales * torch.randn(1000, 2, generator=seeded(0)).double()
    reference = WidenedReference.fit(y, seeded(0)).as_reference()
    ratio = reference.sample(2000, seeded(1)).abs().median(dim=0).values
    ratio = ratio / y.abs().median(dim=0).values
    assert bool(((ratio > 0.95) & (ratio < 1.5)).all())


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))]
)
def test_draws_far_out_are_where_the_reference_says(seed, dim, seeded):
    """A flow stretched to 1e13 by heavy tails cannot be undone in floating-point numbers.

    Its draws there then have next to no density under the flow itself, and weigh e^50.
    """
    normals = torch.randn(4000, dim + 1, generator=seeded(seed)).double()
    y = normals[:, :dim] / normals[:, dim:].abs()  # a Cauchy distribution
    reference = WidenedReference.fit(y, seeded(seed))
    drawn = reference.as_reference().sample(4000, seeded(seed + 10))
    log_q = reference.as_reference().log_prob(drawn)
    log_p = -0.5 * (dim + 1) * drawn.square().sum(dim=1).log1p()
    log_z = float((log_p - log_q).logsumexp(dim=0)) - math.log(len(drawn))
    exact = 0.5 * (dim + 1) * math.log(math.pi) - math.lgamma(0.5 * (dim + 1))
    assert log_z == pytest.approx(exact, abs=0.3)
