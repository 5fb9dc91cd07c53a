"""Stan models compiled to libraries that are called in the same process, many points at a time.

PyStan's own model object answers by HTTP, reads the data again for every point and leaves out
the constants of densities. What is compiled here, with the compiler and the headers that PyStan
brings along, takes microseconds a point, and its evidence is that of the model.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amfvi.cache import cache_folder
from amfvi.errors import InputError, UsageError
from amfvi.files import new_file

__all__ = ["StanLibrary", "compile_stan"]

SOURCE = Path(__file__).with_name("stan_library.cpp")
"""The C interface that a model is compiled with."""

FLAGS = (
    "-O3", "-g0", "-std=c++17", "-w", "-fPIC", "-shared", "-DBOOST_DISABLE_ASSERTS",
    "-DBOOST_PHOENIX_NO_VARIADIC_EXPRESSION", "-DSTAN_THREADS", "-D_REENTRANT",
    "-D_GLIBCXX_USE_CXX11_ABI=0",
)  # fmt: skip
"""Flags of the compiler; the last because the libraries are built so."""

LIBRARIES = ("sundials_cvodes", "sundials_idas", "sundials_kinsol", "sundials_nvecserial", "tbb")
"""Libraries that Stan's mathematics needs."""

ERROR_SIZE = 2000
"""Characters of an error message of a library."""

Array = NDArray[np.float64]


def compile_stan(code: str) -> Path:
    """Compile a Stan program, once: the library is kept in the user's cache folder.

    Args:
        code: of the program.

    Returns:
        The library.

    Raises:
        UsageError: PyStan or a C++ compiler is missing, or the compiler fails.
        InputError: the program is not valid; the message is stanc's.

    Examples:
        >>> compile_stan.__annotations__["return"]
        'Path'
    """
    try:
        import httpstan
    except ImportError as error:
        raise UsageError("this needs PyStan: pip install 'amfvi[stan]'") from error
    root = Path(httpstan.__file__).parent
    parts = (code, SOURCE.read_text(encoding="utf-8"), str(root), httpstan.__version__, *FLAGS)
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:20]
    library = cache_folder() / "stan" / f"model_{key}.so"
    if library.is_file():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder, new_file(library, overwrite=True) as temporary:
        model = Path(folder) / "model.cpp"
        model.write_text(_translate(root, code, Path(folder)), encoding="utf-8")
        _compile(root, model, temporary)
    return library


def _translate(root: Path, code: str, folder: Path) -> str:
    """The C++ code of a Stan program."""
    program = folder / "model.stan"
    program.write_text(code, encoding="utf-8")
    command = [str(root / "stanc"), "--name", "model", "--print-cpp", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.replace(str(program), "the program").strip()
        raise InputError(f"the Stan program is not valid: {said}")
    return done.stdout


def _compile(root: Path, model: Path, library: Path) -> None:
    """Compile C++ code of a model together with the C interface."""
    configured = (sysconfig.get_config_var("CXX") or "").split()[:1]
    wanted = [os.environ.get("CXX"), *configured, "c++", "g++", "clang++"]
    compiler = next((name for name in wanted if name and shutil.which(name)), None)
    if compiler is None:
        raise UsageError("a Stan model needs a C++ compiler, found none: install g++ or clang")
    command = [
        compiler, *FLAGS, f'-DMODEL_FILE="{model}"', f"-I{root / 'include'}", str(SOURCE),
        f"-L{root / 'lib'}", *(f"-l{name}" for name in LIBRARIES),
        f"-Wl,-rpath,{root / 'lib'}", "-o", str(library),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line.lower()]
        raise UsageError(
            f"{compiler} could not compile the Stan model: {(lines or ['no message'])[0]}"
        )


class StanLibrary:
    """A compiled Stan program with its data.

    Args:
        library: made by :func:`compile_stan`.
        data: of the program, by name.
        seed: of transformed data and generated quantities that are random.

    Attributes:
        unconstrained_names: of the coordinates of unconstrained space.

    Raises:
        InputError: data that the program does not take; the message is Stan's.

    Examples:
        >>> StanLibrary.__init__.__annotations__["library"]
        'Path'
    """

    def __init__(self, library: Path, data: Mapping[str, Any], seed: int = 0) -> None:
        self._calls = ctypes.CDLL(str(library))
        self._calls.open_model.restype = ctypes.c_void_p
        self._calls.names.restype = ctypes.c_char_p
        self._handle: ctypes.c_void_p | None = None
        self._seed = seed
        error = ctypes.create_string_buffer(ERROR_SIZE)
        handle = self._calls.open_model(*_as_arguments(data), seed, error, ERROR_SIZE)
        if not handle:
            raise InputError(f"Stan does not take the data: {_read(error)}")
        self._handle = ctypes.c_void_p(handle)
        self.unconstrained_names = self._names(3)

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self._calls.close_model(self._handle)

    def names(self, *, transformed: bool = False, generated: bool = False) -> tuple[str, ...]:
        """Names of entries, such as ``theta.1.2``, in the order of :meth:`constrain`.

        Args:
            transformed: those of transformed parameters too.
            generated: and those of generated quantities, which implies the former.
        """
        return self._names(2 if generated else int(transformed))

    def log_density(self, y: Array) -> Array:
        """Log densities over unconstrained space, (n,), of points (n, d).

        Raises:
            RuntimeError: the program failed other than by rejecting a point.
        """
        y = np.ascontiguousarray(y, dtype=np.float64)
        values = np.empty(len(y))
        self._call("log_density", *y.shape, _of(y), _of(values), None)
        return values

    def log_density_gradient(self, y: Array) -> tuple[Array, Array]:
        """The same with its gradients, (n,) and (n, d); zero where the density is."""
        y = np.ascontiguousarray(y, dtype=np.float64)
        values, gradients = np.empty(len(y)), np.empty(y.shape)
        self._call("log_density", *y.shape, _of(y), _of(values), _of(gradients))
        return values, gradients

    def constrain(self, y: Array, *, transformed: bool = False, generated: bool = False) -> Array:
        """Values (n, m) in the order of :meth:`names` at points (n, d) of unconstrained space."""
        y = np.ascontiguousarray(y, dtype=np.float64)
        which = 2 if generated else int(transformed)
        values = np.empty((len(y), len(self._names(which))))
        width = ctypes.c_longlong(values.shape[1])
        self._call("constrain", *y.shape, _of(y), which, width, _of(values), self._seed)
        return values

    def _names(self, which: int) -> tuple[str, ...]:
        text: bytes = self._calls.names(self._handle, which)
        return tuple(text.decode().split("\n")[:-1])

    def _call(self, function: str, n: int, d: int, *arguments: Any) -> None:
        error = ctypes.create_string_buffer(ERROR_SIZE)
        call = getattr(self._calls, function)
        sizes = (ctypes.c_longlong(n), ctypes.c_longlong(d))
        if call(self._handle, *sizes, *arguments, error, ERROR_SIZE):
            raise RuntimeError(_read(error))


def _as_arguments(data: Mapping[str, Any]) -> list[Any]:
    """Names, values and dimensions of real and of whole data, as ``open_model`` takes them."""
    arrays = {name: np.asarray(value) for name, value in data.items()}
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise InputError(
                f"data {name!r} must be numbers in a rectangular array, found {array.dtype}"
            )
    # Stan takes whole numbers for real data, so an empty array may be either.
    whole = {name: a for name, a in arrays.items() if a.dtype.kind != "f" or a.size == 0}
    real = {name: a for name, a in arrays.items() if name not in whole}
    arguments: list[Any] = []
    for kind, dtype in ((real, np.float64), (whole, np.int32)):
        values = [np.zeros(0, dtype), *(a.ravel(order="F").astype(dtype) for a in kind.values())]
        flat = np.concatenate(values)
        dims = [np.array([a.ndim, *a.shape], dtype=np.int64) for a in kind.values()]
        joined = np.concatenate([np.zeros(0, np.int64), *dims])
        arguments += [
            "\n".join(kind).encode(),
            _of(flat),
            ctypes.c_longlong(len(flat)),
            _of(joined),
        ]
    return arguments


def _of(array: NDArray[Any]) -> Any:
    """The address of an array, which numpy keeps alive with it."""
    return array.ctypes.data_as(ctypes.c_void_p)


def _read(error: Any) -> str:
    return " ".join(error.value.decode(errors="replace").split())
