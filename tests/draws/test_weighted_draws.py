"""Weighted draws from file to scores: importance weights in, weighted scores out."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import amfvi
from amfvi.draws.draws import Draws
from amfvi.errors import InputError, UsageError
from amfvi.statistics import Estimate, effective_sample_size
from amfvi.targets import get
from amfvi.two_stage.weights import fit_weights


def wide_draws(n, seed):
    """Draws twice as wide as the banana needs, with their importance weights."""
    target, generator = get("banana"), torch.Generator().manual_seed(seed)
    scores = 1.5 * torch.randn(n, 2, generator=generator, dtype=torch.float64)
    bent = torch.stack([2**0.5 * scores[:, 0], scores[:, 1] + scores[:, 0].square() / 2], dim=1)
    log_q = -0.5 * (scores / 1.5).square().sum(dim=1)
    return bent, (target.log_prob(bent) - log_q).exp()


def test_a_column_of_weights_is_used(command, tmp_path):
    draws, weight = wide_draws(3000, 0)
    table = torch.cat([draws, weight[:, None]], dim=1).numpy()
    np.savetxt(tmp_path / "wide.csv", table, delimiter=",", header="a,b,weight", comments="")
    done = command("fit", "--draws", "wide.csv", "--experts", "gmm", "--folds", "2", "--json",
                   "--no-figures", "--quiet")  # fmt: skip
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    # The entropy of the banana is 3.184; draws without their weights would score 3.9.
    assert scores["mixture"]["nll"] == pytest.approx(3.184, abs=4 * scores["mixture"]["nll_se"])
    assert scores["mixture"]["w2"] < scores["floor"]["w2"] + 4 * scores["floor"]["w2_sd"]
    again = command("evaluate", "runs/wide-0", "--json")
    assert json.loads(again.stdout)["mixture"]["nll"] == pytest.approx(
        scores["mixture"]["nll"], rel=1e-12
    )
    saved, exact = amfvi.load(tmp_path / "runs" / "wide-0" / "model"), get("banana")
    x = exact.sample(5000, torch.Generator().manual_seed(1))
    assert float((exact.log_prob(x) - saved.log_prob(x)).mean()) < 0.1


def test_weights_give_the_effective_sample_size():
    x, weight = wide_draws(2000, 1)
    draws = Draws.from_array(x, sample_weight=weight)
    share = weight / weight.sum()
    assert draws.ess == pytest.approx(float(1 / share.square().sum()))
    assert float(draws.sample_weight.mean()) == pytest.approx(1)
    equal = Draws.from_array(x, sample_weight=torch.full((2000,), 3.0))
    assert (equal.sample_weight, equal.ess) == (None, 2000)
    weight[:500] = 0
    assert len(Draws.from_array(x, sample_weight=weight)) == 1500


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (np.ones(5), UsageError, "must be 200 real numbers"),
        (np.append(np.ones(199), -1), InputError, "found -1 at row 199"),
        (np.append(np.nan, np.ones(199)), InputError, "found nan at row 0"),
        (np.zeros(200), InputError, "all weights are zero"),
        (np.append(1e9, np.ones(199)), InputError, "effective sample size of 1.0"),
    ],
)
def test_what_is_wrong_with_weights(weights, error, message):
    draws = np.random.default_rng(0).normal(size=(200, 2))
    with pytest.raises(error, match=message):
        Draws.from_array(draws, sample_weight=weights)


def test_a_target_needs_no_weights():
    with pytest.raises(UsageError, match="sample_weight= goes with an array or a file of draws"):
        amfvi.fit("banana", sample_weight=np.ones(3))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_scale_of_sample_weight_means_nothing(seed):
    random = np.random.default_rng(seed)
    log_q = random.normal(size=(500, 4)) * 0.3
    weights = random.exponential(size=500)
    small, large = (fit_weights(log_q, sample_weight=s * weights).weights for s in (1, 100))
    assert np.allclose(small, large, atol=1e-9)


def test_standard_error_of_a_weighted_mean_covers():
    """Over 400 repeats the error exceeds two standard errors about as often as it should."""
    random = torch.Generator().manual_seed(0)
    outside = 0
    for _ in range(400):
        x = 1.5 * torch.randn(300, generator=random, dtype=torch.float64)
        estimate = Estimate.from_terms(x, (-0.5 * x.square() * (1 - 1 / 2.25)).exp())
        outside += abs(estimate.mean) > 2 * estimate.se
    assert 6 <= outside <= 36  # 18 expected


def test_effective_sample_size_is_between_one_and_n():
    assert effective_sample_size(torch.ones(50)) == pytest.approx(50)
    assert effective_sample_size(torch.tensor([1.0, 0.0, 0.0])) == pytest.approx(1)
