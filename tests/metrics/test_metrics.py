"""Scores against closed forms and under the null."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass

import numpy as np
import pytest
import torch

from amfvi.errors import InputError
from amfvi.metrics import bandwidths, kl, mmd2, mmd_test, nll, wasserstein2
from amfvi.metrics.floor import floor_of_draws, floor_of_target
from amfvi.targets import get
from amfvi.targets.banana import Banana


def normal(n, d, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64)


def test_w2_of_a_shift_is_its_length():
    x = normal(400, 3, 0)
    shift = torch.tensor([3.0, -4.0, 12.0], dtype=torch.float64)
    assert wasserstein2(x, x + shift) == pytest.approx(13, rel=1e-9)
    assert wasserstein2(x, x[torch.randperm(400)]) == pytest.approx(0, abs=1e-7)


def test_w2_of_two_gaussians():
    """W₂² = |m|² + Σ(σᵢ − τᵢ)² for diagonal covariances; samples come within a few percent."""
    x = normal(2200, 2, 1) * torch.tensor([1.0, 2.0])
    y = normal(2200, 2, 2) * torch.tensor([3.0, 0.5]) + torch.tensor([5.0, 0.0])
    expected = math.sqrt(25 + (3 - 1) ** 2 + (2 - 0.5) ** 2)
    assert wasserstein2(x, y) == pytest.approx(expected, rel=0.03)


def test_w2_in_one_dimension_is_the_distance_of_sorted_draws():
    x, y = normal(500, 1, 3), 2 * normal(500, 1, 4) + 1
    expected = (x.sort(dim=0).values - y.sort(dim=0).values).square().mean().sqrt()
    assert wasserstein2(x, y) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("offset", [1.7e9, -1e8, 1e12])
@pytest.mark.parametrize("dim", [1, 3])
def test_distances_do_not_depend_on_where_zero_is(offset, dim):
    """Times in seconds since 1970 are 1e9 standard deviations from zero."""
    x, y = normal(200, dim, 0), 1.5 * normal(150, dim, 1)
    place = torch.tensor([offset, 0.0, -offset][:dim], dtype=torch.float64)
    widths, moved_widths = bandwidths(x), bandwidths(x + place)
    rounding = 10 * np.spacing(abs(offset))
    assert wasserstein2(x + place, y + place) == pytest.approx(wasserstein2(x, y), abs=rounding)
    assert torch.allclose(moved_widths, widths, rtol=0, atol=rounding)
    assert mmd2(x + place, y + place, moved_widths) == pytest.approx(
        mmd2(x, y, widths), abs=rounding
    )


@pytest.mark.parametrize("scale", [1e-300, 1e-100, 1e-8, 1e8, 1e100, 1e300])
def test_distances_scale_with_the_draws(scale):
    """The solver of POT takes costs far below 1 for zero, and squares overflow."""
    x, y = normal(200, 2, 0), 1.5 * normal(200, 2, 1)
    widths = bandwidths(scale * x)
    assert wasserstein2(scale * x, scale * y) == pytest.approx(scale * wasserstein2(x, y))
    assert torch.allclose(widths / scale, bandwidths(x), rtol=1e-12)
    assert mmd2(scale * x, scale * y, widths) == pytest.approx(mmd2(x, y, bandwidths(x)))


def test_w2_far_below_the_largest_distance_is_exact():
    """One far outlier does not hide what the other draws do."""
    x, y = normal(200, 2, 0), 1.5 * normal(200, 2, 1)
    x[0] = y[0] = 1e7
    expected = wasserstein2(x[1:], y[1:]) * math.sqrt(199 / 200)
    assert wasserstein2(x, y) == pytest.approx(expected, rel=1e-6)


def test_w2_of_equal_draws_is_zero():
    assert wasserstein2(torch.full((30, 2), 1.7e9), torch.full((20, 2), 1.7e9)) == 0
    assert wasserstein2(torch.zeros(30, 2), torch.zeros(20, 2)) == 0


def test_w2_is_symmetric_and_a_metric():
    x, y, z = (normal(200, 2, s) * (s + 1) for s in range(3))
    assert wasserstein2(x, y) == pytest.approx(wasserstein2(y, x))
    assert wasserstein2(x, z) <= wasserstein2(x, y) + wasserstein2(y, z)


def test_mmd2_averages_zero_under_the_null_and_goes_below():
    widths = bandwidths(normal(1000, 2, 99))
    values = np.array([mmd2(normal(150, 2, 2 * s), normal(150, 2, 2 * s + 1), widths)
                       for s in range(200)])  # fmt: skip
    assert abs(values.mean()) < 3.5 * values.std() / math.sqrt(len(values))
    assert (values < 0).mean() > 0.2


def test_mmd2_of_two_gaussians_is_the_closed_form():
    """For N(0, 1) and N(m, 1) in one dimension, E k = h/√(h²+2)·exp(−m²/2(h²+2))."""
    widths = torch.tensor([0.7, 1.5], dtype=torch.float64)
    m = 0.8
    expected = np.mean([
        2 * h / math.sqrt(h**2 + 2) * (1 - math.exp(-(m**2) / (2 * (h**2 + 2))))
        for h in widths.tolist()
    ])  # fmt: skip
    values = [mmd2(normal(1500, 1, s), normal(1500, 1, 100 + s) + m, widths) for s in range(10)]
    assert np.mean(values) == pytest.approx(expected, rel=0.05)


def test_permutation_p_value_is_uniform_under_the_null_and_small_under_a_shift():
    widths = bandwidths(normal(500, 2, 99))
    generator = torch.Generator().manual_seed(0)
    p = [
        mmd_test(normal(60, 2, 2 * s), normal(60, 2, 2 * s + 1), widths, generator, 100)[1]
        for s in range(150)
    ]
    assert 0.4 < np.mean(p) < 0.6
    assert 0.02 < np.mean(np.array(p) <= 0.1) < 0.2
    value, p_value = mmd_test(normal(300, 2, 0), normal(300, 2, 1) + 0.5, widths, generator)
    assert p_value == pytest.approx(1 / 201)
    assert value == pytest.approx(mmd2(normal(300, 2, 0), normal(300, 2, 1) + 0.5, widths))


def test_paired_kl_is_far_less_noisy_than_nll():
    x = normal(5000, 1, 0)[:, 0]
    log_p = -0.5 * x**2 - 0.5 * math.log(2 * math.pi)
    shift = 0.1
    log_q = -0.5 * (x - shift) ** 2 - 0.5 * math.log(2 * math.pi)
    divergence = kl(log_p, log_q)
    assert abs(divergence.mean - shift**2 / 2) < 4 * divergence.se
    assert divergence.se < nll(log_q).se / 5


def test_floor_is_positive_and_shrinks_with_n():
    target = get("banana")
    small, large = floor_of_target(target, 50), floor_of_target(target, 400)
    assert small.w2 > large.w2 > 0
    assert abs(large.mmd2) < 4 * large.mmd2_sd
    assert floor_of_target(target, 50) is small  # measured once in this process


@pytest.mark.parametrize(
    "damaged", ["{damaged", "[]", '{"v1/banana/50": {"w2": 1}}', '{"v1/banana/50": 3}']
)
def test_a_damaged_cache_costs_time_alone(tmp_path, damaged):
    cache = tmp_path / "cache" / "floors.json"
    floor = floor_of_target(get("banana"), 50, cache=cache)
    cache.write_text(damaged)
    assert floor_of_target(get("banana"), 50, cache=cache) == floor
    assert floor_of_target(get("banana"), 50, cache=cache) == floor


def test_floors_are_kept_in_the_cache_and_read_from_it(tmp_path):
    cache = tmp_path / "floors.json"
    floors = {
        f"v1/{name}/50": floor_of_target(get(name), 50, cache=cache) for name in ("banana", "rings")
    }
    kept = json.loads(cache.read_text())
    assert kept == {key: asdict(floor) for key, floor in floors.items()}
    kept["v1/banana/50"]["w2"] = 99.0
    cache.write_text(json.dumps(kept))
    assert floor_of_target(get("banana"), 50, cache=cache).w2 == 99
    assert floor_of_target(get("banana"), 50) == floors["v1/banana/50"]


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    cache = tmp_path / "file" / "floors.json"
    assert floor_of_target(get("banana"), 50, cache=cache) == floor_of_target(get("banana"), 50)


def test_without_a_cache_no_file_is_written(tmp_path, monkeypatch):
    for variable in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    floor_of_target(get("banana"), 60)
    assert list(tmp_path.rglob("*")) == []


@dataclass(frozen=True)
class Wide(Banana):
    """A user's target under the name of one of ours."""

    def _sample(self, n, generator):
        return 10 * super()._sample(n, generator)


def test_only_targets_known_by_name_are_remembered(tmp_path):
    cache = tmp_path / "floors.json"
    known = floor_of_target(get("banana"), 50, cache=cache)
    content = cache.read_text()
    for target in (Wide(), Banana(curvature=2.0)):
        floor = floor_of_target(target, 50, cache=cache)
        assert floor != known
        assert cache.read_text() == content
    assert floor_of_target(Wide(), 50).w2 == pytest.approx(10 * known.w2, rel=0.5)


def test_floor_of_draws_is_that_of_the_target():
    target, generator = get("banana"), torch.Generator().manual_seed(0)
    draws = target.sample(4000, generator)
    floor = floor_of_draws(draws, None, 400, bandwidths(draws), generator)
    assert floor.w2 == pytest.approx(floor_of_target(target, 400).w2, rel=0.15)


def test_unusable_draws_are_refused():
    x = normal(20, 2, 0)
    with pytest.raises(InputError, match=r"\(n, d\) and \(m, d\)"):
        wasserstein2(x, x[:, :1])
    with pytest.raises(InputError, match="NaN or infinity"):
        wasserstein2(x, x / 0)
    with pytest.raises(InputError, match="at least two draws per sample"):
        mmd2(x[:1], x, torch.ones(1))
    with pytest.raises(InputError, match="all equal"):
        bandwidths(torch.ones(9, 2))
