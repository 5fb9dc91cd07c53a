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

from amfvi import pools
from amfvi.metrics.evaluation import evaluate_on_target

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

    def on_as_many(posterior, *arguments, **options):
        n_sampled = len(posterior.summary.split.test)
        monkeypatch.setattr("amfvi.metrics.evaluation.N_TEST", n_sampled)
        return evaluate_on_target(posterior, *arguments, **options)

    monkeypatch.setattr("amfvi.runs.run.evaluate_on_target", on_as_many)
    code, out, err = cli("fit", "--target", "bimodal", "--from", "density", "--json", *QUICK)
    assert code == 0, err
    metrics = json.loads(out)
    with np.load("runs/bimodal-0/sample.npz") as sample:
        assert int(sample["test"].sum()) == metrics["n_test"]
    assert metrics["mixture"]["kl"] < 0.05
    assert abs(metrics["density"]["log_z"]) < 0.02
    again = json.loads(cli("evaluate", "runs/bimodal-0", "--json")[1])  # draws of the target
    # The model is fitted on a GPU if there is one, and read back on the CPU.
    assert again["mixture"] == pytest.approx(metrics["mixture"], rel=1e-9, abs=1e-9)


def test_a_fit_not_to_be_trusted_is_written_and_has_its_own_code(cli, model):
    """Too few evaluations for the sampler to arrive."""
    code, out, err = cli("fit", "--log-density", "mymodel:heavy", "--dim", 1, "--n-draws", 1000,
                         "--experts", "maf", "--folds", 2, "--no-figures",
                         "--max-evaluations", 4500)  # fmt: skip
    assert code == 5, err
    assert "verdict: do not trust" in out
    assert (model / "runs" / "heavy-0" / "model" / "manifest.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("mymodel:raises", "--dim", 2), 3, "RuntimeError: the solver failed"),
        (("mymodel:raises_later", "--dim", 2), 3, "raised RuntimeError: wrong with beta=0.5 at"),
        (("mymodel:nan", "--dim", 2), 3, "the log density is nan at x1 = "),
        (("mymodel:wide", "--dim", 2), 3, "returned shape (3, 2) (expected shape (3,)"),
        (
            ("mymodel:nowhere", "--dim", 2),
            3,
            "points tried; give --box, or a LogDensity with a prior, to say where to start",
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


def test_a_forgotten_minus_is_an_error_and_leaves_no_state_to_resume(cli, model):
    """It ran without an end, and a resumed sampler would only fail again."""
    code, out, err = cli("fit", "--log-density", "mymodel:forgotten_minus", "--dim", 2, "--quiet",
                         *QUICK)  # fmt: skip
    assert (code, out) == (3, "")
    assert "cannot be integrated; is the sign right" in err
    assert "resumes" not in err
    assert not list(model.glob("runs/*")) + list(model.glob("runs/.*"))


@pytest.mark.parametrize("forks", [True, False])
def test_jobs_share_the_points_and_change_no_number(cli, model, monkeypatch, forks):
    """In processes that are started anew too, as beside a GPU in use."""
    if not forks:
        monkeypatch.setattr(pools, "_can_fork", lambda _: False)
    records = []
    for jobs in ("1", "3"):
        code, out, err = cli("fit", "--log-density", "mymodel:gamma", "--dim", 2, "--names",
                             "mu,tau", "--positive", "tau", "--json", "--jobs", jobs, "--out", jobs,
                             *QUICK)  # fmt: skip
        assert code == 0, err
        metrics = json.loads(out)
        records.append((metrics["density"], metrics["mixture"]))
        assert json.loads((model / jobs / "config.json").read_text())["jobs"] == int(jobs)
    assert records[0] == records[1]


def start(folder, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "amfvi", *arguments], cwd=folder, env={**os.environ},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(is_true):
    deadline = time.monotonic() + 120
    while not is_true() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert is_true(), "stopped too early or too late"


def test_a_stopped_run_keeps_its_sampler_and_resumes_to_the_same_result(cli, model):
    """Terminated, resumed, killed by the kernel so that no handler runs, resumed again."""
    arguments = ("fit", "--log-density", "mymodel:rather_slow", "--dim", "2", "--json",
                 "--box=-200:200", *QUICK)  # fmt: skip
    saved = model / "runs" / ".rather_slow-0.sampler" / "sampler 0.npz"
    (model / "slow").touch()
    process = start(model, *arguments)
    wait_for(saved.is_file)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert err.splitlines()[-1] == (
        "amfvi: error: interrupted; no run was written; the sampler's state is kept in "
        "runs/.rather_slow-0.sampler; the same command resumes it"
    )
    terminated = saved.stat().st_mtime_ns
    process = start(model, *arguments)
    wait_for(lambda: saved.is_file() and saved.stat().st_mtime_ns > terminated)
    process.send_signal(signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert "starts again" not in err
    assert [p.name for p in (model / "runs").iterdir()] == [".rather_slow-0.sampler"]
    (model / "slow").unlink()
    results = []
    for out in ("resumed", "whole"):
        options = () if out == "resumed" else ("--out", out)
        code, result, err = cli(*arguments, *options)
        assert code == 0, err
        assert not saved.parent.exists()
        results.append(json.loads(result))
        del results[-1]["seconds"]
        for expert in results[-1]["experts"].values():
            del expert["seconds"]
    assert results[0] == results[1]


CHATTY = """
import atexit, ctypes, logging, os, subprocess, sys
import amfvi

logging.basicConfig(stream=sys.stdout, level=logging.INFO)
libc = ctypes.CDLL(None)
print("printed at import")
atexit.register(print, "printed at the end")
atexit.register(os.write, 1, b"written at the end\\n")

def log_prob(x):
    if len(x) > 3:
        print("printed in the function")
        logging.info("logged")
        os.write(1, b"written to the file descriptor\\n")
        libc.puts(b"printed by C")
        subprocess.run(["echo", "printed by another process"])
        log_prob.__code__ = quiet.__code__
    return -0.5 * x.square().sum(dim=1)

def quiet(x):
    return -0.5 * x.square().sum(dim=1)
"""


def test_what_a_log_density_prints_stays_off_stdout(command, tmp_path):
    (tmp_path / "chatty.py").write_text(CHATTY)
    done = command("fit", "--log-density", "chatty:log_prob", "--dim", 1, "--json", *QUICK,
                   "--quiet", "--max-refinements", 0)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("{")
    assert json.loads(done.stdout)["name"] == "chatty"
    for line in ("printed at import", "printed in the function", "logged", "printed by C",
                 "written to the file descriptor", "printed by another process",
                 "printed at the end", "written at the end"):  # fmt: skip
        assert line in done.stderr


def test_files_of_the_standard_librarys_names_are_the_users_own(command, tmp_path):
    """Even where ``python -m`` looks for modules in the working directory first."""
    for name in ("queue", "json", "statistics"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not the standard library')\n")
    (tmp_path / "random.py").write_text("def log_prob(x):\n    return -0.5 * x.square().sum(1)\n")
    done = command("fit", "--log-density", "random.py:log_prob", "--dim", 1, "--json", *QUICK,
                   "--max-refinements", 0)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == "random"


def test_draws_with_their_density_are_judged_by_it(cli, model):
    rng = np.random.default_rng(0)
    draws = np.column_stack([rng.normal(size=3000), rng.gamma(3.0, size=3000)])
    np.savetxt(model / "draws.csv", draws, delimiter=",", header="mu,tau", comments="")
    flags = ("--experts", "gmm", "--folds", "2", "--no-figures")
    code, out, err = cli("fit", "--draws", "draws.csv", "--log-density", "mymodel:gamma",
                         "--positive", "tau", "--json", *flags)  # fmt: skip
    assert code == 0, err
    density = json.loads(out)["density"]
    expected = 0.5 * np.log(2 * np.pi) + np.log(2)
    assert density["log_z"] == pytest.approx(expected, abs=max(0.02, 4 * density["log_z_se"]))
    assert density["start"] == "the given draws"
    assert not (model / "runs" / ".draws-0.sampler").exists()
    code, out, err = cli("summary", "runs/draws-0")
    assert code == 0, err
    assert "by the given draws" in out
    code, _, err = cli("fit", "--draws", "draws.csv", "--log-density", "mymodel:gamma",
                       "--dim", 2, *flags)  # fmt: skip
    assert code == 2
    assert "--dim goes with --log-density alone" in err
