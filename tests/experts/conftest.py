"""What the tests of experts share beside the table of experts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

from amfvi.experts import Expert, ExpertConfig

_PLAIN: dict[tuple[str, int, int], Expert] = {}


@pytest.fixture
def quick(small) -> dict[str, ExpertConfig]:
    """The table of small configs with the shortest training of the flows."""
    short = {"max_steps": 25}
    return {
        kind: dataclasses.replace(config, **(short if hasattr(config, "max_steps") else {}))
        for kind, config in small.items()
    }


@pytest.fixture
def plain(quick, curved, folded) -> Callable[[str, int, int], Expert]:
    """plain(kind, dim, n): a quick expert of n draws in two folds by seed 1, fitted once."""

    def fit(kind: str, dim: int, n: int) -> Expert:
        if (kind, dim, n) not in _PLAIN:
            folds, generator = folded(curved(dim, n, 3), 2), torch.Generator().manual_seed(1)
            _PLAIN[kind, dim, n] = quick[kind].fit_folds(folds, generator=generator)[0]
        return _PLAIN[kind, dim, n]

    return fit
