"""JSON objects sealed by a hash of what they hold, so that damage does not go unnoticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amfvi.json_files import without_nonfinite, write_json

__all__ = ["describe_damage", "seal", "write_sealed_json"]

SEAL = "content_sha256"
"""Key of the hash of everything else in the object."""


def seal(record: Mapping[str, Any]) -> dict[str, Any]:
    """Add to a JSON object the SHA-256 of what it holds, whatever the layout of its text.

    Examples:
        >>> seal({"n": 1})["content_sha256"][:8]
        '2bfd14f4'
    """
    content = json.loads(json.dumps(without_nonfinite(dict(record))))  # as it will be read
    content.pop(SEAL, None)
    return {**content, SEAL: _hash(content)}


def describe_damage(record: Mapping[str, Any], path: Path) -> str | None:
    """Describe that an object read from ``path`` is not what was sealed; None if it is.

    Examples:
        >>> describe_damage(seal({"n": 1}), Path("a.json")) is None
        True
        >>> describe_damage({**seal({"n": 1}), "n": 2}, Path("a.json"))
        'a.json: damaged or edited: its content is not what its content_sha256 says; ...'
    """
    content = {key: value for key, value in record.items() if key != SEAL}
    try:
        if record.get(SEAL) == _hash(content):
            return None
    except RecursionError:
        pass
    return (
        f"{path}: damaged or edited: its content is not what its {SEAL} says; copy it again, "
        "or fit again"
    )


def write_sealed_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON object with the hash of what it holds, with null for what JSON cannot hold.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_sealed_json(Path(folder) / "a.json", {"n": 1})
        ...     sorted(json.loads((Path(folder) / "a.json").read_text()))
        ['content_sha256', 'n']
    """
    write_json(path, seal(record))


def _hash(content: Mapping[str, Any]) -> str:
    """SHA-256, hexadecimal, of the one text that stands for all layouts of a JSON object."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()
