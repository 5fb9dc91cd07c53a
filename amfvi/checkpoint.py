"""Saved models: a JSON manifest and a safetensors file. Nothing is unpickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from amfvi.diagnostics import Diagnostics
from amfvi.errors import AmfviError, InputError, MissingFileError
from amfvi.experts import config_from_json
from amfvi.mixture import Mixture
from amfvi.outputs import new_directory, without_nonfinite
from amfvi.support import Support

__all__ = ["load", "read_json", "save", "write_model"]

SCHEMA = 3
MANIFEST = "manifest.json"
TENSORS = "tensors.safetensors"


def save(mixture: Mixture, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a model to a new directory, whole or not at all.

    Raises:
        InputError: the directory exists, or cannot be written.
    """
    path = Path(path)
    with new_directory(path, overwrite=overwrite, ours=MANIFEST) as temporary:
        write_model(mixture, temporary)
    return path


def write_model(mixture: Mixture, directory: Path) -> None:
    """Write manifest and tensors into an existing directory."""
    manifest = {
        "schema": SCHEMA,
        "names": list(mixture.names),
        "support": mixture.bounds.to_json(),
        "seed": mixture.seed,
        "scale": None if mixture.scale is None else mixture.scale.tolist(),
        "diagnostics": None if mixture.diagnostics is None else mixture.diagnostics.to_json(),
        "weights": mixture.weights.tolist(),
        "experts": [
            {"name": name, "config": expert.config.to_json()}
            for name, expert in mixture.experts.items()
        ],
    }
    tensors = {
        f"{number}.{key}": tensor.contiguous().clone()
        for number, expert in enumerate(mixture.experts.values())
        for key, tensor in expert.tensors().items()
    }
    save_file(tensors, str(directory / TENSORS))
    (directory / MANIFEST).write_text(
        json.dumps(without_nonfinite(manifest), indent=1) + "\n", encoding="utf-8"
    )


def load(path: str | Path, device: torch.device | str = "cpu") -> Mixture:
    """A mixture from a saved model or from a whole run directory.

    The same seed gives the same draws as before saving, in any process.

    Raises:
        InputError: nothing there, a damaged or foreign file, an unknown schema;
            the message names the file.
    """
    directory = Path(path)
    if not directory.is_dir():
        raise MissingFileError(f"{directory}: no such model or run directory")
    if not (directory / MANIFEST).is_file() and (directory / "model" / MANIFEST).is_file():
        directory = directory / "model"
    manifest = read_json(directory / MANIFEST)
    if manifest.get("schema") != SCHEMA:
        raise InputError(
            f"{directory / MANIFEST}: schema {manifest.get('schema')!r} is not one this version "
            f"of amfvi reads ({SCHEMA}); upgrade amfvi or fit again"
        )
    tensors = _read_tensors(directory / TENSORS)
    try:
        mixture = _assemble(manifest, tensors)
    except AmfviError as error:
        raise InputError(f"{directory}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{directory / MANIFEST}: not a valid manifest ({type(error).__name__}: {error})"
        ) from None
    return mixture if str(device) == "cpu" else mixture.to(device)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        InputError: no such file, or it is not a JSON object.
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file")
    try:
        return load_file(str(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: damaged or cut short ({error})") from None


def _assemble(manifest: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Mixture:
    support = Support.from_json(manifest["support"])
    entries, diagnostics = manifest["experts"], manifest["diagnostics"]
    parts: list[dict[str, torch.Tensor]] = [{} for _ in entries]
    for key, tensor in tensors.items():
        number, _, name = key.partition(".")
        if not number.isdigit() or int(number) >= len(parts):
            raise InputError(f"unexpected tensor {key!r} in the saved model")
        parts[int(number)][name] = tensor
    experts = {
        str(entry["name"]): config_from_json(entry["config"]).restore(support.free, part)
        for entry, part in zip(entries, parts, strict=True)
    }
    return Mixture(
        experts,
        manifest["weights"],
        support=support,
        names=tuple(str(name) for name in manifest["names"]),
        seed=int(manifest["seed"]),
        scale=manifest["scale"],
        diagnostics=None if diagnostics is None else Diagnostics.from_json(diagnostics),
    )
