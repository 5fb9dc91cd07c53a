"""Errors of the command line: one line, a code, and nothing written."""

from __future__ import annotations

import re

import numpy as np
import pytest

from amfvi.cli.flags import FLAGS

QUICK = ("--experts", "rbig", "--no-figures")


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
