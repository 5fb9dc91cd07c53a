"""A fit that was interrupted goes on from the directory that it was given."""

from __future__ import annotations

import pytest
import torch

import amfvi
from amfvi.errors import AmfviWarning, UsageError
from amfvi.sampler.integrability import NotIntegrableError

QUICK = {"experts": "gmm", "n_draws": 500, "max_refinements": 0, "seed": 0}


class StopError(Exception):
    """What interrupts."""


def banana(limit=None):
    """A log density that raises after so many points, and its count."""
    density = amfvi.LogDensity(
        lambda x: -0.5 * x[:, 0] ** 2 - 2 * (x[:, 1] - 0.5 * x[:, 0] ** 2) ** 2, 2
    )
    if limit is not None:
        original = density.log_prob

        def log_prob(x, **options):
            if density.n_evaluations > limit:
                raise StopError
            return original(x, **options)

        density.log_prob = log_prob
    return density


def interrupt(folder, limit):
    with pytest.raises(StopError) as stopped:
        amfvi.fit(banana(limit), checkpoint=folder, **QUICK)
    assert f"kept in {folder}" in "".join(stopped.value.__notes__)


@pytest.mark.parametrize("limit", [8_000, 15_000])
def test_the_same_call_goes_on_and_ends_as_one_that_was_not_interrupted(tmp_path, limit):
    whole = amfvi.fit(banana(), **QUICK)
    interrupt(tmp_path / "state", limit)
    again = banana()
    resumed = amfvi.fit(again, checkpoint=tmp_path / "state", **QUICK)
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(resumed.log_prob(x), whole.log_prob(x))
    assert again.n_evaluations < whole.log_density.n_evaluations - limit / 3
    assert not (tmp_path / "state" / "sampler").exists()


def test_what_else_lies_in_the_directory_stays(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    amfvi.fit(banana(), checkpoint=tmp_path, **QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_state_of_another_density_or_other_options_is_not_used(tmp_path):
    interrupt(tmp_path / "state", 15_000)
    with pytest.warns(AmfviWarning, match="of another density or other settings"):
        amfvi.fit(banana(), checkpoint=tmp_path / "state", **(QUICK | {"seed": 1}))


def test_a_density_without_an_integral_leaves_no_state(tmp_path):
    growing = amfvi.LogDensity(lambda x: 0.5 * x.square().sum(dim=1), 1)
    with pytest.raises(NotIntegrableError):
        amfvi.fit(growing, checkpoint=tmp_path / "state", **QUICK)
    assert not (tmp_path / "state" / "sampler").exists()


def test_simulations_are_kept(tmp_path):
    calls = []

    def simulate(y, rng):
        calls.append(1)
        return y + rng.normal(size=y.shape)

    prior = torch.distributions.Normal(torch.zeros(1), 1.0)
    for _ in range(2):
        simulator = amfvi.Simulator(simulate, prior)
        amfvi.fit(simulator, checkpoint=tmp_path, n_draws=300, experts="gmm")
    assert len(calls) < 500


def test_a_checkpoint_is_a_directory():
    with pytest.raises(UsageError, match="checkpoint= must be a directory, found 5"):
        amfvi.fit(banana(), checkpoint=5, **QUICK)


@pytest.mark.parametrize("data", ["banana", torch.randn(200, 2)])
def test_other_input_has_nothing_to_keep(tmp_path, data):
    with pytest.raises(UsageError, match="checkpoint= goes with a log density or a simulator"):
        amfvi.fit(data, checkpoint=tmp_path, experts="gmm")
