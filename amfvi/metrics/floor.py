"""Distances between two samples of the truth: the least that a sample metric can show."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from amfvi.errors import InputError
from amfvi.files import new_file
from amfvi.json_files import read_json, write_json
from amfvi.metrics.mmd import bandwidths, mmd2
from amfvi.metrics.parallel import thread_pool
from amfvi.metrics.wasserstein import wasserstein2
from amfvi.randomness import generator_for
from amfvi.statistics import weighted_subset
from amfvi.targets import TARGETS, ExactTarget

__all__ = ["Floor", "floor_of_draws", "floor_of_target"]

REPEATS = 10
"""Pairs of samples that the floor of a target is a mean over; it is measured once."""

REPEATS_OF_DRAWS = 5
"""Parts of given draws that their floor is a mean over; it is measured in every run."""

CACHE_VERSION = 1
"""Part of the keys of a cache file; to be raised when floors change."""


@dataclass(frozen=True, kw_only=True)
class Floor:
    """Mean and standard deviation over pairs of samples of the truth.

    Attributes:
        w2, w2_sd: W₂, a distance.
        mmd2, mmd2_sd: MMD², a squared distance that averages zero.

    Examples:
        >>> from amfvi.targets import get
        >>> floor = floor_of_target(get("banana"), 50)
        >>> floor.w2 > 0, abs(floor.mmd2) < 4 * floor.mmd2_sd
        (True, True)
    """

    w2: float
    w2_sd: float
    mmd2: float
    mmd2_sd: float


def floor_of_target(target: ExactTarget, n: int, *, cache: Path | None = None) -> Floor:
    """Measure the floor of a target at ``n`` draws per sample; it depends on nothing else.

    It takes a second at 1,000 draws, so floors of the targets known by name are remembered
    in this process.

    Args:
        cache: a JSON file that keeps such floors between processes. One that cannot be
            read or written only costs the time to measure again.

    Examples:
        >>> from amfvi.targets import get
        >>> floor_of_target(get("banana"), 200).w2 < floor_of_target(get("banana"), 50).w2
        True
    """
    if not _is_known_by_name(target):  # a user's own may change under one name
        return _measure_target(target, n)
    if cache is None:
        return _measure_known_target(target, n)
    key = f"v{CACHE_VERSION}/{target.name}/{n}"
    cached = _read_cache(cache).get(key)
    if isinstance(cached, dict) and cached.keys() == Floor.__dataclass_fields__.keys():
        return Floor(**cached)
    floor = _measure_known_target(target, n)
    with suppress(InputError), new_file(cache, overwrite=True) as temporary:
        write_json(temporary, {**_read_cache(cache), key: asdict(floor)})
    return floor


def floor_of_draws(
    draws: Tensor, sample_weight: Tensor | None, n: int, widths: Tensor, generator: torch.Generator
) -> Floor:
    """Measure the floor from disjoint random parts of draws (m, d), of n each, by weight.

    Args:
        sample_weight: importance weights of the draws (m,), if they have any.
        widths: bandwidths of the MMD kernel.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> draws = torch.randn(100, 2, generator=generator)
        >>> floor_of_draws(draws, None, 50, bandwidths(draws), generator).w2 > 0
        True
    """
    pairs = []
    for _ in range(REPEATS_OF_DRAWS):
        both = weighted_subset(draws, sample_weight, 2 * n, generator)
        pairs.append((both[:n], both[n:]))
    return _measure(pairs, widths)


def _is_known_by_name(target: ExactTarget) -> bool:
    kind = TARGETS.get(target.name)
    return kind is type(target) and target == kind()


@lru_cache(maxsize=len(TARGETS))
def _measure_known_target(target: ExactTarget, n: int) -> Floor:
    return _measure_target(target, n)


def _measure_target(target: ExactTarget, n: int) -> Floor:
    generator = generator_for(0, "floor", target.name, n)
    pairs = [(target.sample(n, generator), target.sample(n, generator)) for _ in range(REPEATS)]
    return _measure(pairs, bandwidths(target.sample(n, generator)))


def _measure(pairs: list[tuple[Tensor, Tensor]], widths: Tensor) -> Floor:
    with thread_pool() as pool:
        distances = list(pool.map(lambda pair: wasserstein2(*pair), pairs))
    w2 = torch.tensor(distances, dtype=torch.float64)
    discrepancies = torch.tensor([mmd2(*pair, widths) for pair in pairs], dtype=torch.float64)
    return Floor(
        w2=float(w2.mean()),
        w2_sd=float(w2.std()),
        mmd2=float(discrepancies.mean()),
        mmd2_sd=float(discrepancies.std()),
    )


def _read_cache(path: Path) -> dict[str, object]:
    try:
        return read_json(path)
    except InputError:  # not there yet, or damaged
        return {}
