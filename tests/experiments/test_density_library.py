"""The library of known densities: names, moments, boxes, versions for jax, what has no answer."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from amfvi import InputError
from experiments.lab.densities import all_densities, curved_family, families
from experiments.lab.densities.curved import CurvedGaussian

DENSITIES = all_densities()
ANSWERED = {name: d for name, d in DENSITIES.items() if d.log_z is not None}


def generator(seed):
    return torch.Generator().manual_seed(seed)


def test_moments_are_those_of_draws():
    for name, density in ANSWERED.items():
        if density.exact_moments is None or not density.moments:
            continue
        x = density.sample(20_000, generator(2))
        mean_error, sd_error = density.moment_errors(x)
        sd = density.mean_and_sd[1]
        kurtosis = float((((x - density.mean_and_sd[0]) / sd) ** 4).mean(dim=0).max())
        assert mean_error < 4.5 / math.sqrt(20_000), name
        assert sd_error < 4.5 * math.sqrt((2 * kurtosis) / 4 / 20_000), name


def test_moments_and_quantiles_of_wrong_draws_are_wrong():
    density = ANSWERED["quadratic-d3-bend0.3-width0.3-scale3"]
    x = density.sample(10_000, generator(3))
    assert max(density.moment_errors(x)) < 0.06
    assert density.quantile_error(x) < 0.03
    shifted = x + 0.2 * x.std(dim=0)
    assert density.moment_errors(shifted)[0] == pytest.approx(0.2, abs=0.03)
    assert density.moment_errors(1.3 * x)[1] == pytest.approx(0.3, abs=0.06)
    assert density.quantile_error(shifted) > 0.06
    one_arm = x[(x @ CurvedGaussian(
        shape="quadratic", dim=3, bend=0.3, width=0.3, scale=3
    ).rotation)[:, 0] > 0]  # fmt: skip
    assert density.quantile_error(one_arm) > 0.1
    assert ANSWERED["cauchy-d2"].moment_errors(x[:, :2]) is None
    assert ANSWERED["cauchy-d2"].quantile_error(x[:, :2]) > 0.1


def test_natural_boxes_hold_nearly_all_mass():
    boxed = {name: d for name, d in ANSWERED.items() if d.dim < 6 and d.natural_box}
    assert len(boxed) > 70
    for name, density in boxed.items():
        low, high = torch.tensor(density.natural_box, dtype=torch.float64).T
        x = density.sample(50_000, generator(4))
        assert int(((x < low) | (x > high)).any(dim=1).sum()) <= 1, name
    assert ANSWERED["cauchy-d1"].natural_box is None
    assert ANSWERED["dirichlet-d5"].natural_box is None
    assert ANSWERED["beta0.5-d3"].natural_box == ((0.0, 1.0),) * 3


@pytest.mark.slow
def test_versions_for_jax_agree():
    """Of one density per kind and dimension where kinds share a formula."""
    jax = pytest.importorskip("jax")
    share = {"curved", "gaussian", "modes"}
    chosen = {
        (name.split("-")[0] if density.family in share else name, density.dim): density
        for name, density in ANSWERED.items()
        if density.jax_log_density is not None
    }
    assert len(chosen) > 100
    with jax.enable_x64(True):
        for density in chosen.values():
            x = density.sample(1, generator(5))
            found = np.array(density.jax_log_density(x[0].numpy()))
            right = density.log_density(x).numpy()
            assert np.allclose(found, right, rtol=1e-9, atol=1e-6), density.name


def test_names_families_and_dimensions():
    assert all(re.fullmatch(r"[a-z0-9.+-]+", name) for name in DENSITIES)
    listed = families()
    assert sorted(DENSITIES) == sorted(name for names in listed.values() for name in names)
    assert len(listed) == 14
    dims = {density.dim for density in DENSITIES.values()}
    assert {1, 2, 3, 5, 10, 20, 50} <= dims
    assert len(DENSITIES) >= 90
    assert len(curved_family()) == 40
    assert len({d.name for d in curved_family(full=True)}) == 76


def test_two_densities_of_one_name_are_refused(monkeypatch):
    from experiments.lab import densities

    monkeypatch.setattr(densities, "LISTS", (curved_family, curved_family))
    with pytest.raises(ValueError, match="two densities are named quadratic"):
        densities.all_densities()


def test_what_is_handed_to_a_fit():
    for density in ANSWERED.values():
        made = density.make()
        assert made.n_evaluations == 0
        x = density.sample(4, generator(6))
        assert made.log_prob(x).isfinite().all()
        assert made.vectorized.differentiable, density.name
    without = ANSWERED["moons-d2"].without_gradients()
    assert without.name == "moons-d2-numpy"
    made, x = without.make(), without.sample(4, generator(6))
    assert not made.vectorized.differentiable
    assert torch.equal(made.log_prob(x), without.log_density(x))
    boxed = replace(ANSWERED["moons-d2"], box=ANSWERED["moons-d2"].natural_box)
    assert boxed.make().box[0].tolist() == [low for low, _ in boxed.natural_box]


def test_densities_without_an_answer():
    for density in DENSITIES.values():
        assert (density.log_z is None) == (density.sample is None), density.name
        assert (density.log_z is None) == (density.family in {"improper", "random"})


def growth(density):
    """Log integral over rings of log radius from −8 to −4, −4 to 0, 0 to 4 and 4 to 8.

    Along random directions, through the orthant of positive parameters.
    """
    directions = torch.randn(50_000, density.dim, generator=generator(7), dtype=torch.float64)
    directions = directions / directions.norm(dim=1, keepdim=True)
    positive = torch.tensor(density.limits.lower).isfinite()
    directions = torch.where(positive, directions.abs(), directions)

    def log_mass(t):
        log_p = density.log_density(math.exp(t) * directions) + density.dim * t
        return float(log_p.logsumexp(dim=0))

    ends = torch.arange(-8.0, 8.0, 0.25) + 0.125
    masses = torch.tensor([log_mass(float(t)) for t in ends]).view(4, 16)
    return masses.logsumexp(dim=1)


def test_improper_densities_have_no_integral():
    """Either the innermost or the outermost rings hold no less than those beside them."""
    for name in families()["improper"]:
        if name == "scale-prior-d2":  # its pole is a line, not a point
            continue
        inner, low, high, outer = growth(DENSITIES[name]).tolist()
        assert inner > low - 0.1 or outer > high - 0.1, name
    for name in ("gaussian-d1", "cauchy-d1", "gamma0.1-d2", "power0.5-d3", "half-cauchy-d3"):
        inner, low, high, outer = growth(ANSWERED[name]).tolist()
        assert inner < low - 0.1, name
        assert outer < high - 0.1, name


def test_the_pole_of_a_scale_prior_has_no_integral():
    """The same in τ alone, with μ at its likeliest."""
    density = DENSITIES["scale-prior-d2"]
    t = torch.linspace(-200, -5, 500, dtype=torch.float64)
    log_p = density.log_density(torch.stack([torch.ones_like(t), t.exp()], dim=1)) + t
    assert float(log_p.max() - log_p.min()) < 1e-3


def test_random_densities_are_random():
    x = torch.randn(5000, 2, generator=generator(8), dtype=torch.float64)
    for name in families()["random"]:
        density = DENSITIES[name]
        if name == "undefined-d2":
            undefined = density.log_density(x).isnan()
            assert torch.equal(undefined, x[:, 0] >= 1.5)
            continue
        log_density = density.fresh() if density.fresh else density.log_density
        assert any(
            not torch.allclose(log_density(x)[1:101], log_density(x[1:101])) for _ in range(1000)
        ), name


def test_noise_is_the_same_in_every_fit():
    x = torch.zeros(3, 2, dtype=torch.float64)
    density = DENSITIES["noise-rare-points-d2"]
    first, second = density.make(), density.make()
    assert [first.log_prob(x).tolist() for _ in range(300)] == [
        second.log_prob(x).tolist() for _ in range(300)
    ]
    with pytest.raises(InputError, match="random"):
        DENSITIES["noise0.5-d2-numpy"].make().log_prob(x)
