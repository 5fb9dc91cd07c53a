"""Saved models: a JSON manifest and a safetensors file. Nothing is unpickled.

The manifest holds a hash of the tensors and one of itself, so that a model that is not
what was saved is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from amfvi.constraints.transform import UnconstrainingTransform
from amfvi.errors import AmfviError, InputError, MissingFileError
from amfvi.experts import Expert, config_from_json
from amfvi.files import file_hash, new_directory
from amfvi.json_files import read_json
from amfvi.mixture import Mixture
from amfvi.sealed_json import describe_damage, write_sealed_json

__all__ = [
    "SavedModel",
    "assemble_checked",
    "read_manifest",
    "read_model",
    "restore_experts",
    "save",
    "write_experts",
    "write_model",
]

M = TypeVar("M")

SCHEMA = 6
"""Version of the format; raised whenever an older file could no longer be read."""

MANIFEST = "manifest.json"
TENSORS = "tensors.safetensors"


@dataclass(frozen=True)
class SavedModel:
    """A mixture as read from a directory, with the metadata that was saved beside it.

    Examples:
        >>> sorted(SavedModel.__dataclass_fields__)
        ['metadata', 'mixture']
    """

    mixture: Mixture
    metadata: Mapping[str, Any] = field(default_factory=dict)


def save(
    mixture: Mixture,
    path: str | Path,
    *,
    metadata: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a mixture to a new directory, whole or not at all.

    Args:
        metadata: JSON values to keep beside the mixture.
        overwrite: whether a saved model that is already there may be replaced.

    Raises:
        InputError: the directory exists, or cannot be written.

    Examples:
        >>> import tempfile
        >>> from amfvi.experts import GMM
        >>> draws = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> mixture = Mixture({"gmm": GMM().fit(draws)}, [1.0])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     restored = read_model(save(mixture, Path(folder) / "model")).mixture
        >>> bool((restored.log_prob(draws) == mixture.log_prob(draws)).all())
        True
    """
    path = Path(path)
    with new_directory(path, overwrite=overwrite, marker=MANIFEST) as temporary:
        write_model(mixture, temporary, metadata=metadata)
    return path


def write_model(
    mixture: Mixture, directory: Path, *, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write manifest and tensors into an existing directory.

    Examples:
        >>> import tempfile
        >>> from amfvi.experts import GMM
        >>> draws = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_model(Mixture({"gmm": GMM().fit(draws)}, [1.0]), Path(folder))
        ...     sorted(path.name for path in Path(folder).iterdir())
        ['manifest.json', 'tensors.safetensors']
    """
    manifest = {
        "names": list(mixture.names),
        **mixture.transform.to_json(),
        "scale": None if mixture.scale is None else mixture.scale.tolist(),
        "weights": mixture.weights.tolist(),
        "metadata": dict(metadata or {}),
    }
    write_experts(mixture.experts, directory, manifest)


def write_experts(
    experts: Mapping[str, Expert], directory: Path, manifest: Mapping[str, Any]
) -> None:
    """Write the tensors of experts, and a manifest that names them with what else it holds.

    Examples:
        See :func:`write_model`, which does:

        >>> write_experts.__annotations__["return"]
        'None'
    """
    tensors = {
        f"{number}.{key}": tensor.contiguous().clone()
        for number, expert in enumerate(experts.values())
        for key, tensor in expert.tensors().items()
    }
    try:
        save_file(tensors, str(directory / TENSORS))
    except SafetensorError as error:  # its way to say that the disk is full
        raise OSError(str(error)) from None
    described = [
        {"name": name, "config": expert.config.to_json()} for name, expert in experts.items()
    ]
    head = {"schema": SCHEMA, "tensors_sha256": file_hash(directory / TENSORS)}
    write_sealed_json(directory / MANIFEST, {**head, **manifest, "experts": described})


def read_model(path: str | Path, device: torch.device | str = "cpu") -> SavedModel:
    """Read a mixture from a saved model or from a whole run directory.

    Raises:
        InputError: nothing there, a damaged or foreign file, an unknown schema;
            the message names the file.

    Examples:
        >>> read_model("no-such-model")
        Traceback (most recent call last):
        amfvi.errors.MissingFileError: no-such-model: no such model or run directory
    """
    directory, manifest = read_manifest(path)
    model = assemble_checked(manifest, directory, _assemble)
    if str(device) == "cpu":
        return model
    return SavedModel(model.mixture.to(device), model.metadata)


def read_manifest(path: str | Path) -> tuple[Path, dict[str, Any]]:
    """Find the model in a directory, and read its manifest, unchecked but for its schema.

    Raises:
        InputError: nothing there, a damaged or foreign file, an unknown schema.

    Examples:
        >>> read_manifest("no-such-model")
        Traceback (most recent call last):
        amfvi.errors.MissingFileError: no-such-model: no such model or run directory
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
            f"of amfvi reads ({SCHEMA}); read it with the version that wrote it, or fit again"
        )
    return directory, manifest


def _read_tensors(path: Path, sha256: object) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file")
    try:
        tensors = load_file(str(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: damaged or cut short ({error})") from None
    if file_hash(path) != sha256:
        raise InputError(
            f"{path}: damaged: its SHA-256 is not the one in {MANIFEST}; copy the model again"
        )
    return tensors


def assemble_checked(
    manifest: Mapping[str, Any],
    directory: Path,
    assemble: Callable[[Mapping[str, Any], Mapping[str, torch.Tensor]], M],
) -> M:
    """Assemble the model of a manifest, if that is the one that was saved.

    What is wrong in a manifest is named where it can be; then its hash is compared.

    Args:
        assemble: from the manifest and the tensors by name to a model.

    Raises:
        InputError: it is not the manifest that was saved, or makes no model.

    Examples:
        See :func:`read_model`, which does:

        >>> sorted(assemble_checked.__annotations__)
        ['assemble', 'directory', 'manifest', 'return']
    """
    tensors = _read_tensors(directory / TENSORS, manifest.get("tensors_sha256"))
    path = directory / MANIFEST
    damage = describe_damage(manifest, path)
    try:
        model = assemble(manifest, tensors)
    except AmfviError as error:
        raise InputError(f"{directory}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{path}: not a valid manifest ({type(error).__name__}: {error})"
        ) from None
    except Exception as error:
        if damage is None:
            raise
        raise InputError(damage) from error  # what it raised is of the damage
    if damage is not None:
        raise InputError(damage)
    return model


def _assemble(manifest: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> SavedModel:
    transform = UnconstrainingTransform.from_json(manifest)
    dim = transform.constraints.unconstrained_dim
    mixture = Mixture(
        restore_experts(manifest, tensors, dim),
        manifest["weights"],
        transform=transform,
        names=tuple(str(name) for name in manifest["names"]),
        scale=manifest["scale"],
    )
    return SavedModel(mixture, dict(manifest["metadata"]))


def restore_experts(
    manifest: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], dim: int, given: int = 0
) -> dict[str, Expert]:
    """Rebuild the experts of a manifest by name, in order.

    Raises:
        InputError: tensors or names that make none.

    Examples:
        >>> restore_experts({"experts": []}, {}, dim=1)
        {}
    """
    entries = manifest["experts"]
    parts: list[dict[str, torch.Tensor]] = [{} for _ in entries]
    for key, tensor in tensors.items():
        number, _, name = key.partition(".")
        if not number.isdigit() or int(number) >= len(parts):
            raise InputError(f"unexpected tensor {key!r} in the saved model")
        parts[int(number)][name] = tensor
    names = [str(entry["name"]) for entry in entries]
    if len(set(names)) != len(names):
        raise InputError(f"two experts of the saved model have one name: {', '.join(names)}")
    of_condition = {"given": given} if given else {}
    return {
        name: config_from_json(entry["config"]).restore(dim, part, **of_condition)
        for name, entry, part in zip(names, entries, parts, strict=True)
    }
