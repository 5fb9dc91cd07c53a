"""Simulations on disk, from which a killed run goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from amfvi.sampler.checkpoint import SamplerCheckpoint
from amfvi.simulation.calling import Calling
from amfvi.simulation.chunks import Chunk, Simulated, simulate_chunk
from amfvi.simulation.values import alike

__all__ = ["SavedSimulations", "saved_draws"]

CHECKED_CHUNKS = 3
"""Most saved chunks of which one row is simulated again, to see that nothing has changed."""

SUBJECT = "this part of the simulations"


class SavedSimulations:
    """Chunks of simulations in a directory, each complete or absent.

    Those of another seed, number, prior or shape of data have files of their own names.

    Args:
        path: the directory; made when something is saved.
        y: all parameters to simulate from, (n, d).

    Examples:
        >>> import tempfile
        >>> calling = Calling(function=lambda y: y, many=False, numpy=False, shape=(1,))
        >>> chunk = Chunk(start=0, y=torch.ones(2, 1), seed=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     saved = SavedSimulations(folder, chunk.y, 0, calling)
        ...     saved.save(chunk, simulate_chunk(calling, chunk))
        ...     list(saved.load([chunk]))
        [0]
    """

    def __init__(self, path: str | Path, y: Tensor, seed: int, calling: Calling) -> None:
        fingerprint = json.dumps(
            {
                "seed": seed,
                "y": hashlib.sha256(y.numpy().tobytes()).hexdigest(),
                "many": calling.many,
                "shape": calling.shape,
            }
        )
        self._stem = f"simulations-{hashlib.sha256(fingerprint.encode()).hexdigest()[:12]}"
        self._checkpoint = SamplerCheckpoint(path, fingerprint, subject=SUBJECT)
        self._calling = calling

    def load(self, chunks: Sequence[Chunk]) -> dict[int, Simulated]:
        """Load the chunks that were saved, by their places in ``chunks``.

        A few are simulated again if the simulator gives the same data for the same seed.

        Warns:
            AmfviWarning: they are of another simulator, and removed, or a file is damaged.
        """
        found: dict[int, Simulated] = {}
        for i, chunk in enumerate(chunks):
            arrays = self._checkpoint.load(self._name(chunk))
            if arrays is not None:
                found[i] = Simulated(given=arrays["given"], messages=arrays["messages"])
        places = list(found)
        if not places or not self._calling.reproducible:
            return found
        checked = {places[0], places[len(places) // 2], places[-1]}
        if self._calling.many:  # their random numbers belong to the whole chunk
            checked = {places[0]}
        if all(self._is_unchanged(chunks[i], found[i]) for i in sorted(checked)[:CHECKED_CHUNKS]):
            return found
        self._checkpoint.warn(
            self._name(chunks[places[0]]), "of another simulator, which gives other data"
        )
        for i in places:
            (self._checkpoint.path / f"{self._name(chunks[i])}.npz").unlink(missing_ok=True)
        return {}

    def save(self, chunk: Chunk, simulated: Simulated) -> None:
        """Save what a chunk gave.

        Raises:
            InputError: the disk refuses.
        """
        self._checkpoint.save(self._name(chunk), given=simulated.given, messages=simulated.messages)

    def _is_unchanged(self, chunk: Chunk, saved: Simulated) -> bool:
        """Whether the first row of a chunk, or all of a batch, gives the same once more."""
        rows = len(chunk.y) if self._calling.many else 1
        part = Chunk(start=chunk.start, y=chunk.y[:rows], seed=chunk.seed)
        return alike(simulate_chunk(self._calling, part).given, saved.given[:rows])

    def _name(self, chunk: Chunk) -> str:
        return f"{self._stem}-{chunk.start}"


def saved_draws(path: str | Path, y: Tensor, seed: int) -> Tensor:
    """Draws of a prior that no seed reaches: those saved before, else ``y``, which is saved.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     first = saved_draws(folder, torch.ones(2, 1), 0)
        ...     saved_draws(folder, torch.zeros(2, 1), 0).tolist()
        [[1.0], [1.0]]
    """
    n, d = y.shape
    checkpoint = SamplerCheckpoint(path, f"{n} {d} {seed}", subject="the simulation")
    name = f"parameters-{n}-{d}-{seed}"
    arrays = checkpoint.load(name)
    if arrays is not None:
        return torch.from_numpy(arrays["y"])
    checkpoint.save(name, y=np.asarray(y))
    return y
