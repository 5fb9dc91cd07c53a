"""A killed sampler goes on from its checkpoint, and only from its own."""

from __future__ import annotations

import pytest
import torch

from amfvi.reporting import Reporter
from amfvi.sampler.checkpoint import SamplerCheckpoint
from amfvi.sampler.gaussians import gaussians_at
from amfvi.sampler.reference import reference_from_density
from amfvi.sampler.runs import sample_posterior

pytestmark = pytest.mark.usefixtures("global_state_untouched")


class KilledError(Exception):
    pass


class KillAt(Reporter):
    def __init__(self, beta):
        self.beta = beta

    def sampler_progress(self, beta, log_z, n_evaluations):
        if beta > self.beta:
            raise KilledError


def test_a_killed_sampler_goes_on_to_the_same_result(tmp_path, unconstrained):
    def run(checkpoint, reporter=None):
        density = unconstrained("two_moons")
        sample = sample_posterior(density, 3000, seed=1, checkpoint=checkpoint, reporter=reporter)
        return density, sample

    whole_density, whole = run(None)
    checkpoint = SamplerCheckpoint(tmp_path / "sampler", "two_moons 1")
    with pytest.raises(KilledError):
        run(checkpoint, KillAt(0.3))
    density, resumed = run(SamplerCheckpoint(tmp_path / "sampler", "two_moons 1"))
    assert torch.equal(resumed.x, whole.x)
    assert torch.equal(resumed.history, whole.history)
    assert resumed.log_z == whole.log_z
    assert density.budget.spent == whole_density.budget.spent
    assert density.log_density.n_evaluations < whole_density.log_density.n_evaluations


def shifted_reference(shift):
    """A fitted density around the banana, other with each shift."""
    broad = gaussians_at([], dim=2)
    return reference_from_density(
        lambda y: broad.log_prob(y - shift),
        lambda n, generator: broad.sample(n, generator) + shift,
        description="the fitted mixture",
    )


def refined(density, shift, checkpoint, reporter=None):
    return sample_posterior(
        density,
        2000,
        seed=0,
        reference=shifted_reference(shift),
        stream_name="refinement 1",
        checkpoint=checkpoint,
        reporter=reporter,
    )


def test_a_refinement_is_not_resumed_with_the_values_of_another_reference(tmp_path, unconstrained):
    checkpoint = SamplerCheckpoint(tmp_path, "banana 0")
    with pytest.raises(KilledError):
        refined(unconstrained("banana"), 0.0, checkpoint, KillAt(0.0))
    expected = refined(unconstrained("banana"), 1.5, None)
    with pytest.warns(UserWarning, match="of another reference distribution; .* starts again"):
        resumed = refined(unconstrained("banana"), 1.5, checkpoint)
    assert torch.equal(resumed.x, expected.x)
    assert resumed.log_z == expected.log_z


def test_values_of_a_density_that_has_changed_are_not_used(tmp_path, unconstrained):
    """As of one that reads a file; its fingerprint knows a few points only."""
    checkpoint = SamplerCheckpoint(tmp_path, "some density")
    with pytest.raises(KilledError):
        refined(unconstrained("banana"), 0.0, checkpoint, KillAt(0.0))
    expected = refined(unconstrained("two_moons"), 0.0, None)
    with pytest.warns(UserWarning, match="of another density; the sampler starts again"):
        resumed = refined(unconstrained("two_moons"), 0.0, checkpoint)
    assert torch.equal(resumed.x, expected.x)


def test_a_refinement_is_resumed_with_its_own_reference(tmp_path, unconstrained):
    checkpoint = SamplerCheckpoint(tmp_path, "banana 0")
    with pytest.raises(KilledError):
        refined(unconstrained("banana"), 0.0, checkpoint, KillAt(0.0))
    density = unconstrained("banana")
    resumed = refined(density, 0.0, checkpoint)
    assert torch.equal(resumed.x, refined(unconstrained("banana"), 0.0, None).x)
    assert density.log_density.n_evaluations < density.budget.spent


def test_a_checkpoint_of_something_else_is_not_used(tmp_path):
    SamplerCheckpoint(tmp_path, "one").save("run", beta=0.5)
    with pytest.warns(UserWarning, match="of another density or other settings"):
        assert SamplerCheckpoint(tmp_path, "two").load("run") is None
    (tmp_path / "run.npz").write_bytes(b"PK cut short")
    with pytest.warns(UserWarning, match="cannot be read"):
        assert SamplerCheckpoint(tmp_path, "one").load("run") is None
    assert SamplerCheckpoint(tmp_path, "one").load("gone") is None


def test_clearing_removes_every_entry(tmp_path):
    checkpoint = SamplerCheckpoint(tmp_path / "sampler", "one")
    checkpoint.save("run", beta=0.5)
    checkpoint.clear()
    assert not (tmp_path / "sampler").exists()
