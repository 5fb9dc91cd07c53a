"""Files with one JSON object."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from amfvi.errors import InputError, MissingFileError

__all__ = ["read_json", "without_nonfinite", "write_json"]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        MissingFileError: no such file.
        InputError: not a JSON object, or one with a key twice.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_json(Path(folder) / "a.json", {"n": 1})
        ...     read_json(Path(folder) / "a.json")
        {'n': 1}
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file")
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text, object_pairs_hook=_object_of_different_keys)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def _object_of_different_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return value


def write_json(path: Path, value: Any) -> None:
    """Write JSON, with null for what it cannot hold.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_json(Path(folder) / "a.json", [math.inf])
        ...     (Path(folder) / "a.json").read_text().split()
        ['[', 'null', ']']
    """
    path.write_text(
        json.dumps(without_nonfinite(value), indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )


def without_nonfinite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON cannot hold, by None.

    Examples:
        >>> without_nonfinite({"a": (1.0, float("nan"))})
        {'a': [1.0, None]}
    """
    if isinstance(value, dict):
        return {key: without_nonfinite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nonfinite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
