"""Curved posteriors: what is trusted is right, and nearer to the truth than NUTS gets.

Right: means within .1 sd, standard deviations within 10%, distribution functions within .05
and log Z within 4 standard errors of the exact ones.
"""

from __future__ import annotations

import pytest

from amfvi.diagnostics.report import Verdict
from experiments.lab.densities import curved_family
from experiments.lab.judged_fit import fit_and_judge

pytestmark = pytest.mark.filterwarnings("ignore::amfvi.errors.AmfviWarning")

FAMILY = {density.name: density for density in curved_family(full=True)}

GAUSSIANS = {"experts": ("gmm",), "folds": 2, "n_draws": 3000}
WITH_A_FLOW = {"experts": ("maf", "gmm"), "n_draws": 3000}

SOME = (
    "quadratic-d2-bend0.5-width0.5-scale2", "quadratic-d3-bend0.3-width0.3-scale3",
    "quadratic-d5-bend0.1-width0.1-scale2", "cubic-d2-bend0.3-width0.3-scale3",
    "cubic-d3-bend0.1-width1-scale3", "cubic-d5-bend1-width1-scale1",
    "wavy-d3-bend0.3-width0.3-scale3", "rosenbrock-d3-chains1",
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options"),
    [
        # Its arms are not reached by the first sampling.
        ("quadratic-d2-bend0.5-width0.5-scale2", GAUSSIANS),
        ("quadratic-d2-bend0.1-width1-scale3", WITH_A_FLOW),
    ],
    ids=["bent", "slightly bent"],
)
@pytest.mark.slow
def test_a_banana_is_right_or_not_trusted(name, options):
    row = fit_and_judge(FAMILY[name], 0, **options)
    assert row["outcome"] != "false trust", row
    assert row["n_evaluations"] <= 180_000


def test_a_slight_bend_is_trusted():
    row = fit_and_judge(FAMILY["wavy-d2-bend0.1-width1-scale3"], 0, **GAUSSIANS)
    assert row["outcome"] in ("right", "right by weights"), row


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", SOME)
def test_what_is_trusted_is_right(name, seed):
    """With all experts and all draws that there are by default."""
    row = fit_and_judge(FAMILY[name], seed)
    assert row["outcome"] != "false trust", row


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "name", ["quadratic-d2-bend0.5-width0.5-scale2", "wavy-d3-bend0.3-width0.3-scale3"]
)
def test_weighted_draws_are_no_further_from_the_truth_than_those_of_nuts(name, seed):
    """At as many calls; nearer, or within .05 of the exact means and standard deviations."""
    pytest.importorskip("numpyro")
    from experiments.lab.nuts import run_nuts

    row = fit_and_judge(FAMILY[name], seed, **WITH_A_FLOW)
    assert row["verdict"] != str(Verdict.DO_NOT_TRUST), row
    nuts = run_nuts(FAMILY[name], budget=row["n_evaluations"], seed=seed)
    ours = max(row["weighted_mean_error"], row["weighted_sd_error"])
    assert ours < max(nuts.mean_error, nuts.sd_error, 0.05), (row, nuts)
