"""Random numbers of a user's functions: handed over as an argument, or by global state."""

from __future__ import annotations

import inspect
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from amfvi.randomness import generator_for

__all__ = [
    "RANDOM_ARGUMENTS",
    "find_random_argument",
    "global_states",
    "kept_global_states",
    "key_for",
    "make_random_argument",
    "required_arguments",
    "seed_global_states",
]

RANDOM_ARGUMENTS = ("rng", "generator", "seed")
"""Names of arguments that are handed a numpy Generator, a torch Generator, or an int."""

_in_turn = threading.RLock()
"""Held while global random states are ours: threads share them."""

States = tuple[Any, ...]


def key_for(seed: int, *purpose: str | int) -> int:
    """One number below 2⁶³ from which all randomness for one purpose is seeded.

    Examples:
        >>> key_for(0, "row", 1) == key_for(0, "row", 1) != key_for(0, "row", 2)
        True
    """
    return generator_for(seed, *purpose).initial_seed()


def find_random_argument(function: Callable[..., Any]) -> str | None:
    """Name of the argument of a function through which it takes random numbers, if any.

    Examples:
        >>> find_random_argument(lambda y, rng: y), find_random_argument(lambda y: y)
        ('rng', None)
    """
    for name, parameter in _parameters(function).items():
        if name in RANDOM_ARGUMENTS and parameter.kind is not parameter.POSITIONAL_ONLY:
            return name
    return None


def required_arguments(function: Callable[..., Any]) -> int | None:
    """How many arguments besides the random one a function needs; None: it cannot be told.

    Examples:
        >>> required_arguments(lambda n, rng: n), required_arguments(lambda rng: 0.0)
        (1, 0)
    """
    parameters = _parameters(function)
    if not parameters and not _has_signature(function):
        return None
    return sum(
        name not in RANDOM_ARGUMENTS
        and parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        for name, parameter in parameters.items()
    )


def make_random_argument(name: str, key: int) -> Any:
    """What to hand to the argument of this name.

    An int is below 2³¹, which any library takes as its seed.

    Examples:
        >>> make_random_argument("seed", 2**31 + 5), type(make_random_argument("rng", 1)).__name__
        (5, 'Generator')
    """
    if name == "rng":
        return np.random.default_rng(key)
    if name == "generator":
        return torch.Generator().manual_seed(key)
    return key % 2**31


@contextmanager
def kept_global_states() -> Iterator[None]:
    """Restore the global random states of torch, numpy and Python at the end.

    Other threads that seed them wait until then. CUDA's are included if CUDA is in use.

    Examples:
        >>> before = global_states()
        >>> with kept_global_states():
        ...     seed_global_states(1)
        >>> bool((before[0] == global_states()[0]).all())
        True
    """
    with _in_turn:
        before = torch.get_rng_state(), np.random.get_state(), random.getstate()
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
        try:
            yield
        finally:
            torch.set_rng_state(before[0])
            np.random.set_state(before[1])
            random.setstate(before[2])
            if cuda is not None:
                torch.cuda.set_rng_state_all(cuda)


def seed_global_states(key: int) -> None:
    """Seed torch, numpy and Python; to be called within :func:`kept_global_states`.

    Examples:
        >>> with kept_global_states():
        ...     seed_global_states(1)
        ...     first = np.random.normal()
        ...     seed_global_states(1)
        ...     first == np.random.normal()
        True
    """
    # torch.manual_seed would also leave a seed behind for a CUDA that is not in use yet.
    torch.default_generator.manual_seed(key)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(key)
    np.random.seed(key % 2**32)
    random.seed(key)


def global_states() -> States:
    """The global random states of torch, numpy and Python, as arrays to compare.

    Examples:
        >>> all(map(np.array_equal, global_states(), global_states()))
        True
    """
    _, keys, position, has_gauss, cached = np.random.get_state()
    return (
        torch.get_rng_state().numpy(),
        keys,
        np.array([position, has_gauss, cached]),
        np.array(random.getstate()[1]),
    )


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters) if _has_signature(function) else {}


def _has_signature(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function)
    except (TypeError, ValueError):  # some functions written in C
        return False
    return True
