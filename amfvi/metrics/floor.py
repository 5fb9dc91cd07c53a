"""What two independent samples of the truth score: the least a sample metric can mean."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from amfvi.metrics.mmd import bandwidths, mmd2
from amfvi.metrics.wasserstein import wasserstein2
from amfvi.randomness import stream
from amfvi.targets import TARGETS, Target
from amfvi.weighting import weighted_subset

__all__ = ["Floor", "floor_of_draws", "floor_of_target"]

T = TypeVar("T")

REPEATS = 10
CACHE_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Floor:
    """Mean and standard deviation over pairs of samples of the truth.

    ``w2`` a distance, ``mmd2`` a squared distance that averages zero.
    """

    w2: float
    w2_sd: float
    mmd2: float
    mmd2_sd: float


def floor_of_target(target: Target, n: int) -> Floor:
    """The floor at n draws a side; the same in every run, so kept in a cache file.

    The file is ``amfvi/floors.json`` under ``XDG_CACHE_HOME`` (or ``~/.cache``); a
    cache that cannot be read or written only costs the time to compute again.
    """
    key = f"v{CACHE_VERSION}/{target.name}/{n}"
    canonical = TARGETS.get(target.name) is type(target)  # a user's may change under one name
    cached = _read_cache().get(key) if canonical else None
    if isinstance(cached, dict) and cached.keys() == Floor.__dataclass_fields__.keys():
        return Floor(**cached)
    generator = stream(0, "floor", target.name, n)
    pairs = [(target.sample(n, generator), target.sample(n, generator)) for _ in range(REPEATS)]
    found = _floor(pairs, bandwidths(target.sample(n, generator)))
    if canonical:
        _write_cache({**_read_cache(), key: asdict(found)})
    return found


def floor_of_draws(
    draws: Tensor, weight: Tensor | None, n: int, widths: Tensor, generator: torch.Generator
) -> Floor:
    """The floor from disjoint random halves of given draws, n a side, by their weights."""
    pairs = []
    for _ in range(REPEATS):
        both = weighted_subset(draws, weight, 2 * n, generator)
        pairs.append((both[:n], both[n:]))
    return _floor(pairs, widths)


def _floor(pairs: list[tuple[Tensor, Tensor]], widths: Tensor) -> Floor:
    w2 = torch.tensor(in_parallel([partial(wasserstein2, *pair) for pair in pairs]))
    discrepancies = torch.tensor([mmd2(*pair, widths) for pair in pairs])
    return Floor(
        w2=float(w2.mean()),
        w2_sd=float(w2.std()),
        mmd2=float(discrepancies.mean()),
        mmd2_sd=float(discrepancies.std()),
    )


def in_parallel(jobs: list[Callable[[], T]]) -> list[T]:
    """Results of the jobs in order; the transport solver lets other threads run."""
    with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, 8)) as pool:
        return list(pool.map(lambda job: job(), jobs))


def _cache_path() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "amfvi" / "floors.json"


def _read_cache() -> dict[str, dict[str, float]]:
    try:
        cached = json.loads(_cache_path().read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):
        return {}
    return cached if isinstance(cached, dict) else {}


def _write_cache(cached: dict[str, dict[str, float]]) -> None:
    try:
        path = _cache_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8"
        ) as file:
            json.dump(cached, file, indent=1)
        os.replace(file.name, path)
    except (OSError, RuntimeError):  # a read-only home: compute again next time
        return
