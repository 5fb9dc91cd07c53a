"""Densities that broke an earlier version, each one of its kind: right, or not trusted."""

from __future__ import annotations

import math

import pytest
import torch

import amfvi
from amfvi.diagnostics.report import Verdict
from amfvi.errors import InputError
from experiments.lab.densities import all_densities, curved_family
from experiments.lab.judged_fit import fit_and_judge

pytestmark = pytest.mark.filterwarnings("ignore::amfvi.errors.AmfviWarning")

DENSITIES = all_densities() | {density.name: density for density in curved_family(full=True)}

QUICK = {"experts": ("gmm",), "folds": 2, "n_draws": 2000}


@pytest.mark.parametrize(
    "name",
    [
        "modes-mass0.01-distance8-d2",  # a mode at the limit of mention
        pytest.param("gamma0.01-d1", marks=pytest.mark.slow),
        pytest.param("student4-elliptical-d2", marks=pytest.mark.slow),
        "beta0.5-d3",
    ],
)
def test_it_is_trusted_and_right(name):
    row = fit_and_judge(DENSITIES[name], 0, **QUICK)
    assert row["outcome"] in ("right", "right by weights"), row


@pytest.mark.parametrize(
    "name",
    [
        "beta0.05-d2",  # mass nearer to one than numbers go
        pytest.param("horseshoe-d3", marks=pytest.mark.slow),
        pytest.param("horseshoe-data-d7", marks=pytest.mark.slow),
        pytest.param("cauchy-d5", marks=pytest.mark.slow),
        pytest.param("modes-widths-d5", marks=pytest.mark.slow),
        pytest.param("modes-widths-d10", marks=pytest.mark.slow),
        pytest.param("rosenbrock-d10-chains3", marks=pytest.mark.slow),
    ],
)
def test_it_is_not_trusted_if_it_is_wrong(name):
    row = fit_and_judge(DENSITIES[name], 0, **QUICK)
    assert row["outcome"] != "false trust", row


def two_modes(wide_sd, narrow_sd, distance, dim):
    """Half of the mass at the origin with ``wide_sd``, half at ``distance`` with ``narrow_sd``."""
    center = torch.full((dim,), distance / math.sqrt(dim), dtype=torch.float64)

    def log_density(x):
        parts = [
            -0.5 * ((x - at) / sd).square().sum(dim=1) - dim * math.log(sd)
            for at, sd in ((0 * center, wide_sd), (center, narrow_sd))
        ]
        return torch.logaddexp(*parts)

    return amfvi.LogDensity(log_density, dim), 0.5 * dim * math.log(2 * math.pi) + math.log(2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("dim", [5, 10])
def test_a_narrow_mode_at_the_origin_and_a_wide_one_far_away(dim, seed):
    density, log_z = two_modes(0.2, 1.0, 10.0, dim)
    diagnostics = amfvi.fit(density, seed=seed, **QUICK).diagnostics
    assert diagnostics.verdict is Verdict.DO_NOT_TRUST or abs(diagnostics.log_z - log_z) < 0.1, (
        diagnostics
    )


def improper_scale(x):
    """θ₁…θ₃ ~ N(μ, τ²) with data, p(τ) ∝ 1/τ: infinite mass as τ goes to zero."""
    theta, mu, tau = x[:, :3], x[:, 3], x[:, 4]
    data = torch.tensor([-1.0, 0.5, 1.0]).double()
    prior = -0.5 * ((theta - mu[:, None]) / tau[:, None]).square().sum(dim=1) - 3 * tau.log()
    return prior - tau.log() - 0.5 * (mu / 3).square() - 0.5 * (data - theta).square().sum(dim=1)


def haldane(x):
    """x⁻¹(1 − x)⁴: infinite mass at zero."""
    return -x[:, 0].log() + 4 * torch.log1p(-x[:, 0])


@pytest.mark.parametrize(
    ("log_density", "dim", "constraints"),
    [
        pytest.param(
            improper_scale,
            5,
            {"x5": (0, None)},
            id="1/tau of a centered hierarchy",
            marks=pytest.mark.slow,
        ),
        pytest.param(haldane, 1, {"x1": (0, 1)}, id="Haldane's prior, no successes"),
    ],
)
def test_infinite_mass_at_a_bound_is_refused_or_not_trusted(log_density, dim, constraints):
    density = amfvi.LogDensity(log_density, dim, constraints=constraints)
    try:
        verdict = str(amfvi.fit(density, seed=0, **QUICK).diagnostics.verdict)
    except InputError as error:
        verdict = str(error)
    assert verdict == str(Verdict.DO_NOT_TRUST) or "cannot be integrated" in verdict
