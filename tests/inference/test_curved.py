"""Curved posteriors: right, or not trusted; and no further from the truth than NUTS."""

from __future__ import annotations

import pytest

from experiments.lab.densities import curved_family
from experiments.lab.judged_fit import fit_and_judge

FAMILY = {density.name: density for density in curved_family()}

QUICK = {"experts": ("maf", "gmm"), "n_draws": 3000, "folds": 2}


@pytest.mark.parametrize("seed", [0, 1])
def test_a_banana_is_right_or_not_trusted(seed):
    """The one that was trusted in three dimensions, with sds a third too small."""
    row = fit_and_judge(FAMILY["quadratic-d3-bend0.5-width0.5-scale2"], seed, **QUICK)
    assert row["outcome"] != "false trust", row
    assert row["plain_sd_error"] < 0.25  # it was .4 to .5 before draws moved on
    assert abs(row["log_z_error"]) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "name",
    ["quadratic-d3-bend0.3-width0.3-scale3", "quadratic-d2-bend1-width0.1-scale1",
     "cubic-d3-bend0.1-width0.1-scale2", "wavy-d3-bend0.3-width0.3-scale3",
     "rosenbrock-d3-chains1"],
)  # fmt: skip
def test_members_of_the_family_are_right_or_not_trusted_and_nearer_than_nuts(name, seed):
    pytest.importorskip("numpyro")
    from experiments.lab.nuts import run_nuts

    density = FAMILY[name]
    row = fit_and_judge(density, seed)
    assert row["outcome"] != "false trust", row
    nuts = run_nuts(density, budget=row["n_evaluations"], seed=seed)
    ours = max(row["weighted_mean_error"], row["weighted_sd_error"])
    assert ours < max(0.1, nuts.mean_error, nuts.sd_error)
