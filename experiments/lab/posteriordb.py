"""Posteriors of a clone of stan-dev/posteriordb, or of a part of it in the same layout."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amfvi.errors import InputError
from amfvi.variables import label_entries

__all__ = [
    "ReferencePosterior",
    "by_entry",
    "compare_with_reference",
    "list_posteriors",
    "read_posterior",
]

Array = NDArray[np.float64]

DRAWS = Path("reference_posteriors") / "draws" / "draws"
"""Where reference draws lie."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles that are compared."""


@dataclass(frozen=True, kw_only=True)
class ReferencePosterior:
    """One posterior with reference draws.

    Attributes:
        name: such as ``eight_schools-eight_schools_noncentered``.
        code: of the Stan program.
        data: of the program.
        chains: reference draws of each entry, such as ``theta[1]``, (chains, draws).
    """

    name: str
    code: str
    data: Mapping[str, Any]
    chains: Mapping[str, Array]

    @property
    def draws(self) -> dict[str, Array]:
        """All draws of each entry, (n,)."""
        return {name: values.ravel() for name, values in self.chains.items()}


def list_posteriors(folder: Path) -> list[str]:
    """List the posteriors that have reference draws, smallest first."""
    root = _root(folder)
    have = {path.name.partition(".")[0] for path in (root / DRAWS).glob("*.json*")}
    dims: dict[str, int] = {}
    for path in (root / "posteriors").glob("*.json"):
        described = json.loads(path.read_text(encoding="utf-8"))
        if described.get("reference_posterior_name") in have:
            dims[described["name"]] = sum((described.get("dimensions") or {}).values())
    return sorted(dims, key=lambda name: (dims[name], name))


def read_posterior(folder: Path, name: str) -> ReferencePosterior:
    """Read program, data and reference draws.

    Raises:
        InputError: a file is missing.
    """
    root = _root(folder)
    described = _read_json(root / "posteriors" / f"{name}.json")
    model = root / "models" / "stan" / f"{described['model_name']}.stan"
    reference = _read_json(root / DRAWS / f"{described['reference_posterior_name']}.json")
    return ReferencePosterior(
        name=name,
        code=model.read_text(encoding="utf-8"),
        data=_read_json(root / "data" / "data" / f"{described['data_name']}.json"),
        chains={entry: np.array([c[entry] for c in reference]) for entry in reference[0]},
    )


def _root(folder: Path) -> Path:
    root = folder / "posterior_database"
    if not root.is_dir():
        raise InputError(f"{folder}: holds no posterior_database; give a clone of posteriordb")
    return root


def _read_json(path: Path) -> Any:
    """A JSON file, or the one in the archive beside it."""
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    archive = path.with_name(f"{path.name}.zip")
    if not archive.is_file():
        raise InputError(f"{path}: no such file, nor {archive.name}")
    with zipfile.ZipFile(archive) as packed:
        return json.loads(packed.read(path.name))


def compare_with_reference(
    draws: Mapping[str, Array], reference: Mapping[str, Array]
) -> dict[str, float]:
    """Largest error of a mean and of quantiles, in sds, and relative error of an sd.

    Args:
        draws: (n,) by entry; may have more entries than the reference.
        reference: (m,) by entry.

    Raises:
        InputError: an entry of the reference is missing.
    """
    errors = []
    for name, values in reference.items():
        if name not in draws:
            raise InputError(f"no draws of {name}; there are some of {', '.join(draws)}")
        sd = values.std()
        ours = draws[name]
        quantiles = np.quantile(ours, QUANTILES) - np.quantile(values, QUANTILES)
        errors.append((
            abs(ours.mean() - values.mean()) / sd,
            abs(ours.std() / sd - 1),
            np.abs(quantiles).max() / sd,
        ))  # fmt: skip
    mean, sd_error, quantile = np.max(errors, axis=0)
    return {
        "mean_error": float(mean),
        "sd_error": float(sd_error),
        "quantile_error": float(quantile),
    }


def by_entry(arrays: dict[str, Any]) -> dict[str, NDArray[np.float64]]:
    """Draws (n,) by entry of arrays (n, …)."""
    return {
        label: column
        for name, values in arrays.items()
        for label, column in zip(
            label_entries(name, values.shape[1:]), values.reshape(len(values), -1).T, strict=True
        )
    }
