"""The targets of the studies are exact: their draws are from their densities."""

from __future__ import annotations

import math

import pytest
import torch

from experiments.lab.targets import NAMES, SCALABLE, SHAPES, exact_target


def mass_and_entropy(target, half, cells):
    """Integral of a density over a square around the origin, and its entropy there."""
    step = 2 * half / cells
    centers = -half + step * (torch.arange(cells).double() + 0.5)
    log_p = target.log_prob(torch.cartesian_prod(centers, centers))
    p = log_p.exp() * step**2
    return float(p.sum()), -float(torch.nan_to_num(p * log_p, nan=0.0).sum())


def make(name):
    return SHAPES[name]() if name in SHAPES else SCALABLE[name](2)


@pytest.mark.parametrize(
    ("name", "half"),
    [("student_t_banana", 40.0), ("eight_gaussians", 5.0), ("checkerboard", 2.5), ("spiral", 4.0),
     ("three_gaussians", 10.0), ("long_banana", 15.0), ("deep_funnel", 12.0)],
)  # fmt: skip
def test_draws_have_the_entropy_of_the_density(name, half):
    target = make(name)
    mass, entropy = mass_and_entropy(target, half, cells=200 if name == "spiral" else 500)
    assert mass == pytest.approx(1, abs=2e-3)
    for seed in range(3):
        log_p = target.log_prob(target.sample(10_000, torch.Generator().manual_seed(seed)))
        assert -float(log_p.mean()) == pytest.approx(
            entropy, abs=4 * float(log_p.std()) / 10_000**0.5 + 5e-3
        )


@pytest.mark.parametrize("dim", [3, 10])
def test_entropy_in_any_dimension_is_the_closed_form(dim):
    """Each pair of a banana adds ½ log 2 to that of d normals, a funnel nothing."""
    normal = 0.5 * dim * (1 + math.log(2 * math.pi))
    for name, entropy in (
        ("long_banana", normal + 0.5 * (dim // 2) * math.log(2)), ("deep_funnel", normal)
    ):  # fmt: skip
        target = SCALABLE[name](dim)
        log_p = target.log_prob(target.sample(50_000, torch.Generator().manual_seed(0)))
        assert -float(log_p.mean()) == pytest.approx(
            entropy, abs=4 * float(log_p.std()) / 50_000**0.5
        )


def test_every_name_is_a_target_with_exact_draws():
    assert [exact_target(name).name for name in NAMES] == list(NAMES)
    with pytest.raises(TypeError, match="eight_schools"):
        exact_target("eight_schools")
