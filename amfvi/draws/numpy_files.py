"""Read NPY and NPZ files of numbers, never unpickling and never unpacking without a limit."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from amfvi.draws.table import Table, require_memory, role_of, weights_from_columns
from amfvi.errors import InputError

__all__ = ["load_arrays", "read_npy", "read_npz"]

DAMAGED_HEADER = (ValueError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError)
"""What numpy raises while it parses the header of an array, which is a Python literal."""

MAGIC_PREFIX: bytes = np.lib.format.MAGIC_PREFIX
"""The first bytes of an NPY file."""

END_RECORD = b"PK\x05\x06"
"""The first bytes of the last part of a zip archive."""

END_RECORD_BYTES = 22
"""Size of the last part of a zip archive without a comment."""

LARGE = 2**20
"""Bytes from which an array is mapped, so that only the copy that is validated takes memory."""

MANY_MEMBERS = 0xFFFF
"""Stands for the number of members where there are too many for its two bytes."""

ENCRYPTED = 0x1
"""The flag of an encrypted member of a zip archive."""


def read_npy(path: Path) -> Table:
    """Read a single array.

    Raises:
        InputError: not an array of plain numbers, or one that is cut off.
        OSError, EOFError: the file cannot be read.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(Path(folder, "draws.npy"), np.zeros((5, 2)))
        ...     read_npy(Path(folder, "draws.npy")).values.shape
        (5, 2)
    """
    try:
        with path.open("rb") as file:
            claimed = _claimed_bytes(file)
            if claimed > path.stat().st_size:
                raise InputError("cannot be read (the array is cut off)")
        mode: Literal["r"] | None = "r" if claimed > LARGE else None
        return Table(values=np.load(path, mmap_mode=mode, allow_pickle=False))
    except ValueError as error:
        raise _explain(error) from None


def read_npz(path: Path) -> Table:
    """Read an archive that holds ``draws``, a single array, or one 1-D array per parameter.

    Arrays called ``names``, ``chain``, ``draw`` and ``weight`` or ``log_weight`` are what
    they say.

    Raises:
        InputError: other arrays, or one that would unpack to too many bytes.
        OSError, EOFError, zipfile.BadZipFile, zlib.error: the file cannot be read.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(Path(folder, "draws.npz"), mu=np.zeros(5), tau=np.ones(5))
        ...     read_npz(Path(folder, "draws.npz")).names
        ('mu', 'tau')
    """
    arrays = load_arrays(path)
    key = next((name for name in arrays if name.lower() == "names"), "names")
    named = arrays.pop(key, None)
    names = None if named is None else tuple(str(name) for name in np.atleast_1d(named))
    special = {name: arrays.pop(name) for name in list(arrays) if role_of(name) != "parameter"}
    by_role: dict[str, NDArray[Any]] = {}
    for name, array in special.items():
        role = role_of(name)
        if role in by_role and role in ("chain", "draw"):
            raise InputError(f"more than one {role} array")
        by_role[role] = array
    values, names = _parameters(arrays, names)
    return Table(
        values=values,
        names=names,
        chain=by_role.get("chain"),
        draw=by_role.get("draw"),
        sample_weight=weights_from_columns(
            {name: array for name, array in special.items() if "weight" in role_of(name)}
        ),
    )


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Load every array of an archive, by its name.

    Raises:
        InputError: something else is in it, or would unpack to too many bytes.
        OSError, EOFError, zipfile.BadZipFile, zlib.error: the file cannot be read.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(Path(folder, "draws.npz"), mu=np.zeros(2))
        ...     load_arrays(Path(folder, "draws.npz"))
        {'mu': array([0., 0.])}
    """
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        _require_all_members(path, archive)
        for member in archive.infolist():
            _require_readable(archive, member)
        for member in archive.infolist():
            with archive.open(member) as file:
                try:
                    array = np.lib.format.read_array(file, allow_pickle=False)
                except ValueError as error:
                    raise _explain(error) from None
                # The checksum is compared at the end of the member, which must be reached.
                if file.read(1):
                    raise InputError(f"{member.filename} goes on behind its array; damaged")
            arrays[member.filename.removesuffix(".npy")] = array
    return arrays


def _parameters(
    arrays: dict[str, NDArray[Any]], names: tuple[str, ...] | None
) -> tuple[NDArray[Any], tuple[str, ...] | None]:
    """The draws among the arrays of an archive, with the names of their columns."""
    for name, array in arrays.items():
        if name.lower() == "draws":
            return array, names
    if len(arrays) == 1:
        return next(iter(arrays.values())), names
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) == 1 and len(next(iter(shapes))) == 1:
        return np.column_stack(list(arrays.values())), tuple(arrays)
    raise InputError(
        "expected an array called 'draws', a single array, or one 1-D array per "
        f"parameter, found {', '.join(f'{k} {v.shape}' for k, v in arrays.items()) or 'nothing'}"
    )


def _require_all_members(path: Path, archive: zipfile.ZipFile) -> None:
    """Reject an archive with fewer members than it announces, which zipfile does not notice."""
    with path.open("rb") as file:
        file.seek(-END_RECORD_BYTES, os.SEEK_END)
        end = file.read()
    announced = int.from_bytes(end[10:12], "little")
    if (
        end.startswith(END_RECORD)
        and announced < MANY_MEMBERS
        and announced != len(archive.infolist())
    ):
        raise InputError(
            f"cannot be read (holds {len(archive.infolist())} arrays, announces {announced})"
        )


def _require_readable(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Reject what is encrypted, no array, or would unpack to more than memory can take."""
    if member.flag_bits & ENCRYPTED:
        raise InputError(f"{member.filename} is encrypted; save it without a password")
    with archive.open(member) as file:
        if file.read(len(MAGIC_PREFIX)) != MAGIC_PREFIX:
            raise InputError(
                f"{member.filename!r} is not an array; keep arrays alone in the archive"
            )
        file.seek(0)
        size = max(member.file_size, _claimed_bytes(file))
    require_memory(size, member.filename)


def _claimed_bytes(file: IO[bytes]) -> int:
    """The size in bytes of the array that the header of an NPY file announces."""
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    except DAMAGED_HEADER as error:
        raise InputError(f"cannot be read ({error})") from None
    # Objects are pickled, in fewer bytes than this; numpy refuses them.
    return 0 if dtype.hasobject else math.prod(shape) * dtype.itemsize


def _explain(error: ValueError) -> InputError:
    if isinstance(error, InputError):  # which is a ValueError
        return error
    if "pickle" in str(error):
        return InputError(
            "holds Python objects (pickled), which are never loaded because they can run "
            "code; save plain numbers"
        )
    return InputError(f"cannot be read ({error})")
