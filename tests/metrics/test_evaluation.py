"""Scores of a mixture: from closed forms, by target, by draws, and where some are missing."""

from __future__ import annotations

import math

import pytest
import torch

from amfvi.draws.draws import Draws
from amfvi.errors import AmfviWarning, FitError, InputError, UsageError
from amfvi.experts import GMM
from amfvi.metrics import evaluate, evaluation, scores
from amfvi.mixture import Mixture
from amfvi.targets import get

BANANA = get("banana")


def draws_of(target, n, seed):
    return target.sample(n, torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def mixture():
    """One expert of the banana, and one of a banana moved by 1."""
    draws = draws_of(BANANA, 1000, 0)
    experts = {"good": GMM(), "moved": GMM()}
    shifts = {"good": 0.0, "moved": 1.0}
    fitted = {name: config.fit(draws + shifts[name]) for name, config in experts.items()}
    return Mixture(fitted, [0.7, 0.3])


@pytest.fixture(autouse=True)
def _fewer_draws(monkeypatch):
    monkeypatch.setattr(evaluation, "N_W2", 150)


def test_scores_on_a_target_are_those_of_its_test_draws(mixture):
    result = evaluate(mixture, "banana", seed=0)
    test = draws_of(BANANA, 20_000, 1)
    log_p, log_q = BANANA.log_prob(test), mixture.log_prob(test)
    score = result.mixture
    assert (result.n_test, result.n_w2, result.entropy) == (20_000, 150, BANANA.entropy)
    assert score.nll == pytest.approx(-float(log_q.mean()), abs=6 * score.nll_se)
    assert score.kl == pytest.approx(float((log_p - log_q).mean()), abs=6 * score.kl_se)
    # On the same draws, KL is the NLL less an estimate of the entropy.
    assert score.nll - score.kl == pytest.approx(BANANA.entropy, abs=6 * score.nll_se)
    best = result.experts["good"]
    assert result.advantage.mean == pytest.approx(best.kl - score.kl, abs=1e-9)
    assert result.experts["moved"].w2 > best.w2
    assert result.experts["moved"].w2 > result.floor.w2 + 5 * result.floor.w2_sd
    assert result.experts["moved"].mmd_p < 0.05


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_scores_do_not_depend_on_the_default_dtype(mixture, dtype):
    draws = draws_of(BANANA, 300, 2)
    weighted = Draws.from_array(draws, sample_weight=torch.linspace(1, 2, 300))
    expected = [evaluate(mixture, data) for data in (draws, weighted)]
    torch.set_default_dtype(dtype)
    try:
        found = [evaluate(mixture, data) for data in (draws, weighted)]
    finally:
        torch.set_default_dtype(torch.float32)
    assert found == expected


def test_scores_follow_the_seed_alone(mixture):
    state = torch.get_rng_state()
    results = [evaluate(mixture, BANANA, seed=seed) for seed in (3, 3, 4)]
    assert results[0] == results[1] != results[2]
    assert torch.equal(state, torch.get_rng_state())


def test_a_mixture_that_is_one_expert_has_its_scores(mixture):
    alone = evaluate(Mixture(mixture.experts, [1.0, 0.0]), BANANA)
    assert alone.mixture == alone.experts["good"] != alone.experts["moved"]
    assert evaluate(mixture, BANANA).mixture.w2 != alone.mixture.w2


def test_weights_of_test_draws_count_as_copies(mixture):
    test = draws_of(BANANA, 600, 2)
    copies = 1 + torch.arange(600) % 3
    weighted = evaluation.evaluate_on_draws(mixture, test, seed=0, sample_weight=copies.double())
    copied = evaluation.evaluate_on_draws(mixture, test.repeat_interleave(copies, 0), seed=0)
    assert weighted.mixture.nll == pytest.approx(copied.mixture.nll, abs=1e-12)
    assert weighted.advantage.mean == pytest.approx(copied.advantage.mean, abs=1e-12)
    assert weighted.n_w2 == 150
    assert (weighted.entropy, weighted.mixture.kl) == (None, None)


def test_distances_are_in_units_of_the_training_sd(mixture):
    """Draws and experts in another unit have the same distances and other likelihoods."""
    draws = draws_of(BANANA, 800, 0)
    for_unit = {}
    for unit in (1.0, 1000.0):
        experts = {"gmm": GMM().fit(unit * draws)}
        scaled = Mixture(experts, [1.0], scale=(unit * draws).std(dim=0))
        for_unit[unit] = evaluate(scaled, unit * draws_of(BANANA, 400, 5))
    small, large = for_unit.values()
    assert large.mixture.w2 == pytest.approx(small.mixture.w2, rel=1e-3)
    assert large.floor.w2 == pytest.approx(small.floor.w2, rel=1e-3)
    assert large.mixture.nll - small.mixture.nll == pytest.approx(2 * math.log(1000), abs=1e-3)


def test_a_distance_that_cannot_be_computed_is_one_score_less(mixture, monkeypatch):
    def fails(x, y):
        raise FitError("no optimum")

    monkeypatch.setattr(scores, "wasserstein2", fails)
    with pytest.warns(AmfviWarning, match="W2 is unknown: no optimum") as caught:
        result = evaluate(mixture, BANANA)
    assert len(caught) == 3  # two experts and the mixture
    assert (result.mixture.w2, result.mixture.w2_sd) == (None, None)
    assert result.mixture.mmd2 is not None
    assert result.mixture.kl is not None


def test_infinite_draws_of_an_expert_have_no_distance(mixture, monkeypatch):
    sample_expert = Mixture.sample_expert

    def overflowing(self, name, n, generator):
        x = sample_expert(self, name, n, generator)
        return x.index_fill(0, torch.tensor([0]), math.inf) if name == "moved" else x

    monkeypatch.setattr(Mixture, "sample_expert", overflowing)
    result = evaluate(mixture, BANANA)
    moved = result.experts["moved"]
    assert (moved.w2, moved.w2_sd, moved.mmd2, moved.mmd_p) == (None, None, None, None)
    assert result.experts["good"].w2 > 0


def test_json_has_every_score(mixture):
    fields = evaluate(mixture, BANANA).to_json()
    assert fields.keys() == {
        "n_test", "n_w2", "entropy", "mixture", "experts", "floor", "advantage",
    }  # fmt: skip
    assert fields["mixture"].keys() == fields["experts"]["good"].keys() == {
        "nll", "nll_se", "kl", "kl_se", "w2", "w2_sd", "mmd2", "mmd_p",
    }  # fmt: skip
    assert fields["floor"].keys() == {"w2", "w2_sd", "mmd2", "mmd2_sd"}
    assert fields["advantage"].keys() == {"mean", "se"}


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (None, UsageError, "no test draws were set aside"),
        ("funnel", UsageError, "funnel has 10 parameters, the mixture has 2"),
        ("eight_schools", UsageError, "has no exact draws to score on"),
        ("banan", UsageError, "did you mean banana"),
        (torch.randn(50, 3), UsageError, "2 names given for 3 columns"),
        (torch.full((50, 2), math.nan), InputError, "NaN or infinity"),
    ],
)
def test_what_cannot_be_scored_on(mixture, data, error, message):
    with pytest.raises(error, match=message):
        evaluate(mixture, data)


def test_too_few_test_draws_are_refused(mixture):
    with pytest.raises(InputError, match="found 1 test draws, need at least 4"):
        evaluation.evaluate_on_draws(mixture, torch.zeros(1, 2).double(), seed=0)
