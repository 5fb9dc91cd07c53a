"""Load a user's log density, named on the command line as ``module:function``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from amfvi.errors import InputError, UsageError, unknown_name

__all__ = ["load_object"]


def load_object(spec: str) -> tuple[Any, Path | None]:
    """Load ``module:name`` or ``path/to/file.py:name``, relative to the working directory.

    Returns:
        The object, and the file its module came from, if any.

    Raises:
        UsageError: not of that form.
        InputError: no such module, it cannot be imported, or it has no such name.

    Examples:
        >>> load_object("math:lgamma")[0](1.0)
        0.0
    """
    where, colon, name = spec.rpartition(":")
    if not colon or not where or not name:
        raise UsageError(f"log_density= wants MODULE:FUNCTION or FILE.py:FUNCTION, found {spec!r}")
    try:
        module = _load_file(Path(where)) if where.endswith(".py") else _load_module(where)
    except SystemExit as error:
        raise InputError(
            f"{where} ended the program while it was imported (sys.exit({error.code!r})); "
            "keep such code under if __name__ == '__main__'"
        ) from None
    if not hasattr(module, name):
        public = [n for n in vars(module) if n[0] != "_"]
        raise InputError(str(unknown_name(f"name in {where}", name, public)))
    file = getattr(module, "__file__", None)
    return getattr(module, name), None if file is None else Path(file)


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    _make_importable(path.resolve().parent)
    # A name of its own, so that a file called random.py is not the standard library's.
    name = f"amfvi_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise InputError(f"{path}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise _import_error(str(path), error) from error
    return module


def _load_module(name: str) -> ModuleType:
    _make_importable(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            raise InputError(
                f"no module {name!r} here ({Path.cwd()}) or among the installed ones"
            ) from None
        raise _import_error(name, error) from error
    except Exception as error:
        raise _import_error(name, error) from error


def _import_error(where: str, error: Exception) -> InputError:
    if isinstance(error, ModuleNotFoundError):
        return InputError(f"{where} needs the module {error.name!r}, which is missing")
    said = " ".join(str(error).split())
    return InputError(f"{where} cannot be imported: {type(error).__name__}: {said}")


def _make_importable(folder: Path) -> None:
    """Let a module import its neighbors, as a script can."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
