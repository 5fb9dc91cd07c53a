"""Files and directories written whole or not at all, and their hashes.

Nothing of the user's is ever replaced unless asked for. What is being written has a
temporary name with host and process in it, so that what a killed process leaves is known
as such and removed by the next one that writes to the same place.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import platform
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from amfvi.errors import InputError, MissingFileError

__all__ = [
    "check_directory",
    "check_file",
    "file_hash",
    "new_directory",
    "new_file",
    "require_file",
]


HOST = re.sub(r"[^\w.]", "_", platform.node()) or "localhost"
"""This machine in temporary names; processes of another are not known here."""

_in_use: set[Path] = set()
"""Temporary paths that this process is writing."""


def check_directory(path: Path, *, overwrite: bool, marker: str) -> None:
    """Check that a directory may be made at ``path``.

    What a process left that was killed while it wrote there is cleared away first.

    Args:
        overwrite: whether a directory that amfvi made may be replaced.
        marker: a file that every directory of this kind holds; a directory without it
            was not made by amfvi and is never replaced.

    Raises:
        InputError: something is in the way, or the place cannot be written to.

    Examples:
        >>> check_directory(Path("."), overwrite=True, marker="config.json")
        Traceback (most recent call last):
        amfvi.errors.InputError: .: is the working directory or above it; name a new directory
    """
    _clear_abandoned(path)
    if path.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise InputError(f"{path}: is the working directory or above it; name a new directory")
    if path.exists() or path.is_symlink():
        if not path.is_dir() or path.is_symlink():
            raise InputError(f"{path}: exists and is not a directory")
        empty = not any(path.iterdir())
        if not overwrite and not empty:
            raise InputError(
                f"{path}: exists; choose another directory, or replace it with overwrite=True"
            )
        if not empty and not (path / marker).is_file():
            raise InputError(
                f"{path}: holds no {marker}, so it was not made by amfvi; not replaced"
            )
    _check_parent(path)


def check_file(path: Path, *, overwrite: bool) -> None:
    """Check that a file may be made at ``path``.

    What a process left that was killed while it wrote there is cleared away first.

    Raises:
        InputError: something is in the way, or the place cannot be written to.

    Examples:
        >>> check_file(Path("."), overwrite=True)
        Traceback (most recent call last):
        amfvi.errors.InputError: .: is a directory, expected a file to write
    """
    _clear_abandoned(path)
    if path.is_dir():
        raise InputError(f"{path}: is a directory, expected a file to write")
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists; choose another file, or replace it with overwrite=True")
    _check_parent(path)


def _check_parent(path: Path) -> None:
    parent = next(p for p in path.absolute().parents if p.exists())
    if not parent.is_dir():
        raise InputError(f"{path}: {parent} is not a directory")
    if not os.access(parent, os.W_OK):
        raise InputError(f"{path}: no permission to write in {parent}")


@contextmanager
def _temporary_for(path: Path, role: str = "new") -> Iterator[Path]:
    """Yield an unused path beside ``path``; what is there in the end is removed."""
    token = f"{role}-{HOST}-{os.getpid()}-{secrets.token_hex(4)}"
    temporary = path.absolute().with_name(f".{path.stem}-{token}{path.suffix}")
    _in_use.add(temporary)
    try:
        yield temporary
    finally:
        _discard(temporary, path)
        _in_use.discard(temporary)


def _clear_abandoned(path: Path) -> None:
    """Remove temporary paths beside ``path`` whose process is gone."""
    beside = re.compile(
        rf"\.{re.escape(path.stem)}-(new|old)-{re.escape(HOST)}-(?P<pid>\d+)-[0-9a-f]{{8}}"
        + re.escape(path.suffix)
    )
    with suppress(OSError):  # no such parent, or not ours to change: the checks will tell
        for temporary in path.absolute().parent.iterdir():
            match = beside.fullmatch(temporary.name)
            if match and temporary not in _in_use and not _is_running(int(match["pid"])):
                _discard(temporary, path)


def _is_running(pid: int) -> bool:
    """Whether a process of another number than this one's runs, as far as can be known."""
    if pid == os.getpid():
        return False  # what this process writes itself is in use
    if os.name == "posix":
        try:
            os.kill(pid, 0)
        except OSError as error:
            return not isinstance(error, ProcessLookupError)
    return True


def _discard(temporary: Path, path: Path) -> None:
    """Remove a temporary path; a directory it holds that nothing has replaced goes back."""
    replaced = temporary / "replaced"
    if replaced.exists() and not path.exists():
        replaced.rename(path)
    if temporary.is_dir():
        shutil.rmtree(temporary, ignore_errors=True)
    else:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_file(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary file beside ``path`` that takes its place on success.

    Raises:
        InputError: as for :func:`check_file`, or the disk refuses.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with new_file(Path(folder) / "a.txt", overwrite=False) as temporary:
        ...         _ = temporary.write_text("whole")
        ...     (Path(folder) / "a.txt").read_text()
        'whole'
    """
    check_file(path, overwrite=overwrite)
    with _temporary_for(path) as temporary:
        try:
            path.absolute().parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with _kept_beside(temporary, path):
                check_file(path, overwrite=overwrite)
            temporary.replace(path)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error})") from None


@contextmanager
def new_directory(path: Path, *, overwrite: bool, marker: str) -> Iterator[Path]:
    """Yield a temporary directory beside ``path`` that takes its place on success.

    On any exception, an interrupt included, it is removed and ``path`` is as before.

    Raises:
        InputError: as for :func:`check_directory`, or the disk refuses.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with new_directory(Path(folder) / "run", overwrite=False, marker="m") as temporary:
        ...         (temporary / "m").touch()
        ...     (Path(folder) / "run" / "m").is_file()
        True
    """
    check_directory(path, overwrite=overwrite, marker=marker)
    missing = [p for p in path.absolute().parents if not p.exists()]
    try:
        with _temporary_for(path) as temporary:
            temporary.mkdir(parents=True)
            yield temporary
            with _kept_beside(temporary, path):
                check_directory(path, overwrite=overwrite, marker=marker)
            _swap_in(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error})") from error
    finally:
        if not path.exists():
            for parent in missing:
                with suppress(OSError):  # not empty: in use by now
                    parent.rmdir()


@contextmanager
def _kept_beside(temporary: Path, path: Path) -> Iterator[None]:
    """Keep what is written under another name if a check says that ``path`` was taken meanwhile.

    Raises:
        InputError: as the check; it names where that is.
    """
    try:
        yield
    except InputError as error:
        numbers = itertools.count(2)
        names = (path.absolute().with_name(f"{path.stem}-{k}{path.suffix}") for k in numbers)
        other = next(name for name in names if not name.exists())
        temporary.rename(other)
        raise InputError(
            f"{error}; it was made while this one was: this one is kept in {other}"
        ) from None


def _swap_in(temporary: Path, path: Path) -> None:
    """Put ``temporary`` in the place of ``path``; on any exception the old one stays."""
    if not path.exists():
        temporary.rename(path)
        return
    with _temporary_for(path, "old") as old:
        old.mkdir()
        path.rename(old / "replaced")
        temporary.rename(path)


def require_file(path: Path) -> None:
    """Require that a file is there.

    Raises:
        MissingFileError: it is not, or is a directory.

    Examples:
        >>> require_file(Path("nothing.csv"))
        Traceback (most recent call last):
        amfvi.errors.MissingFileError: nothing.csv: no such file
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file")


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, hexadecimal.

    Raises:
        MissingFileError: there is no such file.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / "empty").touch()
        ...     file_hash(Path(folder) / "empty")[:8]
        'e3b0c442'
    """
    require_file(Path(path))
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
