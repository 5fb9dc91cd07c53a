"""A model written in JAX against NUTS of the same function."""

from __future__ import annotations

import numpy as np
import pytest

import amfvi
from amfvi.diagnostics.report import Verdict

pytest.importorskip("jax")
pytest.importorskip("numpyro")

from experiments.benchmarks.models import gradient_error
from experiments.lab.eight_schools import LIBRARIES

TAU = 1
"""Column of the scale, compared by its logarithm: its own tail is Cauchy's."""


def test_its_gradient_is_that_of_central_differences():
    assert gradient_error(LIBRARIES["JAX"].density(), seed=0) < 1e-6


@pytest.mark.slow
def test_eight_schools_agree_with_nuts():
    model = LIBRARIES["JAX"]
    posterior = amfvi.fit(model.density(), seed=0)
    assert posterior.diagnostics.verdict is not Verdict.DO_NOT_TRUST, posterior.diagnostics.reasons
    ours, nuts = posterior.corrected_draws(20_000, seed=0).numpy(), model.nuts(0).copy()
    ours[:, TAU], nuts[:, TAU] = np.log(ours[:, TAU]), np.log(nuts[:, TAU])
    spread = nuts.std(axis=0)
    assert float(np.abs((ours.mean(axis=0) - nuts.mean(axis=0)) / spread).max()) < 0.1
    assert float(np.abs(ours.std(axis=0) / spread - 1).max()) < 0.1
