"""The verdict: planted faults are not trusted, and what could not be checked is said."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import amfvi
from amfvi.density.log_density import LogDensity
from amfvi.diagnostics.agreement import runs_disagree
from amfvi.diagnostics.departure import Departure
from amfvi.diagnostics.evidence import Evidence
from amfvi.diagnostics.importance import ImportanceEstimate
from amfvi.diagnostics.report import Diagnostics, Verdict
from amfvi.diagnostics.shift import WeightShift, measure_shift
from amfvi.diagnostics.undetected import CoverageReport
from amfvi.diagnostics.verdict import diagnose
from amfvi.sampler.runs import PosteriorSample
from amfvi.statistics import Estimate
from amfvi.targets import get

SEARCHED = CoverageReport(tail_mass=0.0, searched=True)


def sample_with(**changes):
    """What a sampler that saw nothing odd returns, but for ``changes``."""
    fields = {
        "x": torch.zeros(0, 2), "sample_weight": None, "run": torch.zeros(0),
        "log_z": Estimate(0.0, 0.01), "max_mean_discrepancy_in_sd": 0.02,
        "reference": "1 mode of the density", "n_temperatures": 3,
        "history": torch.zeros(0, 2), "history_log_p": torch.zeros(0),
        "unresolved_share": 0.0, "stopped_by": None, **changes,
    }  # fmt: skip
    return PosteriorSample(**{"log_z_of_runs": (fields["log_z"],) * 2, **fields})


STAYED = Departure(excess=0.01, excess_se=0.01, lacking=0.0)


def evidence_of(
    weighted, *, refinement=None, coverage=SEARCHED, eubo=None, departure=STAYED, shift=None,
    **changes,
):  # fmt: skip
    return Evidence(
        weighted=weighted, sample=sample_with(**changes), refinement=refinement,
        shift=shift or measure_shift(weighted), departure=departure, coverage=coverage, eubo=eubo,
        n_evaluations=20_000, describe=str,
    )  # fmt: skip


@pytest.fixture
def good(gaussian, standard, weighted):
    return weighted(gaussian(), standard)


def test_a_good_fit_is_trusted(good):
    diagnostics = diagnose(evidence_of(good))
    assert diagnostics.verdict is Verdict.TRUST
    assert len(diagnostics.reasons) == 2
    assert "of its draws are effective" in diagnostics.reasons[0]
    assert str(diagnostics).startswith("trust: ")


def test_a_mixture_that_is_too_wide_needs_its_weights(gaussian, standard, weighted):
    diagnostics = diagnose(evidence_of(weighted(gaussian(sd=2.0), standard)))
    assert diagnostics.verdict is Verdict.USE_WITH_IMPORTANCE_WEIGHTS
    assert "weighted draws are reliable, plain ones approximate" in diagnostics.reasons[0]


def test_a_mixture_that_is_too_narrow_is_not_trusted(gaussian, standard, weighted):
    diagnostics = diagnose(evidence_of(weighted(gaussian(sd=0.5), standard)))
    assert diagnostics.verdict is Verdict.DO_NOT_TRUST
    assert "k̂" in diagnostics.reasons[0]


RUNS_APART = (Estimate(0.6, 0.05), Estimate(-0.6, 0.05))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"stopped_by": "timeout=60 at β = .2"}, "the sampler was stopped by timeout=60 at β"),
        ({"log_z": Estimate(0.5, 0.02)}, "log Z is .* by the mixture and 0.500 by the sampler"),
        ({"log_z_of_runs": RUNS_APART}, "two runs of the sampler differ by 1.20 in log Z"),
        ({"max_mean_discrepancy_in_sd": 0.7}, "two runs .* 0.70 standard deviations in the mean"),
        ({"eubo": Estimate(3.0, 0.1)}, "draws of the sampler put log Z at 3.00 at most"),
        (
            {"coverage": CoverageReport(tail_mass=0.12, searched=True)},
            "the mixture lacks tails or parts far out with about 11% of the mass",
        ),
        ({"eubo": Estimate(-0.2, 0.01)}, "draws of the sampler put log Z at -0.20 at most, 0.20 b"),
        (
            {"shift": WeightShift(mean=0.2, sd=0.05, bound=0.2)},
            "importance weights move a mean by 0.20 standard deviations and widen a .* by 5%",
        ),
        (
            {"shift": WeightShift(mean=0.0, sd=0.4, bound=0.4)},
            "importance weights widen a standard deviation by 40%: the mixture is not near enough",
        ),
        (
            {"departure": Departure(excess=0.3, excess_se=0.05, lacking=0.01)},
            "chains that start from the mixture's draws leave it: .* 0.30 nats above what it says",
        ),
        (
            {"departure": Departure(excess=0.0, excess_se=0.05, lacking=0.03)},
            "3.0% of their states are where it has next to none",
        ),
        (
            {"departure": Departure(excess=0.0, excess_se=0.05, lacking=0.0, outside=0.3)},
            "far out they find 30% of a variance that it lacks",
        ),
        (
            {"shift": WeightShift(mean=0.0, sd=0.0, bound=0.0, variance_khat=0.9)},
            "k̂ of a variance is 0.90, not below 0.50",
        ),
        (
            {"shift": WeightShift(mean=0.0, sd=0.0, bound=0.0, sd_se=0.1)},
            "a standard deviation is known to 10% only",
        ),
        (
            {"shift": WeightShift(mean=0.0, sd=0.0, bound=0.1, sd_noise=0.035)},
            "4000 weighted ones are too few: they tell a standard deviation to 3.5%",
        ),
        (
            {"shift": WeightShift(mean=0.0, sd=0.0, bound=0.2, dispute=0.2)},
            "two sets of weighted draws differ by 22% in a standard deviation",
        ),
        ({"departure": None}, "too few evaluations were left to start chains"),
        ({"unresolved_share": 0.01}, "1.0% of the draws are nearer to a bound"),
    ],
)
def test_planted_faults_are_not_trusted(good, changes, reason):
    diagnostics = diagnose(evidence_of(good, **changes))
    assert diagnostics.verdict is Verdict.DO_NOT_TRUST
    (only, _) = diagnostics.reasons
    assert re.search(reason, only), only


@pytest.mark.parametrize("positive", [1, 5])
def test_weights_too_few_for_a_tail_are_not_reliable(good, positive):
    """k̂ is then NaN, which no comparison with a threshold may let pass."""
    terms = torch.full((5000,), -math.inf, dtype=torch.float64)
    terms[:positive] = math.log(5000 / positive)
    few = replace(good, log_weights=terms, importance=ImportanceEstimate.from_log_weights(terms))
    assert math.isnan(few.importance.khat)
    assert not few.reliable
    diagnostics = diagnose(
        evidence_of(few, log_z=few.importance.log_z, shift=WeightShift(mean=0.0, sd=0.0, bound=0.0))
    )
    assert diagnostics.verdict is Verdict.DO_NOT_TRUST
    assert "k̂ is nan" in diagnostics.reasons[0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ess": 200.0}, "only 5.0% of the mixture's draws are effective"),
        ({"log_z": Estimate(0.0, 0.05)}, "the standard error of log Z is 0.050"),
    ],
)
def test_planted_faults_of_the_weights_are_not_trusted(good, changes, reason):
    worse = replace(good, importance=replace(good.importance, **changes))
    diagnostics = diagnose(evidence_of(worse, shift=WeightShift(mean=0.0, sd=0.0, bound=0.0)))
    assert diagnostics.verdict is Verdict.DO_NOT_TRUST
    assert reason in diagnostics.reasons[0]


@pytest.mark.parametrize(("dim", "least"), [(2, 0.008), (3, 0.0085)])
def test_the_error_of_the_evidence_allows_for_modes_too_small_to_mention(good, dim, least):
    """In more than two dimensions one may not even have been found."""
    coverage = replace(SEARCHED, unmentioned_mass=0.008)
    wide = replace(good, x=torch.zeros(len(good.x), dim).double())
    shift = WeightShift(mean=0.0, sd=0.0, bound=0.0)
    assert diagnose(evidence_of(wide, coverage=coverage, shift=shift)).log_z_se >= least


def test_what_could_not_be_checked_is_said(good):
    said = {
        (searched, tail_mass): diagnose(
            evidence_of(good, coverage=CoverageReport(tail_mass=tail_mass, searched=searched))
        ).reasons[-1]
        for searched in (True, False)
        for tail_mass in (0.0, None)
    }
    for (searched, tail_mass), scope in said.items():
        assert ("too few evaluations were left to search" in scope) == (not searched)
        assert ("its tails were not measured" in scope) == (tail_mass is None)


def test_draws_of_the_sampler_that_the_mixture_does_not_reach_are_not_trusted(gaussian, weighted):
    """One mode fitted, and draws of the other set aside: the upper bound gives it away."""
    density = LogDensity(get("bimodal").log_density, 2)
    one_mode = gaussian((3.0, 1.0), 0.75)
    draws = weighted(one_mode, density)

    def judge(x):
        eubo = Estimate.from_terms(density.log_prob(x) - one_mode.log_prob(x))
        return diagnose(evidence_of(draws, eubo=eubo, log_z=draws.importance.log_z))

    own = judge(one_mode.summary.split.test)
    both = judge(get("bimodal").sample(500, torch.Generator().manual_seed(1)))
    assert not any("it lacks parts" in reason for reason in own.reasons)
    assert any("it lacks parts" in reason for reason in both.reasons)
    assert both.verdict is Verdict.DO_NOT_TRUST


def test_a_refinement_is_what_the_mixture_is_compared_with(good):
    """And its runs: those of the broad start are no longer what the fit rests on."""
    off = {"log_z": Estimate(0.5, 0.02), "max_mean_discrepancy_in_sd": 0.7}
    refined = diagnose(evidence_of(good, refinement=sample_with(), **off))
    assert refined.verdict is Verdict.TRUST
    assert (refined.log_z_sampler, refined.log_z_refinement) == (0.5, 0.0)
    worse = diagnose(evidence_of(good, refinement=sample_with(**off)))
    assert worse.verdict is Verdict.DO_NOT_TRUST
    assert (worse.log_z_sampler, worse.log_z_refinement) == (0.0, 0.5)


def test_runs_disagree_where_they_saw_less_and_not_where_they_saw_more(good):
    assert not runs_disagree(sample_with(), good)
    assert runs_disagree(sample_with(log_z=Estimate(-0.5, 0.02)), good)
    assert not runs_disagree(sample_with(log_z=Estimate(0.5, 0.02)), good)
    assert runs_disagree(sample_with(max_mean_discrepancy_in_sd=0.7), good)
    one_run = {"log_z_of_runs": (Estimate(0.0, 0.01),), "max_mean_discrepancy_in_sd": math.nan}
    assert not runs_disagree(sample_with(**one_run), good)


def test_diagnostics_survive_json_and_name_what_is_missing(good):
    diagnostics = diagnose(evidence_of(good, eubo=Estimate(0.01, 0.01)))
    fields = diagnostics.to_json()
    assert Diagnostics.from_json(json.loads(json.dumps(fields))) == diagnostics
    assert np.isnan(Diagnostics.from_json({**fields, "khat": None}).khat)
    assert Diagnostics.from_json({**fields, "eubo": None}).eubo is None
    with pytest.raises(amfvi.InputError, match="field 'khat' is missing"):
        Diagnostics.from_json({k: v for k, v in fields.items() if k != "khat"})
