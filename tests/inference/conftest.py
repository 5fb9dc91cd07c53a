"""A sampler that returns what a test scripts, so that an inference costs a second."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.inference import session
from amfvi.sampler.arrival import Arrival
from amfvi.sampler.reference import ReferenceDistribution
from amfvi.sampler.runs import PosteriorSample
from amfvi.statistics import Estimate

CHECKOUT = Path(__file__).parents[2]

if str(CHECKOUT) not in sys.path:
    sys.path.append(str(CHECKOUT))  # experiments are not installed; an installed amfvi comes first


def sample_of(
    x: Tensor, log_density: Any, *, history: Tensor | None = None, **changes: Any
) -> PosteriorSample:
    """What a sampler that saw nothing odd returns with draws x, but for ``changes``."""
    if history is None:
        history = x[:100]
    fields = {
        "x": x, "sample_weight": None, "run": torch.arange(len(x)) % 2,
        "log_z": Estimate(0.0, 0.01), "max_mean_discrepancy_in_sd": 0.02,
        "reference": "1 mode of the density", "n_temperatures": 3, "history": history,
        "history_log_p": log_density.log_prob(history), "unresolved_share": 0.0,
        "stopped_by": None, **changes,
    }  # fmt: skip
    return PosteriorSample(**{"log_z_of_runs": (fields["log_z"],) * 2, **fields})


@dataclass
class ScriptedSampler:
    """Stands in for ``sample_posterior``: returns samples in turn, the last ever after.

    Draws that are moved on before it is called are where they should be.

    Attributes:
        samples: what it returns.
        calls: the stream names it was called with.
        before: called with the stream name and the density before a sample is returned.
    """

    samples: list[PosteriorSample]
    calls: list[str] = field(default_factory=list)
    before: Callable[[str, UnconstrainedDensity], None] = lambda name, density: None

    def __call__(
        self, density: UnconstrainedDensity, n_draws: int, *, stream_name: str, **_: Any
    ) -> PosteriorSample:
        self.before(stream_name, density)
        self.calls.append(stream_name)
        return replace(self.samples[min(len(self.calls), len(self.samples)) - 1])

    def arrive(self, density: UnconstrainedDensity, y: Tensor, **_: Any) -> Arrival:
        """Stands in for ``arrive``: draws that are where they should be, at no evaluation."""
        reference = ReferenceDistribution(
            log_prob=lambda y: y.new_zeros(len(y)),
            sample=lambda n, generator: y[:n],
            differentiable=False,
            description="a widened fit to earlier draws",
            near_posterior=True,
        )
        return Arrival(y=y, reference=reference, change=0.0, rounds=3)


@pytest.fixture(name="sample_of")
def sample_of_fixture() -> Callable[..., PosteriorSample]:
    """sample_of(x, log_density, history=None, **changes): a sample with nothing odd."""
    return sample_of


@pytest.fixture
def scripted_sampler(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ScriptedSampler]:
    """scripted_sampler(*samples): inferences sample from these in turn."""

    def script(*samples: PosteriorSample) -> ScriptedSampler:
        sampler = ScriptedSampler(list(samples))
        monkeypatch.setattr(session, "sample_posterior", sampler)
        monkeypatch.setattr(session, "arrive", sampler.arrive)
        return sampler

    return script
