"""A log density on the command line: fits, verdicts, broken densities, limits, resuming."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

QUICK = ("--experts", "gmm", "--folds", "2", "--n-draws", "2000", "--no-figures")

MODEL = """
import math
import time
import torch
import amfvi

def log_prob(x):
    return -0.5 * ((x[:, 0] - 1) ** 2 + (x[:, 1] / 3) ** 2)

def gamma(x):  # in its second parameter
    return -0.5 * x[:, 0] ** 2 + 2 * x[:, 1].log() - x[:, 1]

def heavy(x):
    return -0.75 * torch.log1p(x[:, 0] ** 2)

def raises(x):
    raise RuntimeError("the solver\\nfailed")

def nan(x):
    return x.sum(dim=1) * float("nan")

def wide(x):
    return x

def nowhere(x):
    return torch.full((len(x),), -math.inf)

def slow(x):
    time.sleep(len(x))
    return -x.square().sum(dim=1)

def rather_slow(x):
    time.sleep(3e-4 * len(x))
    return log_prob(x)

density = amfvi.LogDensity(log_prob, 2, names=["a", "b"])
number = 3
"""


@pytest.fixture
def model(tmp_path):
    (tmp_path / "mymodel.py").write_text(MODEL)
    return tmp_path


def test_a_function_of_a_module(command, model):
    done = command("fit", "--log-density", "mymodel:gamma", "--dim", 2, "--names", "mu,tau",
                   "--positive", "tau", "--json", *QUICK)  # fmt: skip
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)
    density = metrics["density"]
    expected = 0.5 * np.log(2 * np.pi) + np.log(2)
    assert density["log_z"] == pytest.approx(expected, abs=max(0.02, 4 * density["log_z_se"]))
    assert {
        "log_z", "log_z_se", "elbo", "eubo", "ess", "khat", "calls", "verdict", "reasons",
    } <= density.keys()  # fmt: skip
    assert metrics["seconds"]["sampling"] > 0
    run = model / "runs" / "gamma-0"
    assert json.loads((run / "metrics.json").read_text())["density"] == density
    assert not (model / "runs" / ".gamma-0.sampler").exists()
    weighted = np.load(run / "weighted_draws.npz")
    assert weighted["draws"].shape == (density["draws"], 2)
    assert weighted["log_weight"].shape == (density["draws"],)
    assert (np.load(run / "sample.npz")["draws"][:, 1] > 0).all()
    again = command("evaluate", "runs/gamma-0", "--json")
    assert json.loads(again.stdout)["mixture"]["nll"] == metrics["mixture"]["nll"]
    shown = command("summary", "runs/gamma-0").stdout
    assert "verdict: trust" in shown
    assert "nothing is known of modes that no start reached" in " ".join(shown.split())
    # The draws with their weights are a file of weighted draws like any other.
    refit = command("fit", "--draws", "runs/gamma-0/weighted_draws.npz", *QUICK[:4], "--json",
                    "--no-figures", "--positive", "tau")  # fmt: skip
    assert refit.returncode == 0, refit.stderr


def test_a_log_density_object_and_a_file(command, model):
    done = command("fit", "--log-density", "mymodel:density", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "verdict: trust" in done.stdout
    (model / "elsewhere").mkdir()
    done = command("fit", "--log-density", "mymodel.py:log_prob", "--dim", 2, "--box=-20:20",
                   "--out", "elsewhere/run", *QUICK)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "from the box" in done.stderr


def test_a_target_by_its_density(command):
    done = command("fit", "--target", "bimodal", "--from", "density", "--json", *QUICK)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)
    assert metrics["n_test"] == 20_000
    assert metrics["mixture"]["kl"] < 0.02
    assert abs(metrics["density"]["log_z"]) < 0.02
    again = command("evaluate", "runs/bimodal-0", "--json")
    assert json.loads(again.stdout)["mixture"]["kl"] == metrics["mixture"]["kl"]


def test_a_fit_not_to_be_trusted_is_written_and_has_its_own_code(command, model):
    done = command("fit", "--log-density", "mymodel:heavy", "--dim", 1, "--experts", "maf",
                   "--folds", 2, "--n-draws", 1000, "--no-figures", "--rounds", 0)  # fmt: skip
    assert done.returncode == 5, done.stderr
    assert "verdict: do not trust" in done.stdout
    assert (model / "runs" / "heavy-0" / "model" / "manifest.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("mymodel:raises", "--dim", 2), 3, "RuntimeError: the solver failed"),
        (("mymodel:nan", "--dim", 2), 3, "the log density is nan at x1 = "),
        (("mymodel:wide", "--dim", 2), 3, "returned shape (3, 2) (expected shape (3,)"),
        (("mymodel:nowhere", "--dim", 2), 3, "-inf at all 2048 points tried; say where to start"),
        (("mymodel:number", "--dim", 2), 2, "a log density is a function, found int"),
        (("mymodel:log_prb", "--dim", 2), 3, "unknown name in mymodel 'log_prb'; did you mean"),
        (("mymodl:log_prob", "--dim", 2), 3, "no module 'mymodl' here"),
        (("gone.py:log_prob", "--dim", 2), 3, "gone.py: no such file"),
        (("broken:log_prob", "--dim", 2), 3, "broken cannot be imported: ValueError: no data"),
        (("mymodel", "--dim", 2), 2, "wants MODULE:FUNCTION"),
        (("mymodel:log_prob",), 2, "needs its number of parameters: --dim D"),
        (("mymodel:density", "--dim", 2), 2, "--dim does not go with a LogDensity"),
        (("mymodel:log_prob", "--dim", 2, "--n-fresh", 5), 2, "--n-fresh goes with exact draws"),
        (("mymodel:log_prob", "--dim", 2, "--chains"), 2, "--chains goes with --draws"),
        (("mymodel:log_prob", "--dim", 2, "--from", "density"), 2, "--from goes with --target"),
        (("mymodel:log_prob", "--dim", 2, "--box", "a=0:1"), 2, "--box wants LOW:HIGH"),
        (("mymodel:log_prob", "--dim", 2, "--positive", "z"), 2, "no parameter 'z'"),
        (("mymodel:log_prob", "--dim", 2, "--max-calls", 50), 4, "--max-calls 50 is too little"),
        (("mymodel:slow", "--dim", 2, "--timeout", 8), 4, "s a call"),
    ],
)
def test_what_goes_wrong_is_one_line_and_writes_nothing(command, model, arguments, code, message):
    (model / "broken.py").write_text("raise ValueError('no\\ndata')\n")
    done = command("fit", "--log-density", *arguments, "--quiet", *QUICK)
    assert done.returncode == code, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("amfvi: error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (model / "runs" / arguments[0].split(":")[-1]).exists()
    assert not list(model.glob("runs/*-0"))


def test_a_killed_run_resumes_to_the_same_result(command, model):
    """Killed by the kernel in the middle of the sampler: no handler runs."""
    arguments = ("fit", "--log-density", "mymodel:rather_slow", "--dim", "2", "--json", *QUICK)
    environment = {**os.environ, "PYTHONPATH": ""}
    process = subprocess.Popen(
        [sys.executable, "-m", "amfvi", *arguments], cwd=model, env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    saved = model / "runs" / ".rather_slow-0.sampler" / "sampler 0.npz"
    deadline = time.monotonic() + 120
    while not saved.is_file() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert saved.is_file(), "killed too early or too late"
    assert not (model / "runs" / "rather_slow-0").exists()
    resumed = command(*arguments)
    assert resumed.returncode == 0, resumed.stderr
    assert not saved.parent.exists()
    whole = command(*arguments, "--out", "whole")
    results = [json.loads(done.stdout) for done in (resumed, whole)]
    for result in results:
        del result["seconds"], result["name"]
        for expert in result["experts"].values():
            del expert["seconds"]
    assert results[0] == results[1]
