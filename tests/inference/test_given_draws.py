"""Given draws with their density get an evidence and a verdict, and nothing is sampled."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import amfvi
from amfvi.diagnostics.bridge import bridge_log_z
from amfvi.diagnostics.report import Verdict
from amfvi.errors import AmfviWarning, FitError, InputError, UsageError
from amfvi.inference import session
from experiments.lab.densities import all_densities

DENSITIES = all_densities()
QUICK = {"experts": ("gmm",), "folds": 2}

RIGHT = ("gaussian-correlated0.999-d10", "quadratic-d2-bend0.1-width1-scale3", "gaussian-d1")


def exact_draws(name, n, seed):
    return DENSITIES[name].sample(n, torch.Generator().manual_seed(seed))


def autocorrelated(n, rho, generator):
    """A chain of N(0, 1), of which n draws are worth n (1 − ρ)/(1 + ρ)."""
    noise = torch.randn(n, generator=generator, dtype=torch.float64)
    chain = noise.clone()
    for i in range(1, n):
        chain[i] = rho * chain[i - 1] + math.sqrt(1 - rho**2) * noise[i]
    return chain


@pytest.fixture(autouse=True)
def no_sampler(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the sampler was called")

    monkeypatch.setattr(session, "sample_posterior", refuse)
    monkeypatch.setattr(session, "arrive", refuse)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", RIGHT)
def test_right_draws_are_trusted_and_both_evidences_are_right(name, seed):
    """Each within 4 of its standard errors, or .01."""
    known = DENSITIES[name]
    posterior = amfvi.fit(exact_draws(name, 4000, seed), density=known.make(), seed=seed, **QUICK)
    diagnostics = posterior.diagnostics
    assert diagnostics.verdict is not Verdict.DO_NOT_TRUST, diagnostics.reasons
    assert diagnostics.start == "the given draws"
    assert "given draws" in diagnostics.reasons[-1]
    surer = diagnostics.evidence
    assert surer.se == min(diagnostics.log_z_se, diagnostics.log_z_sampler_se)
    for log_z, se in (
        (diagnostics.log_z, diagnostics.log_z_se),
        (diagnostics.log_z_sampler, diagnostics.log_z_sampler_se),
        (surer.mean, surer.se),
    ):
        assert abs(log_z - known.log_z) < max(0.01, 4 * se)
    assert posterior.weighted_draws().weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("max_evaluations", [5, 300])
def test_too_few_evaluations_to_judge_by_are_an_error_of_the_users(max_evaluations):
    known = DENSITIES["gaussian-d1"]
    with pytest.raises(FitError, match=r"is too little to compare .*; or leave the density out"):
        amfvi.fit(
            exact_draws("gaussian-d1", 2000, 0), density=known.make(),
            max_evaluations=max_evaluations, **QUICK,
        )  # fmt: skip


def test_draws_that_lack_a_mode_are_not_trusted():
    """Chains that are all in one of two modes: the search finds the other."""
    density = amfvi.LogDensity(lambda x: -0.5 * (x[:, 0].abs() - 6) ** 2, 1)
    draws = 6 + torch.randn(4000, 1, generator=torch.Generator().manual_seed(0)).double()
    diagnostics = amfvi.fit(draws, density=density, **QUICK).diagnostics
    assert diagnostics.verdict is Verdict.DO_NOT_TRUST
    assert any("lacks a mode" in reason for reason in diagnostics.reasons)


@pytest.mark.parametrize("factor", [0.6, 1.6])
def test_draws_of_another_scale_are_not_trusted_or_mended(factor):
    """Half as wide: chains leave them. Wider: weights mend them, but the draws say otherwise."""
    density = amfvi.LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), 3)
    draws = factor * torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)).double()
    diagnostics = amfvi.fit(draws, density=density, **QUICK).diagnostics
    log_z = 1.5 * math.log(2 * math.pi)
    assert abs(diagnostics.log_z - log_z) < max(0.02, 4 * diagnostics.log_z_se)
    assert diagnostics.verdict is Verdict.DO_NOT_TRUST
    assert any("the given draws" in reason for reason in diagnostics.reasons)


@pytest.mark.filterwarnings("ignore::amfvi.errors.AmfviWarning")
def test_chains_in_wrong_proportions_are_mended_by_weights():
    """Nine of ten draws in one of two equal modes."""
    density = amfvi.LogDensity(lambda x: -0.5 * (x[:, 0].abs() - 6) ** 2, 1)
    generator = torch.Generator().manual_seed(0)
    sign = torch.where(torch.rand(4000, 1, generator=generator) < 0.9, 1.0, -1.0)
    draws = sign * 6 + torch.randn(4000, 1, generator=generator)
    posterior = amfvi.fit(draws.double(), density=density, **QUICK)
    weighted = posterior.weighted_draws()
    assert float((weighted.weights * (weighted.x[:, 0] > 0)).sum()) == pytest.approx(0.5, abs=0.03)


@pytest.mark.filterwarnings("ignore::amfvi.errors.AmfviWarning")
def test_autocorrelated_chains_count_for_what_they_are_worth():
    """Errors of bridge sampling grow as the draws' do; those of the mixture's draws do not."""
    density = amfvi.LogDensity(lambda x: -0.5 * (x**2).sum(dim=1) - 0.3 * x[:, 0].cos(), 1)
    errors = []
    for rho in (0.0, 0.95):
        chain = autocorrelated(4000, rho, torch.Generator().manual_seed(1))
        diagnostics = amfvi.fit(chain[:, None], density=density, seed=0, **QUICK).diagnostics
        errors.append(diagnostics.eubo_se)
    assert errors[1] > 3 * errors[0]


@pytest.mark.parametrize("seed", range(5))
def test_bridge_sampling_is_right_within_its_error(seed):
    """Between N(0, 1) and N(1, 1) in four dimensions, from few draws of the posterior."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(5000, 4, generator=generator, dtype=torch.float64)

    def log_ratio(x):
        return 7.0 + (x - 0.5).sum(dim=1)

    estimate = bridge_log_z(log_ratio(1 + z[:600]), log_ratio(z[600:]), 600)
    assert abs(estimate.mean - 7) < 4 * estimate.se
    assert estimate.se < 0.15


def test_a_function_is_a_density_of_the_draws_parameters():
    draws = np.random.default_rng(0).gamma(3.0, size=(3000, 1))
    posterior = amfvi.fit(
        draws, density=lambda x: 2 * x[:, 0].log() - x[:, 0], names=["tau"],
        constraints={"tau": (0, None)}, **QUICK,
    )  # fmt: skip
    assert posterior.log_density.names == ("tau",)
    assert abs(posterior.diagnostics.log_z - math.log(2)) < 0.02


def test_array_draws_take_names_and_constraints_of_the_density():
    density = amfvi.LogDensity(
        lambda x: 2 * x[:, 0].log() - x[:, 0], 1, names=["tau"], constraints={"tau": (0, None)}
    )
    draws = np.random.default_rng(0).gamma(3.0, size=(3000, 1))
    posterior = amfvi.fit(draws, density=density, **QUICK)
    assert posterior.names == ("tau",)
    assert float(posterior.sample((1000,)).min()) > 0


NORMAL = amfvi.LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), 2, names=["mu", "nu"])
DRAWS = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ("banana", {}, "density= goes with given draws, the input is exact draws of a target"),
        (NORMAL, {}, "density= goes with given draws, the input is a log density"),
        (DRAWS[:, :1], {}, "names"),
        (DRAWS, {"test_fraction": 0}, "test_fraction= must be above 0"),
        (DRAWS, {"n_draws": 500}, "n_draws= goes with a target, a log density or"),
        (DRAWS, {"names": ["nu", "mu"]}, "give both the same names, in the same order"),
        (amfvi.Draws.from_array(DRAWS.exp(), constraints=[(0, None), (0, None)]), {},
         "different constraints"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused_before_any_work(data, options, message):
    before = NORMAL.n_evaluations
    with pytest.raises((UsageError, InputError), match=message):
        amfvi.fit(data, density=NORMAL, **options)
    assert NORMAL.n_evaluations == before


def test_a_density_that_is_zero_at_a_draw_is_of_something_else():
    density = amfvi.LogDensity(
        lambda x: torch.where(x[:, 0] > -1, -0.5 * (x**2).sum(dim=1), -math.inf), 2
    )
    with pytest.raises(InputError, match=r"-inf at \d+ of \d+ given draws .*same order"):
        amfvi.fit(DRAWS, density=density, **QUICK)


def test_a_fit_to_draws_or_a_loaded_model_can_be_checked_later(tmp_path):
    fitted = amfvi.fit(DRAWS, **QUICK)
    assert fitted.diagnostics is None
    loaded = amfvi.load(fitted.save(tmp_path / "model"), device=fitted.device)
    for mixture in (fitted, loaded):
        checked = amfvi.check(mixture, NORMAL)
        assert checked.diagnostics.verdict is Verdict.TRUST, checked.diagnostics.reasons
        assert abs(checked.diagnostics.log_z - math.log(2 * math.pi)) < 0.02
        assert checked.diagnostics.log_z_sampler is None
        assert checked.diagnostics.start is None
        assert torch.equal(checked.log_prob(DRAWS), fitted.log_prob(DRAWS))
    again = amfvi.load(checked.save(tmp_path / "checked"))
    assert again.diagnostics == checked.diagnostics
    assert torch.equal(checked.weighted_draws().x, amfvi.check(fitted, NORMAL).weighted_draws().x)


@pytest.mark.parametrize("shift", [1.0, 3.0, 30.0])
def test_a_check_against_another_density_is_not_passed(shift):
    fitted = amfvi.fit(DRAWS, **QUICK)
    checked = amfvi.check(fitted, lambda x: -0.5 * ((x - shift) ** 2).sum(dim=1))
    assert checked.diagnostics.verdict is not Verdict.TRUST


def test_a_check_wants_the_same_parameters():
    fitted = amfvi.fit(DRAWS, **QUICK)
    with pytest.raises(UsageError, match="the log density has 3 parameters, the mixture 2"):
        amfvi.check(fitted, amfvi.LogDensity(lambda x: -(x**2).sum(dim=1), 3))
    with pytest.raises(InputError, match="the log density is random"):
        amfvi.check(fitted, lambda x: -0.5 * (x**2).sum(dim=1) + torch.randn(len(x)).double())


def test_draws_that_mix_badly_are_warned_of_here_too():
    chain = autocorrelated(2000, 0.999, torch.Generator().manual_seed(0))
    density = amfvi.LogDensity(lambda x: -0.5 * (x**2).sum(dim=1), 1)
    with pytest.warns(AmfviWarning, match="independent"):
        amfvi.fit(chain[:, None], density=density, **QUICK)
