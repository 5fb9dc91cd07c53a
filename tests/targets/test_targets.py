"""The canonical targets against independent values and against themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from amfvi.errors import UsageError
from amfvi.targets import CANONICAL, get

# Log densities computed independently of this code, to six decimals.
REFERENCE = {
    "banana": [
        ((0.094, -1.647), -3.546605),
        ((2.63, 1.151), -4.080848),
        ((1.086, 2.273), -4.43584),
        ((-1.484, 0.438), -2.74135),
        ((2.061, 1.943), -3.634523),
        ((1.142, -0.009), -2.566618),
        ((-0.997, -1.25), -3.555707),
        ((1.128, 0.21), -2.508389),
        ((3.304, -1.451), -13.650189),
        ((2.852, -2.749), -15.653965),
    ],
    "x_shape": [
        ((2.339, -1.371), -4.438175),
        ((-0.351, -0.785), -2.474206),
        ((0.536, -1.207), -3.101867),
        ((-0.2, -0.355), -1.922208),
        ((-1.948, 2.594), -4.269979),
        ((2.914, 3.509), -5.54799),
        ((-1.446, 1.08), -2.996779),
        ((0.16, 0.282), -1.85327),
        ((3.627, -1.056), -11.727619),
        ((-0.293, -0.309), -1.933534),
    ],
    "bimodal": [
        ((-4.245, -0.811), -3.154602),
        ((-1.815, -0.964), -2.768455),
        ((-2.381, -0.56), -2.203499),
        ((3.148, 0.972), -1.777362),
        ((1.824, 1.325), -3.779098),
        ((-2.453, -0.42), -2.353028),
        ((2.782, 1.492), -1.964765),
        ((-4.708, -2.379), -5.182247),
        ((0.082, 3.776), -17.27831),
        ((-3.179, -3.292), -10.500677),
    ],
    "multimodal": [
        ((-0.635, 2.204), -4.43297),
        ((2.052, -1.113), -4.750128),
        ((0.84, -1.423), -3.044705),
        ((-0.761, 1.427), -2.580182),
        ((-1.778, -0.678), -4.243953),
        ((0.596, 1.575), -2.571698),
        ((-0.93, -1.311), -3.063926),
        ((3.157, 3.196), -4.359773),
        ((-0.793, 3.319), -7.616851),
        ((2.899, -2.846), -9.540658),
    ],
    "two_moons": [
        ((-0.365, 0.821), -0.914622),
        ((0.473, -0.333), -0.455972),
        ((1.089, 0.021), -1.43898),
        ((0.558, -0.519), -1.118685),
        ((1.873, 0.09), -0.497926),
        ((1.815, -0.05), -0.458568),
        ((-0.004, 0.348), -0.540235),
        ((-1.015, 0.247), -0.581965),
        ((1.749, -3.04), -343.889953),
        ((3.803, -0.205), -179.646194),
    ],
    "rings": [
        ((-2.448, -0.314), -2.10183),
        ((-0.473, 0.777), -1.460861),
        ((0.341, 2.395), -2.357599),
        ((0.246, 0.935), -1.16868),
        ((-0.871, -0.615), -1.430897),
        ((-2.547, -0.25), -2.262556),
        ((2.288, -0.712), -2.559748),
        ((-0.997, -0.032), -1.145197),
        ((2.385, 1.565), -8.412716),
        ((2.209, -0.061), -6.14988),
    ],
}


@pytest.fixture(params=CANONICAL)
def target(request):
    return get(request.param)


def grid(target, cells):
    """Cell centers well beyond the view, and the area of a cell."""
    axes, area = [], 1.0
    for low, high in target.view:
        margin = 0.6 * (high - low)
        edge = np.linspace(low - margin, high + margin, cells + 1)
        axes.append(torch.from_numpy((edge[1:] + edge[:-1]) / 2))
        area *= edge[1] - edge[0]
    return torch.cartesian_prod(*axes), area


def test_log_prob_agrees_with_independent_values(target):
    points, expected = zip(*REFERENCE[target.name], strict=True)
    log_p = target.log_prob(torch.tensor(points, dtype=torch.float64))
    assert torch.allclose(log_p, torch.tensor(expected, dtype=torch.float64), atol=1e-5)


def test_integral_and_entropy_by_quadrature(target):
    cells = 500 if target.name == "two_moons" else 1200
    points, area = grid(target, cells)
    log_p = torch.cat([target.log_prob(part) for part in points.split(100_000)])
    p = log_p.exp()
    assert float(p.sum() * area) == pytest.approx(1, abs=1e-4)
    assert float(-(p * log_p).sum() * area) == pytest.approx(target.entropy, abs=2e-4)


@pytest.mark.parametrize("seed", [0, 1])
def test_draws_follow_the_density(target, seed, goodness_of_fit):
    draws = target.sample(20_000, torch.Generator().manual_seed(seed))
    assert goodness_of_fit(draws, target.log_prob, target.view) > 2e-5


def test_misspelt_target_names_the_nearest():
    with pytest.raises(UsageError, match="unknown target 'banan'; did you mean banana"):
        get("banan")
