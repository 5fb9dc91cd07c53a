"""The command line on netCDF and Parquet files."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pyarrow.parquet
import pytest

import amfvi

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import xarray

QUICK = ("--experts", "gmm", "--folds", "2", "--no-figures", "--quiet", "--json")


@pytest.mark.slow
def test_a_trace_is_fitted_and_keeps_its_coords(command, cli, tmp_path):
    random = np.random.default_rng(0)
    dims = ("chain", "draw")
    data = xarray.Dataset(
        {
            "tau": (dims, random.gamma(4.0, size=(4, 250))),
            "theta": ((*dims, "school"), random.normal(size=(4, 250, 2))),
        },
        coords={"school": ["A", "B"]},
    )
    data.to_netcdf(tmp_path / "trace.nc", group="posterior", engine="h5netcdf")
    done = command("fit", "--draws", "trace.nc", "--positive", "tau", *QUICK)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)
    posterior = amfvi.load(tmp_path / "runs" / "trace-0")
    assert posterior.names == ("tau", "theta[1]", "theta[2]")
    assert posterior.constraints.lower[0] == 0.0
    assert posterior.variables.each[1].dims == ("school",)
    assert posterior.variables.coords["school"].tolist() == ["A", "B"]
    assert cli("evaluate", "runs/trace-0", "--json")[0] == 0

    assert cli("sample", "runs/trace-0", "-n", 300, "--out", "sample.parquet") == (0, "", "")
    points = pyarrow.parquet.read_table(tmp_path / "sample.parquet")
    assert points.column_names == list(posterior.names)
    asked = ("log-prob", "runs/trace-0", "--points", "sample.parquet", "--out", "l.parquet")
    assert cli(*asked) == (0, "", "")
    found = pyarrow.parquet.read_table(tmp_path / "l.parquet").column("log_prob")
    expected = posterior.log_prob(np.column_stack([c.to_numpy() for c in points.columns]))
    assert np.allclose(found.to_numpy(), expected.numpy())

    done = command("fit", "--draws", "sample.parquet", "--positive", "tau", *QUICK)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["a.nc", "a.parquet"])
def test_a_damaged_file_is_one_line_and_exit_code_3(cli, tmp_path, name):
    (tmp_path / name).write_bytes(b"something else")
    code, out, err = cli("fit", "--draws", name, *QUICK)
    assert (code, out) == (3, "")
    assert f"{name}: cannot be read" in err
    assert len(err.strip().splitlines()) == 1
