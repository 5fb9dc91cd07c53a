"""The command line, as people and scripts use it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from amfvi.cli.flags import FLAGS
from amfvi.errors import ExitCode

QUICK = ("--experts", "rbig", "--no-figures")


@pytest.fixture
def csv_file(tmp_path):
    generator = np.random.default_rng(0)
    tau = generator.gamma(2, size=(400, 1))
    rows = np.column_stack([generator.normal(size=(400, 1)) * tau, tau])
    np.savetxt(tmp_path / "d.csv", rows, delimiter=",", header="mu,tau", comments="")
    return tmp_path / "d.csv"


def test_fit_writes_the_whole_run_directory(finished):
    run, done = finished
    assert done.returncode == 0, done.stderr
    files = {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()}
    figures = {f"figures/{n}.png" for n in ("density", "experts", "draws", "training", "weights")}
    assert files == figures | {
        "config.json", "metrics.json", "environment.json", "log.txt", "draws.npz", "report.html",
        "model/manifest.json", "model/tensors.safetensors",
    }  # fmt: skip
    assert [p.name for p in run.parent.iterdir()] == ["banana-4"]
    for figure in figures:
        assert (run / figure).read_bytes().startswith(b"\x89PNG")
    assert "mixture" in done.stdout
    for text in (done.stderr, (run / "log.txt").read_text()):
        assert re.search(r"maf: held-out NLL \d\.\d+ at step \d+, ", text)
        assert re.search(r"rbig: held-out NLL \d\.\d+ at layer \d+, ", text)
    with np.load(run / "draws.npz") as draws:
        assert draws["draws"].shape == (10_000, 2)
        assert draws["names"].tolist() == ["x1", "x2"]


def test_metrics_have_the_documented_keys(finished):
    metrics = json.loads((finished[0] / "metrics.json").read_text())
    scores = {"nll", "nll_se", "kl", "kl_se", "w2", "w2_sd", "mmd2", "mmd_p"}
    assert {
        "schema", "name", "dim", "seed", "folds", "n_train", "n_heldout", "n_weight", "n_test",
        "n_w2", "entropy", "mixture", "experts", "weights", "floor", "seconds",
    } <= metrics.keys()  # fmt: skip
    assert metrics["mixture"].keys() == scores
    for expert in metrics["experts"].values():
        assert scores | {"weight", "seconds", "converged"} <= expert.keys()
    assert {"rule", "beta", "n_eff", "steps", "gap"} <= metrics["weights"].keys()
    assert metrics["floor"].keys() == {"w2", "w2_sd", "mmd2", "mmd2_sd"}
    assert metrics["seconds"].keys() == {"stage_one", "stage_two", "evaluate", "total"}
    sizes = [metrics[k] for k in ("n_train", "n_heldout", "n_weight", "n_test", "n_w2")]
    assert sizes == [480, 120, 600, 20_000, 300]
    assert sum(e["weight"] for e in metrics["experts"].values()) == pytest.approx(1)
    exact = metrics["mixture"]["nll"] - metrics["entropy"]
    assert metrics["mixture"]["kl"] == pytest.approx(exact, abs=4 * metrics["mixture"]["nll_se"])


def test_evaluate_repeats_the_scores(finished, cli):
    run, _ = finished
    saved = json.loads((run / "metrics.json").read_text())
    code, out, _ = cli("evaluate", run, "--json")
    assert code == 0
    again = json.loads(out)
    assert again["mixture"] == pytest.approx(saved["mixture"])
    assert cli("evaluate", run, "--target", "rings")[0] == 0


def test_summary_shows_parameters_and_scores(finished, cli):
    code, out, _ = cli("summary", finished[0], "--json")
    rows = json.loads(out)["parameters"]
    assert code == 0
    assert rows["x1"]["mean"] == pytest.approx(0, abs=0.3)
    assert rows["x1"]["sd"] == pytest.approx(2**0.5, abs=0.25)
    assert rows["x1"]["2.5%"] < rows["x1"]["50%"] < rows["x1"]["97.5%"]
    code, out, _ = cli("summary", finished[0])
    assert code == 0
    assert "x1" in out
    assert "realnvp" in out


def test_sample_and_log_prob_go_together(finished, cli, tmp_path):
    import amfvi

    run, _ = finished
    assert cli("sample", run, "-n", 50, "--seed", 3, "--out", "s.csv")[0] == 0
    text = (tmp_path / "s.csv").read_text()
    code, out, _ = cli("sample", run, "-n", 50, "--seed", 3)
    assert (code, out) == (0, text)
    code, out, _ = cli("log-prob", run, "--points", "s.csv")
    assert code == 0
    printed = np.loadtxt(out.splitlines(), skiprows=1)
    points = np.loadtxt(tmp_path / "s.csv", delimiter=",", skiprows=1)
    assert np.array_equal(printed, amfvi.load(run).log_prob(points).numpy())
    assert cli("log-prob", run, "--points", "s.csv", "--out", "l.npz")[0] == 0
    assert np.array_equal(np.load(tmp_path / "l.npz")["log_prob"][:, 0], printed)


def test_log_prob_takes_a_single_point(finished, cli, tmp_path):
    (tmp_path / "one.csv").write_text("x2,x1\n0.5,1\n")
    code, out, _ = cli("log-prob", finished[0], "--points", "one.csv")
    assert code == 0
    assert out.startswith("log_prob\n")
    assert len(out.splitlines()) == 2


def test_fit_a_file_with_a_positive_parameter(cli, csv_file):
    code, out, err = cli("fit", "--draws", csv_file, "--positive", "tau", "--json", *QUICK)
    metrics = json.loads(out)
    assert code == 0, err
    assert metrics["name"] == "d"
    assert metrics["mixture"]["kl"] is None
    assert metrics["entropy"] is None
    assert metrics["folds"] == 5
    assert (metrics["n_train"] + metrics["n_heldout"], metrics["n_test"]) == (340, 60)
    draws = np.load(csv_file.parent / "runs" / "d-0" / "draws.npz")["draws"]
    assert (draws[:, 1] > 0).all()
    code, out, _ = cli("evaluate", "runs/d-0", "--json")
    assert code == 0
    again = json.loads(out)
    for part in ("mixture", "floor", "n_w2"):
        assert again[part] == pytest.approx(metrics[part]), part
    csv_file.write_text(csv_file.read_text() + "1.0,1.0\n")
    code, _, err = cli("evaluate", "runs/d-0")
    assert code == 3
    assert "has changed since this run was fitted" in err
    assert cli("evaluate", "runs/d-0", "--draws", csv_file)[0] == 0


def test_no_test_draws_means_null_scores(cli, csv_file):
    code, out, _ = cli(
        "fit", "--draws", csv_file, "--test-fraction", 0, "--json", *QUICK, "--quiet"
    )
    metrics = json.loads(out)
    assert code == 0
    assert metrics["n_test"] == 0
    assert set(metrics["mixture"].values()) == {None}
    assert metrics["floor"] is None


def test_same_seed_same_run(cli):
    for out in ("a", "b"):
        assert cli("fit", "--target", "rings", "--n-draws", 300, "--out", out, *QUICK)[0] == 0
    a, b = (json.loads(Path(d, "metrics.json").read_text()) for d in "ab")
    for metrics in (a, b):
        metrics.pop("seconds")
        metrics["experts"]["rbig"].pop("seconds")
    assert a == b
    one, two = (Path(d, "model", "tensors.safetensors").read_bytes() for d in "ab")
    assert one == two


def test_json_is_all_there_is_on_stdout_and_quiet_is_quiet(command, csv_file):
    done = command("fit", "--draws", csv_file, "--json", "--quiet", *QUICK)
    assert done.returncode == 0
    assert json.loads(done.stdout)["name"] == "d"
    assert done.stderr == ""


def test_no_animation_off_a_terminal(finished):
    assert "\x1b" not in finished[1].stdout + finished[1].stderr
    assert "\r" not in finished[1].stderr


def test_timeout_finishes_with_what_there_is(cli):
    code, out, err = cli(
        "fit", "--target", "rings", "--timeout", 0.2, "--experts", "maf", "--folds", 2,
        "--no-figures", "--json", "--n-draws", 2000,
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["experts"]["maf"]["stopped_by"] == "timeout"
    assert "stopped by: timeout" in err


# Errors of the library, in its words and in those of the command line.
LIBRARY_ERRORS = [
    (("--target", "ring"), 2, "unknown target 'ring'; did you mean rings"),
    (("--target", "rings", "--experts", "maf,rbg"), 2, "unknown expert 'rbg'"),
    (("--target", "rings", "--experts", ""), 2, "no experts given"),
    ((), 2, "give --target, --draws, --log-density, or --draws and --log-density"),
    (("--target", "rings", "--draws", "d.csv"), 2, "give --target, --draws, --log-density, or"),
    (("--target", "rings", "--weight-rule", "bayes"), 2, "unknown --weight-rule 'bayes'"),
    (("--target", "rings", "--beta", "1.0"), 2, "--beta must be in [0, 1), found 1.0"),
    (("--target", "rings", "--seed", "-1"), 2, "--seed must be in"),
    (("--target", "rings", "--seed", str(2**64)), 2, "--seed must be in"),
    (("--target", "rings", "--n-draws", "3"), 2, "--n-draws must be at least 20, found 3"),
    (("--target", "rings", "--timeout", "0"), 2, "--timeout must be a positive number"),
    (("--target", "rings", "--folds", "0", "--out", "."), 2, "--folds must be in [1, 20]"),
    (("--target", "rings", "--device", "warp"), 2, "--device warp cannot be used"),
    (("--target", "rings", "--positive", "x1"), 2, "--positive or --bounds goes with draws"),
    (("--target", "rings", "--test-fraction", "0.1"), 2, "--test-fraction goes with given draws"),
    (("--target", "rings", "--chains"), 2, "--chains goes with --draws"),
    (("--target", "rings", "--nan-policy", "omit"), 2, "--nan-policy goes with --draws"),
    (("--target", "rings", "--max-evaluations", "9"), 2, "--max-evaluations goes with a log"),
    (("--target", "rings", "--max-refinements", "1"), 2, "--max-refinements goes with a log"),
    (("--target", "rings", "--dim", "2"), 2, "--dim goes with --log-density"),
    (("--target", "rings", "--jobs", "2"), 2, "--jobs goes with --log-density, --from density or"),
    (("--draws", "d.csv", "--jobs", "2"), 2, "--jobs goes with --log-density"),
    (("--target", "rings", "--beta", "0.5", "--weight-rule", "em"), 2, "--beta goes with ema"),
    (("--target", "funnel", "--log-density", "m:f"), 2, "give --target, --draws"),
    (("--draws", "d.csv", "--from", "density"), 2, "--from density goes with --target"),
    (("--draws", "d.csv", "--n-draws", "30"), 2, "--n-draws goes with a target, a log density or"),
    (("--draws", "d.csv", "--n-weight-draws", "9"), 2, "--n-weight-draws goes with exact draws"),
    (("--draws", "d.csv", "--positive", "sigma"), 2, "no parameter 'sigma' to constrain"),
    (("--draws", "d.csv", "--test-fraction", "0.9"), 2, "--test-fraction must be in [0, 0.5]"),
    (("--draws", "d.csv", "--nan-policy", "keep"), 2, "'raise' or 'omit'"),
    (("--draws", "d.csv", "--bounds", "mu=0:1"), 3, "not inside its bounds"),
    (("--draws", "nan.csv"), 3, "or leave them out with --nan-policy omit"),
    (("--draws", "deep.npy"), 3, "pass --chains"),
    (("--draws", "gone.csv"), 3, "gone.csv: no such file"),
    (("--draws", "."), 3, "is a directory"),
    (("--target", "rings", "--out", "."), 3, "is the working directory"),
    (("--target", "rings", "--out", "d.csv"), 3, "exists and is not a directory"),
    (("--target", "rings", "--out", "taken"), 3, "taken: exists; choose another directory, or rep"),
    (("--target", "rings", "--out", "taken"), 3, "or replace it with --force"),
    (("--target", "rings", "--out", "seed=1"), 3, "seed=1: exists; choose another"),
    (("--target", "rings", "--out", "taken", "--force"), 3, "not made by amfvi"),
    (("--target", "rings", "--out", "d.csv/x"), 3, "is not a directory"),
    (("--log-density", "m"), 2, "--log-density wants MODULE:FUNCTION"),
    (("--log-density", "math:lgamma"), 2, "--log-density of a function needs its number of"),
]

# Errors that only the command line can make.
COMMAND_LINE_ERRORS = [
    (("fit", "--draws", "d.csv", "--bounds", "tau"), 2, "--bounds wants NAME=LOW:HIGH, found"),
    (("fit", "--draws", "d.csv", "--bounds", "beta=x:1"), 2, "NAME=LOW:HIGH, found 'beta=x:1'"),
    (("fit", "--log-density", "m:f", "--box", "5"), 2, "--box wants LOW:HIGH or NAME=LOW:HIGH"),
    (("fit", "--log-density", "m:f", "--box", "a=5"), 2, "--box wants NAME=LOW:HIGH, found 'a=5'"),
    (("fit", "--target", "rings", "--sed", "9"), 2, "No such option: --sed"),
    (("fit", "--target", "rings", "--beta", "high"), 2, "Invalid value for '--beta'"),
    (("fly",), 2, "No such command"),
    (("summary", "taken"), 3, "not a run directory"),
    (("summary", "gone"), 3, "no such run directory"),
    (("evaluate", "gone"), 3, "no such run directory"),
    (("sample", "gone"), 3, "no such model or run directory"),
    (("sample", "gone", "--out", "s.txt"), 3, "unknown ending '.txt'"),
    (("sample", "gone", "--out", "d.csv"), 3, "d.csv: exists; choose another file, or replace it"),
    (("log-prob", "gone", "--points", "d.csv"), 3, "no such model or run directory"),
]

PYTHON_ARGUMENT = re.compile(rf"(?<![\w'])({'|'.join(FLAGS)})=(?!1: exists)")
"""An argument that has a flag; the directory of one case is called ``seed=1``."""


@pytest.fixture
def inputs(csv_file, tmp_path):
    """Input for errors of all kinds; returns a list of all paths."""
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("years of work")
    (tmp_path / "seed=1").mkdir()
    (tmp_path / "seed=1" / "thesis.tex").write_text("years of work")
    csv_file.with_name("nan.csv").write_text(csv_file.read_text() + "nan,1.0\n")
    np.save(tmp_path / "deep.npy", np.random.default_rng(0).normal(size=(4, 50, 2)))
    return lambda: sorted(str(p) for p in tmp_path.rglob("*"))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [(("fit", *rest), code, message) for rest, code, message in LIBRARY_ERRORS]
    + COMMAND_LINE_ERRORS,
)
def test_errors_are_one_line_with_their_code_and_write_nothing(
    cli, inputs, arguments, code, message
):
    before = inputs()
    found, out, err = cli(*arguments)
    assert found == code, err
    assert message in err
    assert err.startswith("amfvi: error: ")
    assert err.count("\n") == 1
    assert not PYTHON_ARGUMENT.search(err)
    assert out == ""
    assert inputs() == before


@pytest.mark.parametrize(("arguments", "code", "message"), LIBRARY_ERRORS)
def test_the_library_names_arguments_and_no_flags(cli, inputs, arguments, code, message):
    """The traceback ends with the message of the library, followed by the command line's."""
    *_, library, shown = cli("fit", *arguments, "--debug")[2].splitlines()
    assert library.startswith("amfvi.errors.")
    assert not re.search(r"--[a-z]", library)
    if message.startswith("--"):
        argument = message.split()[0].removeprefix("--").replace("-", "_")
        names = {"positive": "constraints", "from": "by_density"}
        assert f"{names.get(argument, argument)}=" in library
        assert library.partition(": ")[2] != shown.removeprefix("amfvi: error: ")


def test_points_that_do_not_fit_the_model(finished, cli, tmp_path):
    (tmp_path / "nan.csv").write_text("x1,x2\n0,1\n0,nan\n")
    (tmp_path / "wide.csv").write_text("x1,x2,x3\n0,1,2\n")
    code, _, err = cli("log-prob", finished[0], "--points", "nan.csv")
    assert (code, "1 points hold NaN or infinity, the first at row 1" in err) == (3, True)
    code, _, err = cli("log-prob", finished[0], "--points", "wide.csv")
    assert (code, "columns are x1, x2, x3, expected x1, x2" in err) == (3, True)


def test_a_fit_that_fails_has_its_own_code(cli, monkeypatch, tmp_path):
    from amfvi.errors import FitError
    from amfvi.experts import RBIG

    def broken(self, *_, **__):
        raise FitError("rbig: layer 3 broke")

    monkeypatch.setattr(RBIG, "fit_folds", broken)
    code, out, err = cli("fit", "--target", "rings", *QUICK, "--quiet")
    assert (code, out, err) == (4, "", "amfvi: error: rbig: layer 3 broke\n")
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_trace_and_keeps_the_exit_code(cli):
    code, _, err = cli("fit", "--target", "ring", "--debug")
    assert code == 2
    assert err.startswith("Traceback")
    code, _, err = cli("fly", "--debug")  # an error of the parser
    assert (code, err.startswith("Traceback")) == (2, True)


def test_numbers_are_never_cut_short_on_a_narrow_terminal(finished, cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    for arguments in (("summary", finished[0]), ("targets",), ("evaluate", finished[0])):
        code, out, _ = cli(*arguments)
        assert code == 0
        assert "…" not in out


def test_no_arguments_is_help_with_commands_and_exit_codes(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = cli()
    assert (code, err) == (0, "")
    for command in ("fit", "evaluate", "summary", "sample", "log-prob", "targets", "experts"):
        assert f"  {command} " in out
    assert "..." not in out.partition("\n\n")[2]  # every line is whole
    codes = out.partition("Exit codes:")[2]
    for exit_code in ExitCode:
        assert re.search(rf"\b{int(exit_code)} \w", codes)
    assert max(map(len, out.splitlines())) <= 80


def test_the_version_is_that_of_the_package(cli):
    from importlib.metadata import version

    assert cli("--version") == (0, f"amfvi {version('amfvi')}\n", "")


@pytest.mark.parametrize(
    "name", ["fit", "evaluate", "summary", "report", "compare", "sample", "calibrate", "log-prob"]
)
def test_help_fits_the_terminal_and_ends_with_an_example(cli, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "80")
    out = cli(name, "--help")[1]
    assert max(map(len, out.splitlines())) <= 80
    assert f"\n    amfvi {name} " in out.partition("Example")[2]
    for line in out.splitlines():
        assert not line.endswith("-")  # no flag is broken


def test_options_of_fit_stand_in_groups(cli):
    out = cli("fit", "--help")[1]
    groups = re.findall(r"^(\S.*):$", out, re.MULTILINE)
    assert groups[:2] == ["What to fit", "For a log density"]
    assert groups[-1] == "Other options"


def test_every_flag_that_a_message_can_name_is_an_option_of_fit(cli):
    _, out, _ = cli("fit", "--help")
    options = set(re.findall(r"--[a-z-]+", out))
    assert set(re.findall(r"--[a-z-]+", " ".join(FLAGS.values()))) <= options


def test_sample_and_log_prob_choose_the_same_device(cli):
    for command in ("sample", "log-prob", "fit"):
        text = " ".join(cli(command, "--help")[1].split())
        assert re.search(r"--device DEVICE [^\[]*\[default: auto\]", text)


@pytest.mark.parametrize(("name", "use"), [("config", "evaluate"), ("metrics", "summary")])
def test_a_damaged_run_is_named(finished, cli, tmp_path, name, use):
    shutil.copytree(finished[0], tmp_path / "run")
    for text, message in (("{}", "not a file of this version"), ("{", "not readable as JSON")):
        (tmp_path / "run" / f"{name}.json").write_text(text)
        code, _, err = cli(use, "run")
        assert code == 3
        assert err.startswith(f"amfvi: error: run/{name}.json: {message}")
        assert err.count("\n") == 1


def test_a_summary_without_scores_still_has_weights(cli, csv_file):
    assert cli("fit", "--draws", csv_file, "--test-fraction", 0, "--out", "r", *QUICK)[0] == 0
    code, out, _ = cli("summary", "r")
    assert code == 0
    assert "weights: rbig 1.000" in out


def test_force_replaces_a_run_and_nothing_else(cli, tmp_path):
    options = ("fit", "--target", "rings", "--n-draws", 300, "--out", "r", *QUICK)
    assert cli(*options)[0] == 0
    assert cli(*options)[0] == 3
    assert cli(*options, "--seed", 1, "--force")[0] == 0
    assert json.loads((tmp_path / "r" / "metrics.json").read_text())["seed"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_nothing_behind(tmp_path, sent, code):
    running = subprocess.Popen(
        [sys.executable, "-m", "amfvi", "fit", "--target", "rings", "--n-draws", "20000"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    # Logged when stage one begins.
    assert "2 parameters, 20000 draws in 5 folds" in running.stderr.readline()
    running.send_signal(sent)
    _, err = running.communicate(timeout=300)
    assert running.returncode == code
    assert err.splitlines()[-1] == "amfvi: error: interrupted; no run was written"
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_command_that_writes_no_run_says_so_in_a_word(finished, cli, monkeypatch):
    from amfvi.posterior import Posterior

    monkeypatch.setattr(Posterior, "sample", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    code, _, err = cli("sample", finished[0])
    assert (code, err) == (130, "amfvi: error: interrupted\n")


def test_a_disk_that_is_full_is_an_error_of_its_own(cli, monkeypatch, tmp_path):
    """While tensors are written, safetensors raises a class of its own."""
    from safetensors import SafetensorError

    def full(*_):
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    monkeypatch.setattr("amfvi.saving.save_file", full)
    code, out, err = cli("fit", "--target", "rings", "--n-draws", 300, "--quiet", *QUICK)
    assert (code, out) == (3, "")
    assert err.startswith("amfvi: error: ")
    assert "rings-0: cannot be written (Error while serializing: I/O error: No space" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
@pytest.mark.parametrize(
    "command",
    [["sample", "-n", "10"], pytest.param(["summary", "--json"], marks=pytest.mark.slow)],
)
def test_a_full_disk_behind_stdout_is_an_error_of_its_own(finished, command):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "amfvi", command[0], finished[0], *command[1:]],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 3
    assert re.fullmatch("amfvi: error: cannot be written .*No space left.*\n", done.stderr)


def test_a_closed_pipe_is_no_error(finished):
    done = subprocess.run(
        f"{sys.executable} -m amfvi sample {finished[0]} -n 100000 | head -n 1",
        shell=True, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "x1,x2\n"
    assert done.stderr == ""


@pytest.mark.parametrize("listing", ["targets", "experts"])
def test_listings(cli, listing):
    code, out, _ = cli(listing, "--json")
    rows = json.loads(out)
    assert code == 0
    assert {"targets": "two_moons", "experts": "realnvp"}[listing] in rows
    assert cli(listing)[0] == 0
