"""One run of the sampler: limits that end it, what it reports, and when it gives up."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from amfvi.density import budget as budget_module
from amfvi.density.budget import Budget, OutOfBudgetError
from amfvi.density.log_density import LogDensity
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.reporting import Reporter
from amfvi.sampler import tempering
from amfvi.sampler.checkpoint import arrays_from_state
from amfvi.sampler.reference import find_reference
from amfvi.sampler.runs import sample_posterior
from amfvi.sampler.state import SamplerState
from amfvi.sampler.tempered_path import TemperedPath
from amfvi.sampler.tempering import temper
from amfvi.statistics import effective_sample_size
from amfvi.targets import get

pytestmark = pytest.mark.usefixtures("global_state_untouched")

MILLISECOND = 1e-3


@pytest.fixture
def clocked(monkeypatch):
    """clocked(budget): two moons, each point of which takes a millisecond of a false clock."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(budget_module, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def make(**limits):
        target = get("two_moons")

        def log_density(x):
            clock.now += MILLISECOND * len(x)
            return target.log_density(x)

        density = LogDensity(log_density, target.dim)
        density.vectorized  # noqa: B018 (called to find out how, before the clock matters)
        return UnconstrainedDensity(density, budget=Budget(**limits))

    return make


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"max_evaluations": 8_000}, "max_evaluations=8000 at β = 0."),
        pytest.param(
            {"max_evaluations": 9_000}, "max_evaluations=9000 at β = 0.", marks=pytest.mark.slow
        ),
        pytest.param({"timeout": 9.0}, "timeout=9 at β = 0.", marks=pytest.mark.slow),
        ({"timeout": 10.0}, "timeout=10 at β = 0."),
    ],
)
def test_a_limit_reached_while_tempering_leaves_what_there_is(limits, reason, clocked):
    density = clocked(**limits)
    sample = sample_posterior(density, 4000, seed=0)
    allowed = limits.get("max_evaluations") or round(limits["timeout"] / MILLISECOND)
    n_particles = 2_000  # the time is looked at before each call with as many points at most
    assert sample.stopped_by.startswith(reason)
    assert allowed - n_particles < density.budget.spent <= allowed + n_particles
    assert sample.n_temperatures >= 1  # it was stopped on its way, not at its start
    assert bool(torch.isfinite(sample.x).all())
    weights = sample.sample_weight
    assert float(weights.mean()) == pytest.approx(1)
    # The weights lead to the next β, not to 1, so that half of the particles count.
    assert effective_sample_size(weights) > 0.4 * len(weights)


def test_a_step_of_beta_that_is_interrupted_changes_nothing(unconstrained, seeded):
    density = unconstrained("two_moons")
    reference = find_reference(density, seeded(0))
    path = TemperedPath(reference=reference, density=density, use_gradients=True)
    state = SamplerState.at_reference(path.evaluate(reference.sample(1000, seeded(1))))
    tempering._advance(path, state, 1000, 1000, seeded(2))
    before = arrays_from_state(state, Budget(), seeded(0))
    density.budget.max_evaluations = density.budget.spent + 500  # two of four moves of 200
    with pytest.raises(OutOfBudgetError):
        tempering._advance(path, state, 1000, 1000, seeded(3))
    after = arrays_from_state(state, Budget(), seeded(0))
    assert before.keys() == after.keys()
    for key in before:
        np.testing.assert_array_equal(before[key], after[key])
    density.budget.max_evaluations = None
    tempering._advance(path, state, 1000, 1000, seeded(3))
    assert state.steps != dict(zip(before["steps.names"], before["steps.values"], strict=True))


def test_a_run_ends_after_a_number_of_temperatures_in_any_case(monkeypatch, unconstrained, seeded):
    monkeypatch.setattr(tempering, "MAX_TEMPERATURES", 2)
    density = unconstrained("two_moons")
    reference = find_reference(density, seeded(0))
    run = temper(reference, density, n_particles=500, n_draws=500, generator=seeded(1))
    assert len(run.betas) == 3
    assert run.stopped_by == f"2 steps of tempering at β = {run.betas[-1]:.3g}"
    assert run.sample_weight is not None


def test_the_reporter_hears_of_every_beta(unconstrained, seeded):
    class Recorder(Reporter):
        def __init__(self):
            self.heard = []

        def sampler_progress(self, beta, log_z, n_evaluations):
            self.heard.append((beta, log_z, n_evaluations))

    density, recorder = unconstrained("two_moons"), Recorder()
    reference = find_reference(density, seeded(0))
    run = temper(
        reference, density, n_particles=500, n_draws=500, generator=seeded(1), reporter=recorder
    )
    betas, log_z, n_evaluations = zip(*recorder.heard, strict=True)
    assert (0.0, *betas) == run.betas
    assert betas[-1] == 1.0
    assert log_z[-1] == run.log_z
    assert list(n_evaluations) == sorted(n_evaluations)
    assert n_evaluations[-1] == density.budget.spent


def test_the_history_holds_particles_of_every_beta_before_the_last(unconstrained, seeded):
    density = unconstrained("two_moons")
    reference = find_reference(density, seeded(0))
    run = temper(reference, density, n_particles=3000, n_draws=500, generator=seeded(1))
    n_before_last = len(run.betas) - 1
    assert run.history.shape == (1500 * n_before_last, 2)  # every second of 3,000
    assert torch.equal(run.history_log_p, density.log_prob(run.history))


def test_seeds_repeat_and_differ(unconstrained, seeded):
    reference = find_reference(unconstrained("banana"), seeded(0))
    runs = [
        temper(
            reference, unconstrained("banana"), n_particles=500, n_draws=500, generator=seeded(s)
        ).y
        for s in (1, 1, 2)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
