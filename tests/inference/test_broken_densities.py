"""Densities without an integral or without a value are refused or not trusted.

Those with a wrong gradient have an integral: it comes out right, or is not trusted.
"""

from __future__ import annotations

import time

import pytest

import amfvi
from amfvi.diagnostics.report import Verdict
from amfvi.errors import InputError
from amfvi.sampler.integrability import NotIntegrableError
from experiments.lab.densities import all_densities, families
from experiments.lab.judged_fit import fit_and_judge

pytestmark = pytest.mark.filterwarnings("ignore::amfvi.errors.AmfviWarning")

DENSITIES = all_densities()
OF_FAMILY = families()
QUICK = {"experts": ("gmm",), "folds": 2, "n_draws": 2000}

REFUSED_AS_IMPROPER = (
    "forgotten-minus-d1", "forgotten-minus-d3", "growing-both-d1", "saddle-d2", "flat-d2",
    "pole-inside-d1", "pole-square-d1", "reciprocal-d1",
)  # fmt: skip
REFUSED_AS_RANDOM = (
    "noise0.5-d2", "noise0.05-d2", "drifting-d2", "noise0.5-d2-numpy", "noise-far-d2",
    "noise-rare-calls-d2", "noise-rare-calls-d2-numpy",
)  # fmt: skip
REFUSED_AS_OF_BATCH = ("of-batch-mean-d2", "of-batch-place-d2")
RIGHT = ("gradient-half-d3", "gradient-ten-d3", "gradient-negative-d3", "gradient-zero-d3")
SLOWER = (
    "forgotten-minus-d3", "growing-both-d1", "reciprocal-d1", "gradient-ten-d3",
    "gradient-negative-d3",
)  # fmt: skip
"""Those that are left out of the fast suite, as others are of their kind."""


def some_slow(names):
    return [pytest.param(name, marks=pytest.mark.slow if name in SLOWER else ()) for name in names]


@pytest.mark.parametrize("name", some_slow(REFUSED_AS_IMPROPER))
def test_a_density_that_cannot_be_integrated_is_refused_soon(name):
    """In seconds, with the word about the sign or the prior. Measured: 4 s at most."""
    density, started = DENSITIES[name].make(), time.process_time()
    with pytest.raises(NotIntegrableError, match=r"cannot be integrated.*is every prior|the sign"):
        amfvi.fit(density, seed=0, **QUICK)
    assert time.process_time() - started < 15
    assert density.n_evaluations < 200_000


def test_the_prior_of_a_scale_without_data_is_refused_or_not_trusted():
    """Its mass lies beyond the numbers on both sides; where draws end up is chance."""
    assert fit_and_judge(DENSITIES["scale-prior-d1"], 0, **QUICK)["outcome"] == "doubted"


def test_the_message_names_a_point_and_the_sign():
    with pytest.raises(NotIntegrableError) as raised:
        amfvi.fit(DENSITIES["forgotten-minus-d1"].make(), seed=0, **QUICK)
    message = str(raised.value)
    assert "does not fall off" in message
    assert "at x1 = " in message
    assert "is the sign right (a log density, not its negative)" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", REFUSED_AS_RANDOM)
def test_a_density_that_is_random_is_refused(name):
    with pytest.raises(InputError, match=r"the log density is random: .* in two calls at one"):
        amfvi.fit(DENSITIES[name].make(), seed=0, **QUICK)


@pytest.mark.parametrize("name", REFUSED_AS_OF_BATCH)
def test_a_density_that_depends_on_its_batch_is_refused(name):
    with pytest.raises(InputError, match="depends on the other points in its batch"):
        amfvi.fit(DENSITIES[name].make(), seed=0, **QUICK)


def test_a_density_that_is_undefined_at_some_points_is_refused():
    with pytest.raises(InputError, match=r"is nan at x1 = 1\.[5-9]|is nan at x1 = [2-9]"):
        amfvi.fit(DENSITIES["undefined-d2"].make(), seed=0, **QUICK)


@pytest.mark.parametrize("name", some_slow(RIGHT))
def test_a_wrong_gradient_changes_nothing_but_the_calls(name):
    posterior = amfvi.fit(DENSITIES[name].make(), seed=0, **QUICK)
    diagnostics = posterior.diagnostics
    assert diagnostics.verdict is not Verdict.DO_NOT_TRUST, diagnostics.reasons
    error = diagnostics.log_z - DENSITIES[name].log_z
    assert abs(error) < max(0.01, 4 * diagnostics.log_z_se)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", [*OF_FAMILY["improper"], *OF_FAMILY["random"]])
def test_what_has_no_answer_is_never_trusted(name, seed):
    """Refused, or not trusted."""
    row = fit_and_judge(DENSITIES[name], seed, **QUICK)
    assert row["outcome"] == "doubted", row


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", OF_FAMILY["wrong-gradients"])
def test_a_wrong_gradient_makes_nothing_wrong_by_default(name, seed):
    row = fit_and_judge(DENSITIES[name], seed)
    assert row["outcome"] != "false trust", row
