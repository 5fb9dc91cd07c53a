"""Draws far out that are added to a sample: more of the tails, and the same posterior."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from amfvi.density.budget import Budget
from amfvi.density.log_density import LogDensity
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.sampler.enrichment import N_CHAINS, enrich
from amfvi.sampler.outer_chains import N_STEPS
from amfvi.sampler.runs import sample_posterior


def bent(x):
    """z₁ ~ N(0, 1), z₂ | z₁ ~ N(z₁³, 1): its variance is 16."""
    return -0.5 * (x[:, 0].square() + (x[:, 1] - x[:, 0] ** 3).square())


def density_of(**options):
    return UnconstrainedDensity(LogDensity(bent, 2, names=("a", "b")), **options)


def whole(n, seed):
    """A sample of the whole posterior, in the form of the sampler's."""
    sample = sample_posterior(density_of(), 500, seed=seed)
    z = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = torch.stack([z[:, 0], z[:, 0] ** 3 + z[:, 1]], dim=1)
    return replace(sample, x=x, run=torch.zeros(n, dtype=torch.int64))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_there_are_more_draws_far_out_and_moments_stay(seed):
    sample = whole(10_000, seed)
    rich = enrich(sample, density_of(), torch.Generator().manual_seed(seed))
    far = sample.x[:, 0].abs() > 2.5
    assert int((rich.x[:, 0].abs() > 2.5).sum()) > 1.5 * int(far.sum())
    weights = rich.sample_weight / rich.sample_weight.sum()
    mean = (weights[:, None] * rich.x).sum(dim=0)
    sd = (weights[:, None] * (rich.x - mean).square()).sum(dim=0).sqrt()
    # 10,000 draws know the sd of z₂, whose squares have tails, to 3%.
    assert sd.tolist() == pytest.approx([1.0, 4.0], rel=0.12)
    assert float((weights * (rich.x[:, 0] > 1)).sum()) == pytest.approx(0.1587, abs=0.015)
    assert len(rich.run) == len(rich.x) == len(rich.sample_weight)
    assert set(rich.run.tolist()) == {0, 1}  # the states are a run of their own


def test_weights_of_the_sample_are_kept():
    """Draws of which those below zero count twice: so they do afterwards."""
    sample = whole(10_000, 0)
    weights = torch.where(sample.x[:, 0] < 0, 4 / 3, 2 / 3)
    weighted = replace(sample, sample_weight=weights.double())
    rich = enrich(weighted, density_of(), torch.Generator().manual_seed(0))
    below = rich.x[:, 0] < 0
    first = torch.arange(len(rich.x)) < 10_000
    ratio = rich.sample_weight[below & first].sum() / rich.sample_weight[~below & first].sum()
    assert float(ratio) == pytest.approx(2.0, rel=0.1)


def test_without_evaluations_the_sample_stands():
    sample = whole(1_000, 0)
    density = density_of(budget=Budget(max_evaluations=N_CHAINS * N_STEPS // 2))
    assert enrich(sample, density, torch.Generator().manual_seed(0)) is sample


def test_tails_without_a_variance_are_left_alone():
    sample = whole(5_000, 0)
    z = torch.randn(2, 5_000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    cauchy = replace(sample, x=z[0] / z[1])
    assert enrich(cauchy, density_of(), torch.Generator().manual_seed(0)) is cauchy
