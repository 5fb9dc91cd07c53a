"""From a log density to a verdict: right answers are trusted, planted faults are not."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, constraints

import amfvi
from amfvi import inference
from amfvi.density.log_density import LogDensity
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.diagnostics.comparison import importance_sample
from amfvi.diagnostics.defensive import fit_defensive_component, with_defensive_component
from amfvi.diagnostics.report import DO_NOT_TRUST, TRUST, Diagnostics
from amfvi.diagnostics.undetected import CoverageReport, search_undetected, tail_mass_outside
from amfvi.diagnostics.verdict import diagnose
from amfvi.errors import UsageError
from amfvi.experts import GMM, resolve
from amfvi.inference import infer
from amfvi.mixture import Mixture
from amfvi.sampler.runs import PosteriorSample
from amfvi.statistics import Estimate
from amfvi.targets import get

QUICK = {"experts": ["gmm"], "folds": 2, "n_draws": 3000}


def density_of(name):
    target = get(name)
    return LogDensity(
        target.log_density, target.dim, names=target.names, constraints=target.constraints,
        box=target.box,
    )  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", ["bimodal", "clusters", "linear_regression"])
def test_a_posterior_that_can_be_had_is_trusted(name, seed):
    found = amfvi.fit(density_of(name), seed=seed, **QUICK).diagnostics
    assert found.verdict == TRUST, found.reasons
    assert abs(found.log_z - get(name).log_z) < max(0.01, 4 * found.log_z_se)
    assert found.elbo <= found.log_z + 3 * found.log_z_se
    assert found.eubo >= found.log_z - 3 * (found.log_z_se + found.eubo_se)
    assert found.khat < found.khat_threshold
    assert 0.5 < found.ess / found.draws <= 1
    assert found.calls < 60_000
    assert "no start reached" in found.reasons[-1]


def test_parameters_stay_in_their_constraints_and_densities_are_theirs():
    """Dirichlet(2, 3, 4) beside a gamma: a simplex and a positive parameter, exact evidence."""
    concentration = torch.tensor([2.0, 3.0, 4.0], dtype=torch.float64)

    def log_density(x):
        simplex, tau = x[:, :3], x[:, 3]
        return ((concentration - 1) * simplex.log()).sum(dim=1) + 2 * tau.log() - tau

    log_z = float(torch.lgamma(concentration).sum() - torch.lgamma(concentration.sum()))
    log_z += math.lgamma(3)
    density = LogDensity(
        log_density, 4, names=("p[1]", "p[2]", "p[3]", "tau"),
        constraints={"p": constraints.simplex, "tau": constraints.positive},
    )  # fmt: skip
    posterior = amfvi.fit(density, seed=0, **QUICK)
    assert posterior.diagnostics.verdict == TRUST, posterior.diagnostics
    assert posterior.diagnostics.log_z == pytest.approx(log_z, abs=0.03)
    draws = posterior.sample((4000,), torch.Generator().manual_seed(0))
    assert torch.allclose(draws[:, :3].sum(dim=1), torch.ones(4000).double())
    expected = torch.tensor([2 / 9, 3 / 9, 4 / 9, 3.0], dtype=torch.float64)
    assert torch.allclose(draws.mean(dim=0), expected, atol=0.1)


def test_the_same_seed_gives_the_same_fit_and_the_number_of_calls_is_kept():
    density = density_of("bimodal")
    one, two = (amfvi.fit(density, seed=3, **QUICK) for _ in range(2))
    x = get("bimodal").sample(100, torch.Generator().manual_seed(0))
    assert torch.equal(one.log_prob(x), two.log_prob(x))
    assert one.diagnostics == two.diagnostics
    assert density.calls == pytest.approx(2 * one.diagnostics.calls, rel=0.01)


def gaussian_mixture(mean, sd, seed=0):
    """A mixture of one expert, a Gaussian of the given centre and width."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.as_tensor(mean) + sd * torch.randn(3000, 2, generator=generator).double()
    return amfvi.fit(draws, experts=[GMM(max_components=1)], folds=2, seed=seed)


POSITIVE = {"x1": constraints.positive, "x2": constraints.positive}
STANDARD = LogDensity(MultivariateNormal(torch.zeros(2), torch.eye(2)).log_prob, 2)


def sampled(log_density, trail=None, **changes):
    """What a sampler that saw nothing odd might have returned, but for ``changes``."""
    if trail is None:
        trail = 3 * torch.randn(100, 2, generator=torch.Generator().manual_seed(1)).double()
    facts = {"log_z": Estimate(0.0, 0.01), "disagreement": 0.02, "stopped_by": None, **changes}
    facts = {"log_z_of_runs": (facts["log_z"],) * 2, **facts}
    return PosteriorSample(
        x=torch.zeros(0, 2), weight=None, run=torch.zeros(0), start="1 optimum", temperatures=3,
        trail=trail, trail_log_p=log_density.log_prob(trail), **facts,
    )  # fmt: skip


def verdict_on(mixture, log_density=STANDARD, **changes):
    unconstrained = UnconstrainedDensity(log_density)
    comparison = importance_sample(mixture, unconstrained, 4000, torch.Generator().manual_seed(0))
    sample = sampled(log_density, **changes)
    generator = torch.Generator().manual_seed(2)
    missed = search_undetected(mixture, unconstrained, comparison, sample, generator)
    return diagnose(
        comparison, sample, mixture.summary.split, mixture, unconstrained, missed, refined=None
    )


def test_planted_faults_are_not_trusted():
    good = gaussian_mixture([0.0, 0.0], 1.0)
    assert verdict_on(good).verdict == TRUST
    too_narrow = verdict_on(gaussian_mixture([0.0, 0.0], 0.5))
    assert (too_narrow.verdict, "k̂" in too_narrow.reasons[0]) == (DO_NOT_TRUST, True)
    stopped = verdict_on(good, stopped_by="--timeout at temperature 0.2")
    assert (stopped.verdict, "--timeout" in stopped.reasons[0]) == (DO_NOT_TRUST, True)
    off = verdict_on(good, log_z=Estimate(0.5, 0.02))
    assert (off.verdict, "log Z is" in off.reasons[0]) == (DO_NOT_TRUST, True)
    apart = verdict_on(good, log_z_of_runs=(Estimate(0.6, 0.05), Estimate(-0.6, 0.05)))
    assert (apart.verdict, "in log Z" in apart.reasons[0]) == (DO_NOT_TRUST, True)
    torn = verdict_on(good, disagreement=0.7)
    assert (torn.verdict, "two runs" in torn.reasons[0]) == (DO_NOT_TRUST, True)


def test_a_verdict_says_when_nobody_could_search():
    mixture = gaussian_mixture([0.0, 0.0], 1.0)
    unconstrained = UnconstrainedDensity(STANDARD)
    comparison = importance_sample(mixture, unconstrained, 4000, torch.Generator().manual_seed(0))
    found = [
        diagnose(comparison, sampled(STANDARD), mixture.summary.split, mixture, unconstrained,
               CoverageReport(searched=searched), refined=None)
        for searched in (True, False)
    ]  # fmt: skip
    assert "no calls left to search" not in str(found[0])
    assert "no calls left to search" in str(found[1])


def test_a_mode_that_the_mixture_lacks_is_named():
    two = get("bimodal")
    one_mode = gaussian_mixture([3.0, 1.0], 0.75)
    found = verdict_on(one_mode, LogDensity(two.log_density, 2), log_z=Estimate(-0.7, 0.05))
    assert found.verdict == DO_NOT_TRUST
    assert any("lacks a mode at x1 = -3" in reason for reason in found.reasons), found.reasons


def test_draws_of_the_sampler_that_the_mixture_does_not_reach_are_not_trusted():
    """One mode fitted, and draws of the other set aside: the upper bound gives it away."""
    two = LogDensity(get("bimodal").log_density, 2)
    one_mode = gaussian_mixture([3.0, 1.0], 0.75)
    unconstrained = UnconstrainedDensity(two)
    comparison = importance_sample(one_mode, unconstrained, 4000, torch.Generator().manual_seed(0))
    sample = sampled(two, log_z=comparison.importance.log_z)
    own = one_mode.summary.split
    other = replace(own, test=get("bimodal").sample(500, torch.Generator().manual_seed(1)))
    verdicts = [
        diagnose(comparison, sample, split, one_mode, unconstrained, CoverageReport(), refined=None)
        for split in (own, other)
    ]
    assert not any("it lacks parts" in reason for reason in verdicts[0].reasons)
    assert any("it lacks parts" in reason for reason in verdicts[1].reasons)
    assert verdicts[1].verdict == DO_NOT_TRUST


def test_one_particle_that_saw_a_mode_is_enough_to_find_it():
    """A fifth of the mass, so narrow in its box that no fresh point falls near."""
    wide = MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    narrow = MultivariateNormal(torch.tensor([30.0, 30.0]).double(), 0.01 * torch.eye(2).double())

    def log_prob(x):
        parts = (math.log(0.8) + wide.log_prob(x), math.log(0.2) + narrow.log_prob(x))
        return torch.logaddexp(*parts)

    density = LogDensity(log_prob, 2, box=(-1000.0, 1000.0))
    unconstrained = UnconstrainedDensity(density)
    mixture = gaussian_mixture([0.0, 0.0], 1.0)
    comparison = importance_sample(mixture, unconstrained, 4000, torch.Generator().manual_seed(0))

    def modes(trail):
        sample = sampled(density, trail)
        generator = torch.Generator().manual_seed(2)
        return search_undetected(mixture, unconstrained, comparison, sample, generator).modes

    elsewhere = torch.full((50, 2), -700.0).double()
    assert modes(elsewhere) == ()
    (found,) = modes(torch.cat([elsewhere, torch.tensor([[29.0, 31.0]]).double()]))
    assert found.x.tolist() == pytest.approx([30.0, 30.0], abs=1e-3)
    assert found.share == pytest.approx(0.25, abs=0.05)  # of what the mixture has: .2 / .8


def test_a_particle_whose_parameters_overflow_ends_no_search():
    """A wide start goes where the exponential of an unconstrained coordinate is infinite."""
    generator = torch.Generator().manual_seed(0)
    draws = (0.3 * torch.randn(2000, 2, generator=generator).double()).exp()
    mixture = amfvi.fit(draws, experts=[GMM(max_components=1)], folds=2, support=POSITIVE)
    density = LogDensity(
        lambda x: -0.5 * (x.log() / 0.3).square().sum(dim=1) - x.log().sum(dim=1), 2,
        constraints={"x1": (0, None), "x2": (0, None)},
    )  # fmt: skip
    unconstrained = UnconstrainedDensity(density)
    comparison = importance_sample(mixture, unconstrained, 1000, generator)
    sample = replace(
        sampled(STANDARD), trail=torch.tensor([[0.1, -0.2], [800.0, 0.0]]).double(),
        trail_log_p=torch.tensor([-0.3, -torch.inf]).double(),
    )  # fmt: skip
    assert search_undetected(mixture, unconstrained, comparison, sample, generator).modes == ()


@pytest.mark.parametrize("seed", [0, 1, 4, 11])  # 4 and 11 lose it in their first sampling
def test_a_narrow_cluster_in_a_wide_box_is_found_or_the_fit_is_not_trusted(seed):
    target = get("clusters")
    density = LogDensity(target.log_density, target.dim, box=(-12.0, 12.0))
    found = amfvi.fit(density, seed=seed, **QUICK).diagnostics
    assert abs(found.log_z - target.log_z) < 0.1 or found.verdict == DO_NOT_TRUST


def test_a_spike_that_holds_nothing_is_no_mode():
    """The pole of the rings' density at the origin is high and empty."""
    posterior = amfvi.fit(density_of("rings"), seed=0, **QUICK)
    assert not any("lacks" in reason for reason in posterior.diagnostics.reasons)


def test_a_narrow_mode_far_from_every_start_is_not_claimed_to_be_covered():
    """Half of the mass sits in a spike at (500, 500): nobody finds it, nobody claims to."""
    near = MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    far = MultivariateNormal(torch.full((2,), 500.0).double(), 1e-4 * torch.eye(2).double())
    density = LogDensity(lambda x: torch.logaddexp(near.log_prob(x), far.log_prob(x)), 2)
    found = amfvi.fit(density, seed=0, **QUICK).diagnostics
    assert found.log_z == pytest.approx(0.0, abs=0.1)  # of log 2 in truth
    assert "nothing is known of modes that no start reached" in str(found)


def test_heavy_tails_need_the_expert_for_them_and_the_verdict_says_so():
    cauchy = LogDensity(lambda x: -1.5 * torch.log1p(x.square().sum(dim=1)), 2)
    gaussians = QUICK | {"experts": [GMM(max_components=2)], "rounds": 0}
    light = amfvi.fit(cauchy, seed=0, **gaussians).diagnostics
    assert light.verdict == DO_NOT_TRUST
    assert any("tails or parts far out" in reason for reason in light.reasons)
    heavy = amfvi.fit(cauchy, seed=0, **(QUICK | {"experts": ["tmm"]})).diagnostics
    assert heavy.verdict == TRUST
    assert heavy.log_z == pytest.approx(math.log(2 * math.pi), abs=0.1)


@pytest.mark.filterwarnings("ignore:column .* has heavy tails")
def test_a_guard_bounds_the_weights_of_light_tails():
    """A Gaussian in place of a Student-t, with a Student-t at weight .05 as a guard."""
    student = get("student_t")
    generator = torch.Generator().manual_seed(0)
    draws = student.sample(4000, generator)
    light = amfvi.fit(draws, experts=[GMM(max_components=1)], folds=2, seed=0)
    guarded = with_defensive_component(light, fit_defensive_component(light.summary.split, seed=0), 0.05)
    x = student.sample(50_000, generator)
    largest = [float((student.log_prob(x) - q.log_prob(x)).max()) for q in (light, guarded)]
    assert largest[0] > 20
    assert largest[1] < 5
    assert list(guarded.experts)[-1] == "guard"
    assert guarded.weights.tolist() == pytest.approx([0.95, 0.05])
    expected = torch.logaddexp(
        math.log(0.95) + light.log_prob(x), math.log(0.05) + guarded.expert_log_probs(x)[:, 1]
    )
    assert torch.allclose(guarded.log_prob(x), expected)


def test_a_fit_is_guarded_where_it_needs_to_be():
    """A Gaussian tail in front of a gamma's: weights of three decades in a few draws."""
    density = LogDensity(
        lambda x: -0.5 * x[:, 0] ** 2 + 2 * x[:, 1].log() - x[:, 1], 2,
        constraints=[None, constraints.positive],
    )  # fmt: skip
    posterior = amfvi.fit(density, seed=0, **(QUICK | {"n_draws": 2000}))
    assert "guard" in posterior.experts
    assert posterior.diagnostics.verdict == TRUST, posterior.diagnostics
    expected = 0.5 * math.log(2 * math.pi) + math.log(2)
    found = posterior.diagnostics
    assert abs(found.log_z - expected) < max(0.01, 4 * found.log_z_se)


def test_limits_are_kept_and_said():
    limited = amfvi.fit(density_of("two_moons"), seed=0, max_evaluations=9000, **QUICK).diagnostics
    assert limited.calls <= 9000
    assert limited.verdict == DO_NOT_TRUST
    assert "--max-calls" in limited.reasons[0]


def test_refinement_mends_what_a_first_fit_misses():
    lines = []
    configs = resolve([GMM(max_components=2)])
    found = infer(
        density_of("rings"), configs, n_draws=2000, folds=2, seed=0, rounds=1, say=lines.append
    )
    assert any(line.startswith("refined") for line in lines)
    assert found.comparison.importance.draws == 5000
    unrefined = infer(density_of("rings"), configs, n_draws=2000, folds=2, seed=0, rounds=0)
    gain = found.comparison.importance.efficiency / unrefined.comparison.importance.efficiency
    assert gain >= 1  # a round that makes things worse is thrown away


@pytest.mark.parametrize(
    ("error", "samplings", "verdict"), [(-0.5, 3, TRUST), (0.5, 1, DO_NOT_TRUST)]
)
def test_a_sampler_that_saw_less_than_the_mixture_gets_a_second_look(
    error, samplings, verdict, monkeypatch
):
    """And a start from the mixture. One that saw more is not overruled by it."""
    right, made = inference.sample_posterior, []

    def wrong_at_first(*arguments, **options):
        made.append(right(*arguments, **options))
        log_z = Estimate(made[-1].log_z.mean + error * (len(made) == 1), 0.01)
        return replace(made[-1], log_z=log_z)

    monkeypatch.setattr(inference, "sample_posterior", wrong_at_first)
    found = amfvi.fit(density_of("bimodal"), seed=0, **QUICK).diagnostics
    assert (len(made), found.verdict) == (samplings, verdict), found.reasons


def test_one_lucky_probe_is_no_missing_tail():
    """A speck of 0.3% far out: a probe in it says much more than that, all of them do not."""
    mixture = gaussian_mixture([0.0, 0.0], 1.0)
    speck = MultivariateNormal(torch.tensor([30.0, 0.0]), 0.25 * torch.eye(2))

    def log_prob(x):
        bulk, far = STANDARD.log_prob(x), speck.log_prob(x.float()).double()
        return torch.logaddexp(bulk + math.log(0.997), far + math.log(0.003))

    density = UnconstrainedDensity(LogDensity(log_prob, 2))
    alarms = [
        tail_mass_outside(mixture, density, 0.0, torch.Generator().manual_seed(seed)) > 0
        for seed in range(100)
    ]
    assert sum(alarms) <= 3


def test_diagnostics_survive_saving(tmp_path):
    posterior = amfvi.fit(density_of("bimodal"), seed=0, **QUICK)
    posterior.save(tmp_path / "model")
    back = amfvi.load(tmp_path / "model")
    assert isinstance(back, Mixture)
    assert back.diagnostics == posterior.diagnostics
    fields = posterior.diagnostics.to_json()
    assert np.isnan(Diagnostics.from_json({**fields, "khat": None}).khat)
    with pytest.raises(amfvi.InputError, match="field 'khat' is missing"):
        Diagnostics.from_json({k: v for k, v in fields.items() if k != "khat"})


@pytest.mark.parametrize(
    "option", [{"n_weight_draws": 10}, {"names": ["a", "b"]}, {"support": [None, None]}, {"chains": True}]
)
def test_options_of_draws_do_not_go_with_a_density(option):
    with pytest.raises(UsageError, match="does not go with a log density"):
        amfvi.fit(STANDARD, **option)
    with pytest.raises(UsageError, match="go with a log density"):
        amfvi.fit("banana", max_evaluations=10)
