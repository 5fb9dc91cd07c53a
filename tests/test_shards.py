"""Posteriors in pieces: draws in shards, and products of sub-posteriors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import amfvi
from amfvi import targets
from amfvi.errors import InputError, UsageError
from amfvi.shards import fit_shards, product


def kl(mixture, target, n=10_000):
    x = target.sample(n, torch.Generator().manual_seed(9))
    return float((target.log_prob(x) - mixture.log_prob(x)).mean())


@pytest.mark.parametrize("seed", [0, 1])
def test_shards_are_about_as_near_as_one_fit_and_nearer_than_a_shard(seed):
    target = targets.get("multimodal")
    x = target.sample(4000, torch.Generator().manual_seed(seed))
    together = fit_shards(list(x.split(1000)), experts="gmm", seed=seed)
    one = amfvi.fit(x, experts="gmm", seed=seed, test_fraction=0.0)
    alone = amfvi.fit(x[:1000], experts="gmm", seed=seed, test_fraction=0.0)
    assert kl(together, target) < kl(alone, target)
    assert kl(together, target) < 2 * kl(one, target) + 0.01


def test_files_are_read_by_workers_and_give_the_same(tmp_path):
    x = targets.get("bimodal").sample(1500, torch.Generator().manual_seed(0))
    parts = [x[:500], x[500:]]
    paths = []
    for i, part in enumerate(parts):
        paths.append(tmp_path / f"{i}.npy")
        np.save(paths[-1], part.numpy())
    here = fit_shards(parts, experts="gmm")
    there = fit_shards(paths, experts="gmm", pool=2)
    assert torch.equal(here.log_prob(x[:50]), there.log_prob(x[:50]))
    shares = [sum(float(w) for n, w in zip(here.experts, here.weights, strict=True)
                  if n.endswith(f"shard {i}")) for i in (1, 2)]  # fmt: skip
    assert shares == pytest.approx([1 / 3, 2 / 3])


def test_constraints_hold_in_all_shards_by_one_change_of_variables():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3000, 2, generator=generator, dtype=torch.float64).exp()
    x[:1500, 0] *= 1.5  # shards that differ
    shards = [x[:1500], x[1500:]]
    mixture = fit_shards(shards, experts="gmm", constraints=["positive", "positive"])
    draws = mixture.sample((4000,), generator)
    assert bool((draws > 0).all())
    assert mixture.log_prob(torch.tensor([[-1.0, 1.0]]).double()) == -math.inf
    grid = torch.linspace(-4, 5, 200, dtype=torch.float64)
    points = torch.cartesian_prod(grid, grid).exp()
    density = (mixture.log_prob(points) + points.log().sum(dim=1)).exp()
    assert float(density.sum() * (grid[1] - grid[0]) ** 2) == pytest.approx(1, abs=0.02)


def test_a_fit_of_shards_can_be_saved_and_loaded(tmp_path):
    x = targets.get("bimodal").sample(800, torch.Generator().manual_seed(0))
    fitted = fit_shards(list(x.split(400)), experts="gmm")
    fitted.save(tmp_path / "model")
    again = amfvi.load(tmp_path / "model", device=fitted.device)
    assert torch.equal(again.log_prob(x), fitted.log_prob(x))


@pytest.mark.parametrize(
    ("shards", "error", "message"),
    [
        ([], UsageError, "shards must be a sequence"),
        (5, UsageError, "shards must be a sequence"),
        ("draws.npy", UsageError, "shards must be a sequence"),
        ([np.zeros((100, 2)), np.zeros((100, 3))], InputError, "constant|x1"),
        (["nowhere.npy"], InputError, "nowhere.npy"),
    ],
)
def test_wrong_shards_are_named(shards, error, message):
    with pytest.raises(error, match=message):
        fit_shards(shards, experts="gmm")


def test_shards_of_other_parameters_are_named():
    x = np.random.default_rng(0).normal(size=(200, 3))
    with pytest.raises(UsageError, match="shard 2 has the parameters x1, x2, x3, the first"):
        fit_shards([x[:, :2], x], experts="gmm")


def gaussian_parts(n_parts, seed, n=600, dim=2):
    """Posterior means and covariance of a regression, and fits to those of parts of the data."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    y = x @ torch.arange(1.0, dim + 1).double() + torch.randn(n, generator=generator).double()

    def posterior(x, y, share):
        precision = x.T @ x + share * torch.eye(dim, dtype=torch.float64)
        return torch.linalg.solve(precision, x.T @ y), torch.linalg.inv(precision)

    parts = []
    for s in range(n_parts):
        mean, covariance = posterior(x[s::n_parts], y[s::n_parts], 1 / n_parts)
        factor = torch.linalg.cholesky(covariance)
        noise = torch.randn(4000, dim, generator=generator, dtype=torch.float64)
        parts.append(amfvi.fit(mean + noise @ factor.T, experts="gmm"))
    return *posterior(x, y, 1.0), parts


@pytest.mark.parametrize(("n_parts", "seed"), [(2, 0), (8, 1)])
def test_the_product_of_subposteriors_is_the_posterior_of_all_data(n_parts, seed):
    mean, covariance, parts = gaussian_parts(n_parts, seed)
    density = product(parts)
    posterior = amfvi.fit(density, experts="gmm", n_draws=2000, seed=0)
    draws = posterior.sample((20_000,), torch.Generator().manual_seed(0))
    sd = covariance.diagonal().sqrt()
    assert float(((draws.mean(dim=0) - mean) / sd).abs().max()) < 0.1
    assert float((draws.std(dim=0) / sd - 1).abs().max()) < 0.1
    assert "product of" in " ".join(posterior.diagnostics.reasons)


def test_wrong_products_are_named():
    _, _, parts = gaussian_parts(2, 0)
    with pytest.raises(UsageError, match="one posterior at least"):
        product([])
    with pytest.raises(UsageError, match="of mixtures, found int"):
        product([1, 2])
    with pytest.raises(UsageError, match="max_evaluations= goes with a log density"):
        fit_shards([np.zeros((100, 2))], max_evaluations=10)
    other = amfvi.fit(np.random.default_rng(0).normal(size=(200, 3)), experts="gmm")
    with pytest.raises(UsageError, match="posterior 2 has other names"):
        product([parts[0], other])
    x = np.random.default_rng(0).gamma(2, size=(200, 2))
    positive = amfvi.fit(x, experts="gmm", constraints=["positive", "positive"])
    with pytest.raises(UsageError, match="posterior 2 has other constraints"):
        product([parts[0], positive])
