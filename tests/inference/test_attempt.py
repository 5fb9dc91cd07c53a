"""How many weighted draws a mixture is compared at before it is accepted."""

from __future__ import annotations

import pytest
import torch

from amfvi.density.log_density import LogDensity
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.diagnostics.comparison import importance_sample
from amfvi.diagnostics.own_spread import OwnSpread
from amfvi.diagnostics.thresholds import MAX_SD_NOISE
from amfvi.experts import GMM
from amfvi.inference.attempt import Assessment
from amfvi.mixture import Mixture


def heavy(x):
    """Logistic tails: the sd is known from 2,000 draws to 2%."""
    return -x[:, 0] - 2 * torch.nn.functional.softplus(-x[:, 0])


@pytest.mark.parametrize(("sd", "more"), [(1.814, False), (2.2, True)])
def test_more_draws_are_wanted_where_plain_ones_seem_wrong_and_noise_may_be_to_blame(sd, more):
    """Exact standard deviation: π / √3 = 1.814."""
    generator = torch.Generator().manual_seed(0)
    u = torch.rand(4000, 1, generator=generator).double()
    mixture = Mixture({"gmm": GMM().fit((u / (1 - u)).log())}, [1.0])
    density = UnconstrainedDensity(LogDensity(heavy, 1))
    weighted = importance_sample(mixture, density, 1000, generator)
    spread = OwnSpread(sd=torch.tensor([sd]).double(), n_draws=1_000_000)
    assessment = Assessment(mixture=mixture, weighted=weighted, own_spread=spread)
    assert assessment.shift.sd_noise > MAX_SD_NOISE
    assert (assessment.draws_needed > 1000) == more
