"""What the sampler's tests share: densities of named targets, with and without gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from amfvi.density.log_density import LogDensity
from amfvi.density.unconstrained import UnconstrainedDensity
from amfvi.targets import get


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unconstrained(name: str, **options) -> UnconstrainedDensity:
    target = get(name)
    density = LogDensity(
        target.log_density, target.dim, names=target.names, constraints=target.constraints,
        box=target.box,
    )  # fmt: skip
    return UnconstrainedDensity(density, **options)


@pytest.fixture(name="seeded")
def seeded_fixture() -> Callable[[int], torch.Generator]:
    """seeded(seed): a generator."""
    return seeded


@pytest.fixture(name="unconstrained")
def unconstrained_fixture() -> Callable[..., UnconstrainedDensity]:
    """unconstrained(name, budget=None): the density of a named target."""
    return unconstrained


@pytest.fixture
def without_gradient() -> Callable[[str], UnconstrainedDensity]:
    """without_gradient(name): the density of a named target, as a numpy function."""

    def make(name: str) -> UnconstrainedDensity:
        target = get(name)
        return UnconstrainedDensity(
            LogDensity(lambda x: target.log_density(torch.as_tensor(x)).numpy(), target.dim)
        )

    return make
