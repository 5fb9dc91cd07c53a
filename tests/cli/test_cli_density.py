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

LEAVES = """
import sys
calls = 0

def at_once(x):
    sys.exit(0)

def later(x):
    global calls
    calls += 1
    if calls > 15:
        raise SystemExit("enough")
    return -x.square().sum(dim=1)
"""

OWN = """
import amfvi, torch

prior = torch.distributions.Normal(torch.zeros(2), torch.ones(2))
density = amfvi.LogDensity(lambda x: -x.square().sum(dim=1), 2, prior=prior, box=(0, 1))
"""

QUICK = ("--experts", "gmm", "--folds", "2", "--n-draws", "2000", "--no-figures")


def test_a_function_of_a_module(cli, model):
    code, out, err = cli("fit", "--log-density", "mymodel:gamma", "--dim", 2, "--names", "mu,tau",
                         "--positive", "tau", "--json", *QUICK)  # fmt: skip
    assert code == 0, err
    metrics = json.loads(out)
    density = metrics["density"]
    expected = 0.5 * np.log(2 * np.pi) + np.log(2)
    assert density["log_z"] == pytest.approx(expected, abs=max(0.02, 4 * density["log_z_se"]))
    assert {
        "log_z", "log_z_se", "elbo", "eubo", "ess", "khat", "n_evaluations", "verdict", "reasons",
    } <= density.keys()  # fmt: skip
    assert metrics["seconds"]["sampling"] > 0
    run = model / "runs" / "gamma-0"
    assert json.loads((run / "metrics.json").read_text())["density"] == density
    assert not (model / "runs" / ".gamma-0.sampler").exists()
    weighted = np.load(run / "weighted_draws.npz")
    assert weighted["draws"].shape == (density["n_draws"], 2)
    assert weighted["log_weight"].shape == (density["n_draws"],)
    assert (np.load(run / "sample.npz")["draws"][:, 1] > 0).all()
    again = json.loads(cli("evaluate", "runs/gamma-0", "--json")[1])
    assert again["mixture"]["nll"] == metrics["mixture"]["nll"]
    shown = cli("summary", "runs/gamma-0")[1]
    assert "verdict: trust" in shown
    for reason in density["reasons"]:
        assert reason in " ".join(shown.split())
    # The draws with their weights are a file of weighted draws like any other.
    code, _, err = cli("fit", "--draws", "runs/gamma-0/weighted_draws.npz", *QUICK[:4], "--json",
                       "--no-figures", "--positive", "tau")  # fmt: skip
    assert code == 0, err


def test_a_log_density_object_and_a_file(cli, model):
    code, out, err = cli("fit", "--log-density", "mymodel:density", *QUICK)
    assert code == 0, err
    assert "verdict: trust" in out
    (model / "elsewhere").mkdir()
    code, _, err = cli("fit", "--log-density", "mymodel.py:log_prob", "--dim", 2, "--box=-20:20",
                       "--out", "elsewhere/run", *QUICK)  # fmt: skip
    assert code == 0, err
    assert "from the box" in err


def test_a_target_by_its_density_is_scored_on_exact_draws(cli, monkeypatch):
    """Not on the test draws of the sampler, even if they are as many."""
    sampled = round(2000 / (1 - 0.15)) - 2000
    monkeypatch.setattr("amfvi.metrics.evaluation.N_TEST", sampled)
    code, out, err = cli("fit", "--target", "bimodal", "--from", "density", "--json", *QUICK)
    assert code == 0, err
    metrics = json.loads(out)
    with np.load("runs/bimodal-0/sample.npz") as sample:
        assert int(sample["test"].sum()) == metrics["n_test"] == sampled
    assert metrics["mixture"]["kl"] < 0.05
    assert abs(metrics["density"]["log_z"]) < 0.02
    again = json.loads(cli("evaluate", "runs/bimodal-0", "--json")[1])  # draws of the target
    assert again["mixture"] == metrics["mixture"]


def test_a_fit_not_to_be_trusted_is_written_and_has_its_own_code(cli, model):
    code, out, err = cli("fit", "--log-density", "mymodel:heavy", "--dim", 1, "--experts", "maf",
                         "--folds", 2, "--n-draws", 1000, "--no-figures", "--max-refinements", 0)  # fmt: skip
    assert code == 5, err
    assert "verdict: do not trust" in out
    assert (model / "runs" / "heavy-0" / "model" / "manifest.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("mymodel:raises", "--dim", 2), 3, "RuntimeError: the solver failed with beta=0.5"),
        (("mymodel:nan", "--dim", 2), 3, "the log density is nan at x1 = "),
        (("mymodel:wide", "--dim", 2), 3, "returned shape (3, 2) (expected shape (3,)"),
        (
            ("mymodel:nowhere", "--dim", 2),
            3,
            "points tried; give prior= or --box to say where to start",
        ),
        (("mymodel:number", "--dim", 2), 2, "a log density is a function, found int"),
        (("mymodel:log_prb", "--dim", 2), 3, "unknown name in mymodel 'log_prb'; did you mean"),
        (("mymodl:log_prob", "--dim", 2), 3, "no module 'mymodl' here"),
        (("gone.py:log_prob", "--dim", 2), 3, "gone.py: no such file"),
        (("broken:log_prob", "--dim", 2), 3, "broken cannot be imported: ValueError: no data"),
        (("mymodel", "--dim", 2), 2, "wants MODULE:FUNCTION"),
        (("mymodel:log_prob",), 2, "needs its number of parameters: --dim"),
        (("mymodel:density", "--dim", 2), 2, "--dim does not go with a LogDensity"),
        (
            ("mymodel:log_prob", "--dim", 2, "--n-weight-draws", 5),
            2,
            "--n-weight-draws goes with exact",
        ),
        (("mymodel:log_prob", "--dim", 2, "--chains"), 2, "--chains goes with --draws"),
        (
            ("mymodel:log_prob", "--dim", 2, "--from", "density"),
            2,
            "--from density goes with --target",
        ),
        (("mymodel:log_prob", "--dim", 2, "--box", "a=0:1"), 2, "--box wants LOW:HIGH"),
        (("mymodel:log_prob", "--dim", 2, "--positive", "z"), 2, "no parameter 'z'"),
        (
            ("mymodel:log_prob", "--dim", 2, "--max-evaluations", 50),
            4,
            "--max-evaluations 50 is too",
        ),
        (("mymodel:slow", "--dim", 2, "--timeout", 0.5), 4, "--timeout 0.5 is too little"),
        (("leaves:at_once", "--dim", 2), 3, "it called sys.exit(0)"),
        (("leaves:later", "--dim", 2), 3, "raised RuntimeError: it called sys.exit('enough')"),
        (("leaves_early:log_prob", "--dim", 2), 3, "while it was imported (sys.exit(0))"),
        (("leaves_early.py:log_prob", "--dim", 2), 3, "while it was imported (sys.exit(0))"),
        (
            ("own.py:log_prob", "--dim", 2),
            3,
            "own.py cannot be imported: UsageError: give prior= or box=",
        ),
    ],
)
def test_what_goes_wrong_is_one_line_and_writes_nothing(cli, model, arguments, code, message):
    (model / "broken.py").write_text("raise ValueError('no\\ndata')\n")
    (model / "leaves.py").write_text(LEAVES)
    (model / "leaves_early.py").write_text("import sys\nsys.exit(0)\n")
    (model / "own.py").write_text(OWN)
    found, out, err = cli("fit", "--log-density", *arguments, "--quiet", *QUICK)
    assert found == code, err
    errors = [line for line in err.splitlines() if line.startswith("amfvi: error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in err
    assert out == ""
    assert not (model / "runs").exists()


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
