"""Parameters of every scale are fitted side by side, whatever the numbers around them."""

from __future__ import annotations

import math

import pytest
import torch

import amfvi
from amfvi.diagnostics.report import Verdict

pytestmark = pytest.mark.filterwarnings("ignore::amfvi.errors.AmfviWarning")

QUICK = {"experts": ("gmm",), "folds": 2, "n_draws": 2000}


def gaussian_of(scales, offset=0.0):
    sd = torch.tensor(scales).double()
    density = amfvi.LogDensity(lambda x: offset - 0.5 * (x / sd).square().sum(dim=1), len(scales))
    log_z = offset + float(sd.log().sum()) + 0.5 * len(scales) * math.log(2 * math.pi)
    return density, sd, log_z


@pytest.mark.parametrize(
    "scales",
    [(1e8, 1e-8), (1e8, 1e8), (1e-8, 1e-8, 1.0), (1e6,), (1e-4, 1.0, 1e4), (1e8, 1e4, 1e-4)],
    ids=str,
)
def test_a_gaussian_of_any_scales_is_trusted(scales):
    density, sd, log_z = gaussian_of(scales)
    posterior = amfvi.fit(density, seed=0, **QUICK)
    assert posterior.diagnostics.verdict is Verdict.TRUST, posterior.diagnostics.reasons
    assert abs(posterior.diagnostics.log_z - log_z) < 0.02
    draws = posterior.sample((10_000,), torch.Generator().manual_seed(0))
    assert torch.allclose(draws.std(dim=0) / sd, torch.ones(len(sd)).double(), atol=0.05)


@pytest.mark.parametrize("offset", [-1e8, 1e8])
def test_a_large_constant_changes_nothing_but_the_evidence(offset):
    density, _, log_z = gaussian_of((1.0, 2.0), offset)
    posterior = amfvi.fit(density, seed=0, **QUICK)
    assert posterior.diagnostics.verdict is Verdict.TRUST, posterior.diagnostics.reasons
    assert abs(posterior.diagnostics.log_z - log_z) < 0.02
