"""A simulator on the command line: simulated once, fitted, calibrated, and refused in one line."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest

import amfvi
from amfvi import pools

MODEL = """
import pathlib
import numpy as np
import torch
from torch.distributions import Uniform
import amfvi

prior = Uniform(torch.zeros(2), 1.0)

def simulate(y, rng):
    with open("calls", "a") as file:
        file.write("." * (len(y) if y.ndim == 2 else 1))
    if pathlib.Path("broken").exists() and pathlib.Path("calls").stat().st_size > 250:
        raise SystemExit("no licence")
    c = y[..., :1] + y[..., 1:] + 0.1 * rng.normal(size=(*y.shape[:-1], 1))
    return np.where(y[..., :1] < 0.1, np.nan, c)

def draw(n, rng):
    return rng.uniform(size=(n, 2))

def three(n, rng):
    return rng.uniform(size=(n, 3))

def only_two(y):
    if y.shape[-1] != 2:
        raise ValueError("wants a, b")
    return y

def raises(y):
    raise RuntimeError("the solver failed")

def ragged(y):
    return [0.0] * (1 + int(y[0] > 0.9)) if y.ndim == 1 else None

whole = amfvi.Simulator(simulate, prior, names=["a", "b"], given_names=["total"])
number = 3
"""

QUICK = ("--experts", "gmm", "--folds", "2", "-n", "200", "--quiet")


@pytest.fixture
def model(tmp_path):
    (tmp_path / "epidemic.py").write_text(MODEL)
    return tmp_path


def functions(simulator="simulate", prior="prior"):
    return "--simulator", f"epidemic.py:{simulator}", "--prior", f"epidemic.py:{prior}"


def test_from_a_simulator_to_draws_at_a_condition(command, cli, model):
    done = command("fit", *functions(), *QUICK, "--names", "a,b", "--given", "total")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-2:] == [
        "saved:   runs/epidemic-0",
        "report:  runs/epidemic-0/report.html",
    ]
    run = model / "runs" / "epidemic-0"
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["n_simulated"] == 200
    assert 5 < metrics["n_failed"] < 50
    assert f"failed:  {metrics['n_failed']} of 200 simulations" in lines
    assert "are left out; a fit is to p(y | c, the simulation succeeds)" in metrics["warnings"][0]
    assert metrics["n_fitted"] + metrics["n_held_back"] + metrics["n_failed"] == 200
    config = json.loads((run / "config.json").read_text())
    assert config["simulator"] == "epidemic.py:simulate"
    assert not (model / "runs" / ".epidemic-0.simulations").exists()
    sampled = cli("sample", run, "--given", "total=1.0", "-n", "500", "--out", "draws.csv")
    assert sampled[0] == 0, sampled[2]
    draws = np.loadtxt(model / "draws.csv", delimiter=",", skiprows=1)
    assert draws.sum(axis=1).mean() == pytest.approx(1, abs=0.1)
    assert ((draws > 0) & (draws < 1)).all()
    assert {"coverage.png", "condition.png"} <= {p.name for p in (run / "figures").iterdir()}
    assert cli("calibrate", run, "--figures", "drawn")[0] == 0
    assert (model / "drawn" / "condition.png").is_file()
    assert "draws.csv: cannot be made" in cli("calibrate", run, "--figures", "draws.csv")[2]
    # Its simulations are pairs like any others.
    again = amfvi.fit(run / "simulations.npz", given="total", experts="gmm", folds=2)
    assert len(again.summary.split.draws) == metrics["n_fitted"]


def test_an_interrupted_run_does_not_simulate_again(cli, model, monkeypatch):
    monkeypatch.chdir(model)
    fit = ("fit", *functions("whole")[:2], *QUICK, "--no-figures", "--out", "run")

    def interrupt(*arguments, **named):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("amfvi.runs.conditional_run.fit", interrupt)
    code, _, err = cli(*fit)
    assert code == 130
    assert "simulations are kept in .run.simulations; the same command goes on" in err
    before = (model / "calls").stat().st_size
    assert before >= 200
    monkeypatch.undo()
    monkeypatch.chdir(model)
    assert cli(*fit)[0] == 0
    assert (model / "calls").stat().st_size - before < 100  # to see that it is the same function
    assert not (model / ".run.simulations").exists()
    assert json.loads((model / "run" / "metrics.json").read_text())["names"] == ["a", "b"]


@pytest.mark.parametrize("forks", [True, False])
def test_pairs_do_not_depend_on_the_number_of_processes(cli, model, monkeypatch, forks):
    """In processes that are started anew too, as beside a GPU in use."""
    if not forks:
        monkeypatch.setattr(pools, "_can_fork", lambda _: False)
    monkeypatch.chdir(model)
    for jobs in ("1", "2"):
        fit = ("fit", *functions(prior="draw"), *QUICK, "--no-figures", "--bounds", "y1=0:1")
        assert cli(*fit, "--jobs", jobs, "--out", jobs)[0] == 0
    one, two = (np.load(model / jobs / "simulations.npz")["draws"] for jobs in ("1", "2"))
    assert np.array_equal(one, two)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (functions("simulat"), "unknown name in epidemic.py 'simulat'; did you mean simulate?"),
        (functions("number"), "epidemic.py:number is int, expected a function or"),
        (functions("simulate")[:2], "needs a prior: give --prior"),
        (functions(prior="number"), "prior must be a torch distribution or a function"),
        (functions("whole"), "--prior does not go with an amfvi.Simulator"),
        (functions("only_two", "three"), "wants a, b"),
        (functions("raises"), "the solver failed"),
        (functions("ragged"), "shape"),
        (("--simulator", "nowhere.py:f", "--prior", "p:q"), "nowhere.py: no such file"),
        (("--simulator", "simulate"), "--simulator wants MODULE:FUNCTION"),
        (("--prior", "epidemic.py:prior"), "--prior goes with --simulator"),
        (("--jobs", "2", "--target", "sinus"), "--jobs goes with --simulator"),
        ((*functions(), "--target", "sinus"), "give --simulator or --target, not both"),
        ((*functions(), "--dim", "2"), "--dim does not go with pairs"),
        ((*functions(), "--names", "a"), "names must be 2 different ones"),
        ((*functions(), "--bounds", "z=0:1"), "z"),
    ],
)
def test_what_a_simulator_cannot_be(cli, model, monkeypatch, arguments, message):
    monkeypatch.chdir(model)
    code, out, err = cli("fit", *arguments, "--experts", "gmm", "-n", "200", "--quiet")
    assert code in (2, 3)
    assert message in err
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert not (model / "runs").exists() or not list((model / "runs").glob("*/config.json"))
