"""Where the sampler has got to, on disk, so that a run that was killed goes on from there."""

from __future__ import annotations

import os
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amfvi.errors import AmfviWarning, InputError

__all__ = ["SamplerCheckpoint"]

UNREADABLE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile)


class SamplerCheckpoint:
    """Named sets of arrays in a directory, each whole or not there.

    Args:
        path: the directory; made when something is saved.
        fingerprint: of all that the sampler's numbers depend on. What was saved under
            another one is not used.
    """

    def __init__(self, path: str | Path, fingerprint: str) -> None:
        self.path = Path(path)
        self.fingerprint = fingerprint

    def load(self, name: str) -> dict[str, NDArray[Any]] | None:
        """What was saved under ``name``, or None.

        Warns:
            AmfviWarning: it is damaged, or of another problem, and not used.
        """
        file = self.path / f"{name}.npz"
        if not file.is_file():
            return None
        try:
            with np.load(file, allow_pickle=False) as saved:
                arrays = {key: saved[key] for key in saved.files}
            found = str(arrays.pop("fingerprint"))
        except UNREADABLE as error:
            self._warn(f"{file}: cannot be read ({error}); the sampler starts again")
            return None
        if found != self.fingerprint:
            self._warn(f"{file}: of another density or other settings; the sampler starts again")
            return None
        return arrays

    def save(self, name: str, **arrays: Any) -> None:
        """Replace what is saved under ``name``.

        Raises:
            InputError: the disk refuses.
        """
        temporary = self.path / f".{name}-{os.getpid()}.npz"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                np.savez(file, fingerprint=np.array(self.fingerprint), **arrays)
            temporary.replace(self.path / f"{name}.npz")
        except OSError as error:
            raise InputError(f"{self.path}: the sampler cannot be saved ({error})") from None
        finally:
            temporary.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove everything; the run has been written."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _warn(self, message: str) -> None:
        warnings.warn(message, AmfviWarning, stacklevel=3)
