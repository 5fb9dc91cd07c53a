"""Flows in three or more dimensions mix all coordinates before each layer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from amfvi.experts import MAF, NSF, Folds, RealNVP
from amfvi.experts.flows.flow import MIXING

FLOWS = {
    "maf": MAF(layers=3, compare_unmixed=False),
    "realnvp": RealNVP(layers=4, base_components=1),
    "nsf": NSF(layers=2),
}
NEVER = 1000
"""More parameters than any flow here has."""


def banana(n, *, turned, dim=4):
    """Draws (n, d) and their log density: x₂ bent by x₁, then turned by a fixed rotation."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    log_p = -0.5 * (z.square().sum(dim=1) + dim * torch.tensor(2 * torch.pi).log())
    x = z.clone()
    x[:, 1] += 1.5 * (z[:, 0].square() - 1)
    if not turned:
        return x, log_p
    rotation = torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64))[0]
    return x @ rotation.T, log_p


def kl(config, *, turned):
    x, log_p = banana(6000, turned=turned)
    expert = config.fit(x[:2000], folds=2)
    return float((log_p[2000:] - expert.log_prob(x[2000:])).mean())


@pytest.mark.parametrize("name", FLOWS)
def test_a_turned_banana_is_fitted_about_as_well_as_one_along_the_axes(name):
    """Without the maps it is 1.7 (maf) to 3.8 (realnvp) times further from the truth."""
    along, turned = kl(FLOWS[name], turned=False), kl(FLOWS[name], turned=True)
    fixed = kl(replace(FLOWS[name], mix_from=NEVER), turned=True)
    assert turned < 2 * along
    assert turned < 0.8 * fixed


@pytest.mark.parametrize(("dim", "given", "mixes"), [(2, 0, False), (3, 0, True), (3, 1, False)])
@pytest.mark.parametrize("name", FLOWS)
def test_flows_of_three_coordinates_mix_but_not_given_a_condition(name, dim, given, mixes):
    flow = FLOWS[name].build(dim, given)
    assert flow.mixes is mixes
    assert (MIXING in flow.shapes(1)) is mixes


@pytest.mark.parametrize("name", FLOWS)
def test_a_model_from_before_flows_mixed_is_read_as_it_is(name):
    x, _ = banana(300, turned=True)
    older = replace(FLOWS[name], mix_from=NEVER, max_steps=25).fit(x, folds=2)
    config = replace(FLOWS[name], max_steps=25)  # what the saved settings, without it, become
    again = config.restore(4, older.tensors())
    assert torch.equal(again.log_prob(x), older.log_prob(x))
    assert torch.equal(again.sample(5, generator=torch.Generator().manual_seed(0)),
                       older.sample(5, generator=torch.Generator().manual_seed(0)))  # fmt: skip


def test_flows_that_mix_many_coordinates_have_more_patience():
    """The held-out density gets worse before it gets better."""
    config = RealNVP(max_steps=100, patience=4)
    assert config._more_patient(25) == config
    assert config._more_patient(100) == replace(config, patience=16)


@pytest.mark.parametrize("turned", [False, True])
def test_maf_keeps_its_maps_where_they_help(turned):
    """x₂ follows x₁, as a layer without maps sees it; turned, no order of coordinates helps."""
    x, _ = banana(1500, turned=turned)
    generator = torch.Generator().manual_seed
    folds = Folds.from_array(x, n_folds=2, generator=generator(0))
    both, report = MAF(layers=3).fit_folds(folds, generator=generator(1))
    assert both.flow.mixes is turned
    config = FLOWS["maf"] if turned else replace(FLOWS["maf"], mix_from=NEVER)
    alone = config.fit_folds(folds, generator=generator(1))[1]
    assert report.heldout_nll <= alone.heldout_nll + 0.02
    assert report.seconds > alone.seconds * 0.5
    again = MAF(layers=3).restore(4, both.tensors())
    assert torch.equal(again.log_prob(x), both.log_prob(x))


@pytest.mark.parametrize("dim", [34, 100])
def test_all_coordinates_but_the_last_are_seen_by_an_autoregressive_layer(dim):
    flow = MAF().build(dim)
    reads = flow.masks["input.weight"].any(dim=1)  # layers, coordinates
    moves = flow.masks["output.weight"].any(dim=2).view(flow.layers, 2, dim).any(dim=1)
    assert moves[0].tolist() == reads[1].tolist()  # all but the first depend on some
    assert reads[0].tolist() == [True] * (dim - 1) + [False]
    assert reads[1].tolist() == [False] + [True] * (dim - 1)
