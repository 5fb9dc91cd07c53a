"""The state of the sampler on disk, from which a killed run goes on."""

from __future__ import annotations

import os
import shutil
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from amfvi.density.budget import Budget
from amfvi.errors import AmfviWarning, InputError
from amfvi.sampler.particles import Particles
from amfvi.sampler.state import SamplerState

__all__ = ["SamplerCheckpoint", "arrays_from_state", "restore_position", "state_from_arrays"]

READ_ERRORS = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile)
"""What numpy raises at a file that is damaged or not its own."""

SCALARS = ("n_chains", "beta", "log_z", "log_z_variance")
"""Numbers of a state that are saved."""

TABLES = ("steps", "acceptance")
"""Dictionaries of a state that are saved, from names of kernels to numbers."""


class SamplerCheckpoint:
    """Named sets of arrays in a directory, each complete or absent.

    Args:
        path: the directory; made when something is saved.
        fingerprint: of all that the sampler's numbers depend on. What was saved under
            another fingerprint is not used.
        subject: whose numbers they are, for messages.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     checkpoint = SamplerCheckpoint(folder, "banana, seed 0")
        ...     checkpoint.save("run 0", beta=0.5)
        ...     checkpoint.load("run 0")
        {'beta': array(0.5)}
    """

    def __init__(self, path: str | Path, fingerprint: str, *, subject: str = "the sampler") -> None:
        self.path = Path(path)
        self.fingerprint = fingerprint
        self.subject = subject

    def load(self, name: str) -> dict[str, NDArray[Any]] | None:
        """Load the arrays saved under ``name``, or None if there are none to be used.

        Warns:
            AmfviWarning: they are damaged or belong to another problem.
        """
        file = self.path / f"{name}.npz"
        if not file.is_file():
            return None
        try:
            with np.load(file, allow_pickle=False) as saved:
                arrays = {key: saved[key] for key in saved.files}
            fingerprint = str(arrays.pop("fingerprint"))
        except READ_ERRORS as error:
            self.warn(name, f"cannot be read ({error})")
            return None
        if fingerprint != self.fingerprint:
            self.warn(name, "of another density or other settings")
            return None
        return arrays

    def save(self, name: str, **arrays: Any) -> None:
        """Save arrays under ``name``, in place of what is there.

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
            raise InputError(f"{self.path}: {self.subject} cannot be saved ({error})") from None
        finally:
            temporary.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove everything, once the run has been written."""
        shutil.rmtree(self.path, ignore_errors=True)

    def warn(self, name: str, reason: str) -> None:
        """Warn that what was saved under ``name`` is not used."""
        file = self.path / f"{name}.npz"
        warnings.warn(f"{file}: {reason}; {self.subject} starts again", AmfviWarning, stacklevel=3)


def arrays_from_state(
    state: SamplerState, budget: Budget, generator: torch.Generator
) -> dict[str, Any]:
    """Turn a state into arrays, with the evaluations spent and the generator's state.

    Examples:
        >>> y, none = torch.zeros(4, 1), torch.empty(4, 0)
        >>> particles = Particles(y=y, log_p=y[:, 0], log_q=y[:, 0], grad_p=none, grad_q=none)
        >>> state = SamplerState.at_reference(particles)
        >>> state.remember()
        >>> arrays_from_state(state, Budget(), torch.Generator())["beta"]
        0.0
    """
    arrays: dict[str, Any] = {
        f"particles.{field.name}": getattr(state.particles, field.name).numpy()
        for field in fields(Particles)
    }
    for table in TABLES:
        entries = getattr(state, table)
        arrays[f"{table}.names"] = np.array(list(entries), dtype=np.str_)
        arrays[f"{table}.values"] = np.array(list(entries.values()), dtype=np.float64)
    arrays["history.y"], arrays["history.log_p"] = (part.numpy() for part in state.joined_history())
    return {
        **arrays,
        **{key: getattr(state, key) for key in SCALARS},
        "betas": np.array(state.betas),
        "evaluations": budget.spent,
        "generator": generator.get_state().numpy(),
    }


def state_from_arrays(arrays: Mapping[str, Any]) -> SamplerState:
    """Rebuild the state that :func:`arrays_from_state` was given.

    Examples:
        >>> y, none = torch.zeros(4, 1), torch.empty(4, 0)
        >>> particles = Particles(y=y, log_p=y[:, 0], log_q=y[:, 0], grad_p=none, grad_q=none)
        >>> state = SamplerState.at_reference(particles)
        >>> state.remember()
        >>> arrays = arrays_from_state(state, Budget(), torch.Generator())
        >>> state_from_arrays(arrays).betas
        [0.0]
    """
    tables = {
        table: dict(
            zip(arrays[f"{table}.names"].tolist(), arrays[f"{table}.values"].tolist(), strict=True)
        )
        for table in TABLES
    }
    history = torch.from_numpy(arrays["history.y"]), torch.from_numpy(arrays["history.log_p"])
    return SamplerState(
        particles=Particles(
            **{
                field.name: torch.from_numpy(arrays[f"particles.{field.name}"])
                for field in fields(Particles)
            }
        ),
        n_chains=int(arrays["n_chains"]),
        beta=float(arrays["beta"]),
        log_z=float(arrays["log_z"]),
        log_z_variance=float(arrays["log_z_variance"]),
        betas=arrays["betas"].tolist(),
        steps=tables["steps"],
        acceptance=tables["acceptance"],
        history=[history],
    )


def restore_position(arrays: Mapping[str, Any], budget: Budget, generator: torch.Generator) -> None:
    """Set a budget's evaluations and a generator to where they were when it was saved.

    Examples:
        >>> budget, generator = Budget(), torch.Generator()
        >>> arrays = {"evaluations": 7, "generator": generator.get_state().numpy()}
        >>> restore_position(arrays, budget, generator)
        >>> budget.spent
        7
    """
    budget.spent = int(arrays["evaluations"])
    generator.set_state(torch.from_numpy(arrays["generator"]))
