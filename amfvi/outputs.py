"""Files and directories that appear whole or not at all, and never over somebody's."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from amfvi.errors import InputError

__all__ = ["check_directory", "check_file", "new_directory", "new_file", "without_nonfinite"]


def check_directory(path: Path, *, overwrite: bool, ours: str) -> None:
    """Check that a directory may be made at ``path``.

    Args:
        overwrite: whether one of ours that is already there may be replaced.
        ours: a file every directory of this kind holds; without it a directory is
            not ours to replace.

    Raises:
        InputError: something is in the way, or the place cannot be written to.
    """
    if path.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise InputError(f"{path}: is the working directory or above it; name a new directory")
    if path.exists() or path.is_symlink():
        if not path.is_dir() or path.is_symlink():
            raise InputError(f"{path}: exists and is not a directory")
        empty = not any(path.iterdir())
        if not overwrite and not empty:
            raise InputError(
                f"{path}: exists; choose another directory, or overwrite it (--force, "
                "overwrite=True)"
            )
        if not empty and not (path / ours).is_file():
            raise InputError(f"{path}: holds no {ours}, so it was not made by amfvi; not replaced")
    _check_parent(path)


def check_file(path: Path, *, overwrite: bool) -> None:
    """Check that a file may be made at ``path``.

    Raises:
        InputError: something is in the way, or the place cannot be written to.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a directory, expected a file to write")
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists; choose another file or overwrite it with --force")
    _check_parent(path)


def _check_parent(path: Path) -> None:
    parent = next(p for p in path.absolute().parents if p.exists())
    if not parent.is_dir():
        raise InputError(f"{path}: {parent} is not a directory")
    if not os.access(parent, os.W_OK):
        raise InputError(f"{path}: no permission to write in {parent}")


@contextmanager
def new_file(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place on success.

    Raises:
        InputError: as for :func:`check_file`, or the disk refuses.
    """
    check_file(path, overwrite=overwrite)
    temporary = path.with_name(f".{path.stem}-{os.getpid()}{path.suffix}")
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error})") from None
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_directory(path: Path, *, overwrite: bool, ours: str) -> Iterator[Path]:
    """A temporary directory beside ``path`` that takes its place on success.

    On any exception, an interrupt included, it is removed and ``path`` is as before.

    Raises:
        InputError: as for :func:`check_directory`, or the disk refuses.
    """
    check_directory(path, overwrite=overwrite, ours=ours)
    missing = [p for p in path.absolute().parents if not p.exists()]
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.absolute().parent))
    except OSError as error:
        raise InputError(f"{path}: cannot be made ({error})") from None
    try:
        temporary.chmod(0o755)
        yield temporary
        _swap_in(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if not path.exists():
            for parent in missing:
                with suppress(OSError):  # not empty: somebody else uses it by now
                    parent.rmdir()


def _swap_in(temporary: Path, path: Path) -> None:
    """Put ``temporary`` in the place of ``path``; on any exception the old one stays."""
    if not path.exists():
        temporary.rename(path)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}-old-", dir=path.absolute().parent))
    try:
        path.rename(old / "replaced")
        temporary.rename(path)
    except BaseException:
        if (old / "replaced").exists() and not path.exists():
            (old / "replaced").rename(path)
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)


def without_nonfinite(value: Any) -> Any:
    """The same with null for NaN and infinity, which JSON cannot hold."""
    if isinstance(value, dict):
        return {key: without_nonfinite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nonfinite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
