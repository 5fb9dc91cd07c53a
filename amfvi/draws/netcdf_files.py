"""Read the posterior group of netCDF files, as ArviZ and the samplers that use it write them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amfvi.draws.table import Table, require_memory
from amfvi.errors import InputError, UsageError
from amfvi.variables import Variable, Variables

__all__ = ["read_netcdf", "table_from_posterior"]

GROUP = "posterior"
"""The group of a file that holds the draws."""

INDICES = ("chain", "draw")
"""The dimensions of every variable that are no part of its shape."""


def read_netcdf(path: Path) -> Table:
    """Read the posterior group of a file, with its dims and coords.

    Raises:
        InputError: no such group, a variable that is not of numbers, or a damaged file.
        UsageError: xarray or what it reads netCDF files with is not installed.

    Examples:
        >>> import tempfile, xarray
        >>> data = xarray.Dataset({"mu": (("chain", "draw"), np.zeros((4, 25)))})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data.to_netcdf(f"{folder}/a.nc", group="posterior", engine="h5netcdf")
        ...     read_netcdf(Path(folder, "a.nc")).values.shape
        (100, 1)
    """
    xarray, engine = _require_netcdf()
    try:
        with xarray.open_dataset(path, group=GROUP, engine=engine, decode_timedelta=False) as group:
            _require_numbers(group)
            group.load()
    except InputError:
        raise
    except Exception as error:  # of many kinds, by what is damaged
        said = " ".join(str(error).split())
        if "group not found" in said:
            raise InputError(f"holds no group {GROUP!r}, expected one with the draws") from None
        raise InputError(f"cannot be read ({type(error).__name__}: {said})") from None
    return table_from_posterior(group)


def table_from_posterior(group: Any) -> Table:
    """Columns of a dataset of variables over (chain, draw, …), one for each of their entries.

    Raises:
        InputError: no variables, or one that is not of numbers over (chain, draw, …).

    Examples:
        >>> import xarray
        >>> theta = (("chain", "draw", "school"), np.zeros((4, 25, 2)))
        >>> data = xarray.Dataset({"theta": theta}, coords={"school": ["A", "B"]})
        >>> table = table_from_posterior(data)
        >>> table.names, table.variables.coords
        (('theta[1]', 'theta[2]'), {'school': array(['A', 'B'], dtype='<U1')})
    """
    _require_numbers(group)
    each, columns = [], []
    for name in map(str, group.data_vars):
        values = group[name].transpose(*INDICES, ...)
        shape, dims = values.shape[2:], tuple(map(str, values.dims[2:]))
        automatic = tuple(f"{name}_dim_{i}" for i in range(len(dims)))
        each.append(Variable(name, shape, () if dims == automatic else dims))
        columns.append(values.to_numpy().reshape(values.shape[0] * values.shape[1], -1))
    used = {dim for variable in each for dim in variable.dims}
    coords = {dim: _plain(group[dim].to_numpy()) for dim in used if dim in group.coords}
    variables = Variables(tuple(each), coords)
    n_chains, n_draws = (group.sizes[index] for index in INDICES)
    return Table(
        values=np.concatenate(columns, axis=1).astype(np.float64),
        names=variables.names,
        chain=np.repeat(np.arange(n_chains), n_draws),
        draw=np.tile(np.arange(n_draws), n_chains),
        variables=variables,
    )


def _require_numbers(group: Any) -> None:
    """Refuse a group without draws, or with other things than numbers.

    Raises:
        InputError: says which variable.
    """
    if not group.data_vars:
        raise InputError(f"the group {GROUP!r} has no variables")
    for name, values in group.data_vars.items():
        if values.dtype.kind not in "fiu":
            kind = "text" if values.dtype.kind in "OSU" else str(values.dtype)
            raise InputError(f"variable {str(name)!r} holds {kind}, expected numbers")
        if not set(INDICES) <= set(values.dims):
            dims = ", ".join(map(str, values.dims))
            raise InputError(f"variable {str(name)!r} is over ({dims}), expected (chain, draw, …)")
    if 0 in (group.sizes[index] for index in INDICES):
        raise InputError(f"the group {GROUP!r} has no draws")
    require_memory(group.nbytes, f"the group {GROUP!r}")


def _plain(coordinates: NDArray[Any]) -> NDArray[Any]:
    """Coordinates as numbers, dates or strings, never objects."""
    if coordinates.dtype.kind == "O":
        return np.array([str(value) for value in coordinates])
    if coordinates.dtype.kind not in "biufMm":  # strings of numpy of their own kinds
        return np.asarray(coordinates, dtype=str)
    return coordinates


def _require_netcdf() -> tuple[Any, str]:
    """The library xarray, and what it is to read netCDF files with.

    Raises:
        UsageError: one is not installed.
    """
    engines = [name for name in ("h5netcdf", "netCDF4") if importlib.util.find_spec(name)]
    if not engines or importlib.util.find_spec("xarray") is None:
        raise UsageError("netCDF files need xarray and h5netcdf: pip install 'amfvi[arviz]'")
    import xarray

    return xarray, engines[0].lower()
