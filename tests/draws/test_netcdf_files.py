"""netCDF files of ArviZ: what is read, and what a wrong file is told."""

from __future__ import annotations

import importlib.util
import warnings

import numpy as np
import pytest

from amfvi.draws.netcdf_files import read_netcdf
from amfvi.draws.readers import read_draws, read_table
from amfvi.errors import InputError, UsageError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import arviz
    import xarray

SCHOOLS = ["Choate", "Deerfield", "Exeter"]
RANDOM = np.random.default_rng(0)
MU, THETA = RANDOM.normal(size=(4, 150)), RANDOM.normal(size=(4, 150, 3))
L = RANDOM.normal(size=(4, 150, 2, 2))


def save(path, group="posterior", engine="h5netcdf", **variables):
    data = xarray.Dataset(variables, coords={"school": SCHOOLS} if "theta" in variables else {})
    data.to_netcdf(path, group=group, engine=engine)
    return path


def over(*dims, values):
    return (("chain", "draw", *dims), values)


@pytest.fixture
def file(tmp_path):
    """As ArviZ writes it."""
    path = tmp_path / "trace.nc"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arrays = {"mu": MU, "theta": THETA, "L": L}
        about = {"dims": {"theta": ["school"]}, "coords": {"school": SCHOOLS}}
        if int(arviz.__version__.split(".")[0]) >= 1:
            arviz.from_dict({"posterior": arrays}, **about).to_netcdf(path)
        else:
            arviz.from_dict(posterior=arrays, prior={"mu": MU}, **about).to_netcdf(str(path))
    return path


def test_names_chains_dims_and_coords(file):
    draws = read_draws(file)
    assert draws.names == (
        "mu", "theta[1]", "theta[2]", "theta[3]", "L[1,1]", "L[1,2]", "L[2,1]", "L[2,2]",
    )  # fmt: skip
    assert draws.chain.tolist() == sorted([0, 1, 2, 3] * 150)
    assert np.array_equal(draws.values[150:300, 2].numpy(), THETA[1, :, 1])
    assert np.array_equal(draws.values[450:, 6].numpy(), L[3, :, 1, 0])
    shapes = {each.name: (each.shape, each.dims) for each in draws.variables.each}
    assert shapes == {"mu": ((), ()), "theta": ((3,), ("school",)), "L": ((2, 2), ())}
    assert {dim: c.tolist() for dim, c in draws.variables.coords.items()} == {"school": SCHOOLS}


def test_names_of_the_caller(file):
    draws = read_draws(file, names=[f"x{i}" for i in range(8)])
    assert draws.names[0] == "x0"
    assert draws.layout is None


@pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
def test_draws_before_chains_by_either_library(tmp_path, engine):
    pytest.importorskip("h5netcdf" if engine == "h5netcdf" else "netCDF4")
    path = tmp_path / "a.nc"
    save(path, mu=(("draw", "chain"), MU.T), theta=over("school", values=THETA), engine=engine)
    draws = read_draws(path)
    assert np.array_equal(draws.values[:, 0].numpy(), MU.ravel())
    assert draws.variables.coords["school"].tolist() == SCHOOLS


def test_a_unit_of_time_is_no_reason_to_read_dates(tmp_path):
    data = xarray.Dataset({"delay": over(values=np.abs(MU))})
    data["delay"].attrs["units"] = "seconds"
    data.to_netcdf(tmp_path / "a.nc", group="posterior", engine="h5netcdf")
    assert np.array_equal(read_draws(tmp_path / "a.nc").values[:, 0].numpy(), np.abs(MU).ravel())


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "the group 'posterior' has no variables"),
        ({"a": over(values=np.full((4, 150), "x"))}, "variable 'a' holds text, expected numbers"),
        ({"a": over(values=MU > 0)}, "variable 'a' holds bool, expected numbers"),
        ({"a": (("draw",), MU[0])}, r"variable 'a' is over \(draw\), expected \(chain, draw"),
        ({"a": over(values=MU[:, :0])}, "the group 'posterior' has no draws"),
        ({"a": over(values=np.where(MU > 2, np.nan, MU))}, "rows hold NaN or infinity"),
    ],
)
def test_what_is_wrong_with_a_posterior_group(tmp_path, variables, message):
    path = save(tmp_path / "a.nc", **variables)
    with pytest.raises(InputError, match=message) as error:
        read_draws(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_another_group_an_empty_file_and_garbage(tmp_path):
    path = save(tmp_path / "a.nc", group="prior", a=over(values=MU))
    with pytest.raises(InputError, match="holds no group 'posterior'"):
        read_draws(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="the file is empty"):
        read_draws(path)
    path.write_bytes(b"no netCDF at all")
    with pytest.raises(InputError, match=r"cannot be read \(OSError"):
        read_draws(path)


def test_a_file_that_was_cut_short_is_refused(file):
    content = file.read_bytes()
    for share in (0.1, 0.3, 0.6, 0.9, 0.99):
        file.write_bytes(content[: int(share * len(content))])
        with pytest.raises(InputError, match="cannot be read") as error:
            read_table(file)
        assert "\n" not in str(error.value)


def test_a_posterior_that_is_too_large_is_refused(file, monkeypatch):
    monkeypatch.setattr("amfvi.draws.table.MAX_UNPACKED", 1000)
    with pytest.raises(InputError, match="the group 'posterior' unpacks to"):
        read_table(file)


@pytest.mark.parametrize("missing", [("xarray",), ("h5netcdf", "netCDF4")])
def test_a_missing_library_is_named(file, monkeypatch, missing):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in missing else find(name)
    )
    with pytest.raises(UsageError, match=r"pip install 'amfvi\[arviz\]'"):
        read_netcdf(file)
