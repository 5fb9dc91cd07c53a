"""Evidence accumulates over an inference: what one step saw, later steps know."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.distributions import MultivariateNormal

import amfvi
from amfvi.density.budget import OutOfBudgetError
from amfvi.density.log_density import LogDensity
from amfvi.diagnostics.defensive import DEFENSIVE
from amfvi.diagnostics.departure import Departure
from amfvi.diagnostics.report import Verdict
from amfvi.experts import GMM
from amfvi.inference import refinement, session
from amfvi.sampler.arrival import Arrival
from amfvi.statistics import Estimate
from amfvi.targets import get

WIDE = MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
NARROW = MultivariateNormal(torch.full((2,), 30.0).double(), 0.01 * torch.eye(2).double())
NEAR_THE_NARROW_MODE = torch.tensor([[29.0, 31.0]], dtype=torch.float64)
GAUSSIAN = {"experts": [GMM(max_components=1)], "folds": 2, "n_draws": 1000, "seed": 0}


def seeded(number):
    return torch.Generator().manual_seed(number)


def wide_and_narrow():
    """A fifth of the mass in a mode so narrow in its box that no fresh point falls near it."""

    def log_prob(x):
        parts = (math.log(0.8) + WIDE.log_prob(x), math.log(0.2) + NARROW.log_prob(x))
        return torch.logaddexp(*parts)

    return LogDensity(log_prob, 2, box=(-1000.0, 1000.0))


def draws_of_the_wide_mode(n=1200):
    return torch.randn(n, 2, generator=seeded(0)).double()


@pytest.fixture
def lost_mode(scripted_sampler, sample_of):
    """A density and a sampler of which only the second look passes by the narrow mode.

    Its draws and those of every refinement are of the wide mode alone.
    """
    density, x = wide_and_narrow(), draws_of_the_wide_mode()
    log_z = Estimate(math.log(0.8), 0.01)
    first = sample_of(x, density, log_z=log_z, max_mean_discrepancy_in_sd=0.7)
    look = replace(first, **vars(sample_of(x, density, history=NEAR_THE_NARROW_MODE)))
    sampler = scripted_sampler(first, look, sample_of(x, density, log_z=log_z))
    return density, sampler


def names_the_narrow_mode(diagnostics):
    return any("lacks a mode at x1 = 30" in reason for reason in diagnostics.reasons)


def test_a_mode_that_only_the_second_look_saw_counts_after_a_refit_that_lacks_it(lost_mode):
    """It was searched for with the first sample's points alone, and the fit was trusted."""
    density, sampler = lost_mode
    diagnostics = amfvi.fit(density, **GAUSSIAN).diagnostics
    assert sampler.calls == ["sampler", "second look", "refinement 1", "refinement 2"]
    assert diagnostics.verdict is Verdict.DO_NOT_TRUST
    assert names_the_narrow_mode(diagnostics)
    assert "too few evaluations" not in str(diagnostics)


def test_without_the_second_look_the_same_fit_is_trusted(lost_mode, sample_of):
    """So that it is what the look saw that counts against it."""
    density, sampler = lost_mode
    sampler.samples[1] = sampler.samples[0]
    diagnostics = amfvi.fit(density, **GAUSSIAN).diagnostics
    assert diagnostics.verdict is Verdict.TRUST, diagnostics.reasons


def test_a_mode_found_before_the_evaluations_ran_out_is_kept(lost_mode):
    """A search without evaluations gave an empty report, which replaced the mode found."""
    density, sampler = lost_mode

    sampler.before = leave_a_few_evaluations
    diagnostics = amfvi.fit(density, max_refinements=1, **GAUSSIAN).diagnostics
    assert sampler.calls[-1] == "refinement 1"
    assert diagnostics.n_draws == 600  # the refit was compared, then nothing was left
    assert diagnostics.verdict is Verdict.DO_NOT_TRUST
    assert names_the_narrow_mode(diagnostics)
    assert "too few evaluations were left to search for modes" in diagnostics.reasons[-1]


def test_a_mode_that_the_first_search_found_is_kept_too(scripted_sampler, sample_of):
    """Half of a bimodal density was forgotten when evaluations ran out after the refit."""
    density, x = bimodal(), draws_of_the_right_mode()
    sampler = scripted_sampler(sample_of(x, density, log_z=Estimate(math.log(0.5), 0.01)))
    sampler.before = leave_a_few_evaluations
    diagnostics = amfvi.fit(density, max_refinements=1, **GAUSSIAN).diagnostics
    assert sampler.calls == ["sampler", "refinement 1"]
    assert diagnostics.n_draws == 600
    assert diagnostics.verdict is Verdict.DO_NOT_TRUST
    assert any("lacks a mode at x1 = -3" in reason for reason in diagnostics.reasons)


def leave_a_few_evaluations(stream_name, density):
    """Enough for the comparison with a refit and too few for a search after it."""
    if stream_name == "refinement 1":
        density.budget.release()
        density.budget.max_evaluations = density.budget.spent + 1200


def bimodal():
    return LogDensity(get("bimodal").log_density, 2)


def draws_of_the_right_mode():
    x = get("bimodal").sample(4000, seeded(0))
    return x[x[:, 0] > 0][:1200]


def test_a_refit_that_covers_the_mode_ends_the_complaint(scripted_sampler, sample_of):
    density = bimodal()
    half = Estimate(math.log(0.5), 0.01)
    scripted_sampler(
        sample_of(draws_of_the_right_mode(), density, log_z=half),
        sample_of(get("bimodal").sample(1200, seeded(1)), density),
    )
    diagnostics = amfvi.fit(density, **(GAUSSIAN | {"experts": "gmm"})).diagnostics
    assert diagnostics.verdict is Verdict.TRUST, diagnostics.reasons
    assert diagnostics.log_z == pytest.approx(0, abs=0.05)


@pytest.fixture
def cauchy(scripted_sampler, sample_of):
    """A bivariate Cauchy density, and draws of its central part alone."""
    density = LogDensity(lambda x: -1.5 * torch.log1p(x.square().sum(dim=1)), 2)
    normals = torch.randn(1500, 3, generator=seeded(0)).double()
    x = normals[:, :2] / normals[:, 2:].abs()
    x = x[x.norm(dim=1) < 6]
    scripted_sampler(sample_of(x, density, log_z=Estimate(math.log(2 * math.pi), 0.01)))
    return density


HAS_TAILS = "tails or parts far out"


def test_tails_that_the_mixture_lacks_are_named(cauchy, monkeypatch):
    """Where no defensive component has reliable weights."""

    def no_defense(mixture, weighted, *_, **__):
        return mixture, weighted

    monkeypatch.setattr(refinement, "ensure_reliable_weights", no_defense)
    diagnostics = amfvi.fit(cauchy, max_refinements=0, **GAUSSIAN).diagnostics
    assert diagnostics.verdict is Verdict.DO_NOT_TRUST
    assert HAS_TAILS in str(diagnostics)
    assert "not measured" not in str(diagnostics)


def test_tails_that_a_defensive_component_covers_are_not_named(cauchy):
    """The draws that end at six remain a reason against the fit."""
    posterior = amfvi.fit(cauchy, max_refinements=0, **GAUSSIAN)
    assert DEFENSIVE in posterior.experts
    diagnostics = posterior.diagnostics
    assert diagnostics.log_z == pytest.approx(math.log(2 * math.pi), abs=0.05)
    assert HAS_TAILS not in str(diagnostics)
    assert "not measured" not in str(diagnostics)
    assert diagnostics.verdict is Verdict.DO_NOT_TRUST
    assert "widen a standard deviation by" in diagnostics.reasons[0]


def test_tail_mass_once_found_is_not_replaced_by_one_that_was_not_measured(cauchy, monkeypatch):
    """A share that could not be measured was written as zero over the one found before."""
    attempts = []

    def out_of_budget(*_):
        attempts.append(1)
        raise OutOfBudgetError("max_evaluations", 1)

    monkeypatch.setattr(session, "measure_tail_mass", out_of_budget)
    diagnostics = amfvi.fit(cauchy, max_refinements=0, **GAUSSIAN).diagnostics
    assert attempts  # after the weights were to be mended
    assert HAS_TAILS in str(diagnostics)


def test_a_fit_without_any_search_says_so(cauchy, monkeypatch):
    """It said nothing of the tails, as if there had been a look at them."""

    def out_of_budget(*_):
        raise OutOfBudgetError("max_evaluations", 1)

    for search in ("measure_tail_mass", "search_undetected_modes"):
        monkeypatch.setattr(session, search, out_of_budget)
    diagnostics = amfvi.fit(cauchy, max_refinements=0, **GAUSSIAN).diagnostics
    assert HAS_TAILS not in str(diagnostics)
    assert "too few evaluations were left to search for modes" in diagnostics.reasons[-1]
    assert "its tails were not measured" in diagnostics.reasons[-1]


@pytest.fixture
def two_samplings(scripted_sampler, sample_of):
    """Bimodal: a first sampling that saw less mass than there is, then right ones."""

    def script(error):
        density = bimodal()
        exact = sample_of(get("bimodal").sample(1200, seeded(1)), density)
        off = replace(exact, log_z=Estimate(error, 0.01))
        return density, scripted_sampler(off, replace(exact, log_z=Estimate(0.003, 0.02)))

    return script


@pytest.mark.parametrize(
    ("error", "samplings", "verdict"),
    [(-0.5, 3, Verdict.TRUST), (0.5, 1, Verdict.DO_NOT_TRUST)],
)
def test_a_sampler_that_saw_less_than_the_mixture_gets_a_second_look(
    error, samplings, verdict, two_samplings
):
    """And a start from the mixture. One that saw more is not overruled by it."""
    density, sampler = two_samplings(error)
    diagnostics = amfvi.fit(density, **(GAUSSIAN | {"experts": "gmm"})).diagnostics
    assert sampler.calls == ["sampler", "second look", "refinement 1"][:samplings]
    assert diagnostics.verdict is verdict, diagnostics.reasons


@pytest.mark.parametrize(("max_evaluations", "looks"), [(150_000, True), (90_000, False)])
def test_a_second_look_leaves_enough_evaluations_to_move_on(max_evaluations, looks, two_samplings):
    """On thin cubic ridges it took those with which the sampler would have arrived."""
    density, sampler = two_samplings(-0.5)
    settings = GAUSSIAN | {"experts": "gmm", "max_evaluations": max_evaluations}
    amfvi.fit(density, **settings)
    assert sampler.calls == ["sampler", *["second look"][: int(looks)], "refinement 1"]


def test_the_evidence_of_the_broad_start_stays_beside_that_of_a_refinement(two_samplings):
    """After a refinement its log Z, no independent check, was reported as the sampler's."""
    density, _ = two_samplings(-0.5)
    refined = amfvi.fit(density, **(GAUSSIAN | {"experts": "gmm"})).diagnostics
    assert (refined.log_z_sampler, refined.log_z_sampler_se) == (-0.5, 0.01)
    assert (refined.log_z_refinement, refined.log_z_refinement_se) == (0.003, 0.02)
    density, _ = two_samplings(0.0)
    plain = amfvi.fit(density, **(GAUSSIAN | {"experts": "gmm"})).diagnostics
    assert plain.log_z_sampler == 0.0
    assert (plain.log_z_refinement, plain.log_z_refinement_se) == (None, None)


def test_seconds_are_summed_over_every_sampling_and_every_fit(two_samplings, monkeypatch):
    """Only the first sampling and the last fit were counted."""
    density, sampler = two_samplings(-0.5)
    now = 0.0
    fits = []

    def take_ten_seconds(*_):
        nonlocal now
        now += 10.0

    def fit_in_five_seconds(*arguments, **options):
        mixture, summary = fit_split(*arguments, **options)
        fits.append(summary)
        return mixture, replace(summary, seconds={"stage_one": 5.0, "stage_two": 1.0})

    fit_split = session.fit_split
    sampler.before = take_ten_seconds
    monkeypatch.setattr(session, "fit_split", fit_in_five_seconds)
    monkeypatch.setattr(session, "time", SimpleNamespace(monotonic=lambda: now))
    summary = amfvi.fit(density, **(GAUSSIAN | {"experts": "gmm"})).summary
    assert sampler.calls == ["sampler", "second look", "refinement 1"]
    assert len(fits) == 2
    assert summary.seconds == {
        "sampling": 30.0, "stage_one": 10.0, "stage_two": 2.0, "diagnostics": 0.0,
    }  # fmt: skip


@pytest.fixture
def normal(scripted_sampler, sample_of):
    """normal(*means): the standard normal, and samplers whose draws have these means."""

    def script(*means):
        density = LogDensity(WIDE.log_prob, 2)
        samples = [
            sample_of(draws_of_the_wide_mode() + mean, density, log_z=Estimate(0.0, 0.01))
            for mean in means
        ]
        return density, scripted_sampler(*samples)

    return script


def test_draws_that_weights_would_move_far_are_moved_on(normal):
    """By .5 sd: the sampler goes on, and no start is given a second look for it."""
    density, sampler = normal(0.5, 0.0)
    diagnostics = amfvi.fit(density, **GAUSSIAN).diagnostics
    assert sampler.calls == ["sampler", "refinement 1"]
    assert diagnostics.verdict is Verdict.TRUST, diagnostics.reasons


def test_draws_that_weights_would_move_a_little_are_weighted_and_fitted_again(normal):
    """By .06 sd, at no sampling; plain draws are then nearer to the truth."""
    density, sampler = normal(0.06)
    before = amfvi.fit(density, max_refinements=0, **GAUSSIAN)
    after = amfvi.fit(density, **GAUSSIAN)
    assert sampler.calls == ["sampler", "sampler"]
    assert after.diagnostics.verdict is Verdict.TRUST, after.diagnostics.reasons
    off = [
        float(fit.sample((20_000,), seeded(0)).mean(dim=0).abs().max()) for fit in (before, after)
    ]
    assert off[0] > 0.04
    assert off[1] < off[0]


def test_draws_that_never_come_right_are_not_trusted(normal):
    """And what does not help is not tried for ever."""
    density, sampler = normal(0.5)
    diagnostics = amfvi.fit(density, **GAUSSIAN).diagnostics
    assert diagnostics.verdict is Verdict.DO_NOT_TRUST
    against = ("importance weights move a mean by 0.5", "draws of the sampler put log Z at")
    assert diagnostics.reasons[0].startswith(against), diagnostics.reasons
    assert sampler.calls[:2] == ["sampler", "refinement 1"]
    assert len(sampler.calls) <= 1 + refinement.MAX_REFINEMENTS


@pytest.mark.parametrize("wanted", [0, 1])
def test_no_more_refinements_than_asked_for(wanted, normal):
    density, sampler = normal(0.5, 0.4, 0.3, 0.0)
    diagnostics = amfvi.fit(density, max_refinements=wanted, **GAUSSIAN).diagnostics
    assert len(sampler.calls) == 1 + wanted
    assert diagnostics.verdict is Verdict.DO_NOT_TRUST


def test_without_evaluations_for_another_round_the_fit_stays_as_it_is(normal, monkeypatch):
    density, sampler = normal(0.5, 0.0)

    def too_few(density, y, **_):
        return Arrival(y=y, reference=None, change=math.inf, rounds=0)

    monkeypatch.setattr(session, "arrive", too_few)
    diagnostics = amfvi.fit(density, **GAUSSIAN).diagnostics
    assert sampler.calls == ["sampler"]
    assert diagnostics.verdict is Verdict.DO_NOT_TRUST


def test_chains_that_leave_the_mixture_count_against_it(normal, monkeypatch):
    """However good its own draws look; the sampler goes on as often as that helps."""
    density, sampler = normal(0.0)
    starts = []

    def leave(*_):
        starts.append(1)
        return Departure(excess=0.4, excess_se=0.05, lacking=0.1)

    monkeypatch.setattr(session, "measure_departure", leave)
    diagnostics = amfvi.fit(density, max_refinements=3, **GAUSSIAN).diagnostics
    assert diagnostics.verdict is Verdict.DO_NOT_TRUST
    assert "chains that start from the mixture's draws leave it" in diagnostics.reasons[0]
    assert sampler.calls == ["sampler", "refinement 1", "refinement 2", "refinement 3"]
    assert len(starts) >= 3  # each of the mixtures is asked


def test_chains_that_could_not_be_started_are_no_evidence_for_the_fit(normal, monkeypatch):
    density, _ = normal(0.0)

    def out_of_budget(*_):
        raise OutOfBudgetError("max_evaluations", 1)

    monkeypatch.setattr(session, "measure_departure", out_of_budget)
    diagnostics = amfvi.fit(density, max_refinements=1, **GAUSSIAN).diagnostics
    assert diagnostics.verdict is Verdict.DO_NOT_TRUST
    assert "too few evaluations were left to start chains" in diagnostics.reasons[0]
