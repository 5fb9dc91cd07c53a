"""Load a user's function or object, named on the command line as ``module:name``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from amfvi.errors import InputError, UsageError, unknown_name
from amfvi.user_modules import USER_MODULE

__all__ = ["load_object"]


def load_object(spec: str, argument: str = "log_density") -> tuple[Any, Path | None]:
    """Load ``module:name`` or ``path/to/file.py:name``, relative to the working directory.

    A file in the working directory goes before an installed module of its name.

    Args:
        argument: the argument that names it, for messages.

    Returns:
        The object, and the absolute path of the file its module came from, if any.

    Raises:
        UsageError: not of that form.
        InputError: no such module, it cannot be imported, or it has no such name.

    Examples:
        >>> load_object("math:lgamma")[0](1.0)
        0.0
    """
    where, colon, name = spec.rpartition(":")
    if not colon or not where or not name:
        raise UsageError(f"{argument}= wants MODULE:FUNCTION or FILE.py:FUNCTION, found {spec!r}")
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
    return getattr(module, name), None if file is None else Path(file).absolute()


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    path = path.resolve()
    is_package = path.name == "__init__.py"
    # A name of its own, so that a file called random.py is not the standard library's.
    name = f"{USER_MODULE}{path.parent.name if is_package else path.stem}"
    spec = importlib.util.spec_from_file_location(
        name, path, submodule_search_locations=[str(path.parent)] if is_package else None
    )
    if spec is None or spec.loader is None:
        raise InputError(f"{path}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _importable(path.parent.parent if is_package else path.parent):
            spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, Exception):
            raise _import_error(str(path), error) from error
        raise
    return module


def _load_module(name: str) -> ModuleType:
    folder = Path.cwd()
    top, _, inner = name.partition(".")
    found = name
    file = next((f for f in _files_of(folder, top) if f.is_file()), None)
    if file is not None and _is_taken(top, file, folder):
        package = _load_file(file)
        if not inner:
            return package
        found = f"{package.__name__}.{inner}"
    elif file is None and inner and top in sys.stdlib_module_names:
        for inner_file in _files_of(folder, name):  # in a folder without __init__.py
            if inner_file.is_file():
                return _load_file(inner_file)
    try:
        with _importable(folder):
            return importlib.import_module(found)
    except ModuleNotFoundError as error:
        if error.name == found:
            raise InputError(
                f"no module {name!r} here ({folder}) or among the installed ones"
            ) from None
        raise _import_error(name, error) from error
    except Exception as error:
        raise _import_error(name, error) from error


def _files_of(folder: Path, name: str) -> tuple[Path, Path]:
    """The files that a module of this name may be in, in the order in which Python looks."""
    path = folder.joinpath(*name.split("."))
    return path / "__init__.py", path.with_name(f"{path.name}.py")


def _is_taken(name: str, file: Path, folder: Path) -> bool:
    """Whether ``import name`` would give another module than that of ``file`` in ``folder``."""
    imported = sys.modules.get(name)
    if imported is not None:
        return getattr(imported, "__file__", None) != str(file)
    before, _ = _search_path_around(folder)
    return name in sys.stdlib_module_names or PathFinder.find_spec(name, before) is not None


def _import_error(where: str, error: Exception) -> InputError:
    if isinstance(error, ModuleNotFoundError):
        return InputError(f"{where} needs the module {error.name!r}, which is missing")
    message = " ".join(str(error).split())
    return InputError(f"{where} cannot be imported: {type(error).__name__}: {message}")


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let a module import its neighbors, as a script can.

    They go behind the standard library, which others still import from; once the module is
    imported also behind what is installed.
    """
    before, behind = _search_path_around(folder)
    sys.path[:] = [*before, str(folder), *behind]
    try:
        yield
    finally:
        sys.path[:] = [*before, *behind, str(folder)]


def _search_path_around(folder: Path) -> tuple[list[str], list[str]]:
    """What Python searches before ``folder``, up to the standard library, and behind it."""
    without = [entry for entry in sys.path if entry not in ("", str(folder))]
    standard = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    standard |= {str(Path(path) / "lib-dynload") for path in standard}
    places = [number + 1 for number, entry in enumerate(without) if entry in standard]
    place = max(places, default=0)
    return without[:place], without[place:]
