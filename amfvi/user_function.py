"""A user's log density, named on the command line as ``module:function``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from amfvi.errors import InputError, UsageError, unknown_name

__all__ = ["load_object", "source_of"]


def load_object(spec: str) -> Any:
    """What ``module:name`` or ``path/to/file.py:name`` means, from the working directory.

    Raises:
        UsageError: not of that form.
        InputError: no such module, it cannot be imported, or it has no such name.
    """
    where, colon, name = spec.rpartition(":")
    if not colon or not where or not name:
        raise UsageError(f"--log-density wants MODULE:FUNCTION or FILE.py:FUNCTION, found {spec!r}")
    module = _module(where)
    if not hasattr(module, name):
        error = unknown_name(f"name in {where}", name, [n for n in vars(module) if n[0] != "_"])
        raise InputError(str(error))
    return getattr(module, name)


def source_of(spec: str) -> Path | None:
    """The file that ``spec`` was loaded from, if it came from one."""
    where = spec.rpartition(":")[0]
    name = Path(where).stem if where.endswith(".py") else where
    file = getattr(sys.modules.get(name), "__file__", None)
    return None if file is None else Path(file)


def _module(where: str) -> ModuleType:
    path = Path(where)
    if where.endswith(".py"):
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        folder, name = str(path.resolve().parent), path.stem
    else:
        folder, name = str(Path.cwd()), where
    if folder not in sys.path:
        sys.path.insert(0, folder)  # its neighbours are there for it, as for a script
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            raise InputError(
                f"no module {name!r} here ({Path.cwd()}) or among the installed ones"
            ) from None
        raise InputError(f"{where} needs the module {error.name!r}, which is missing") from error
    except Exception as error:
        said = " ".join(str(error).split())
        raise InputError(f"{where} cannot be imported: {type(error).__name__}: {said}") from error
