"""Pairs on the command line: fitted, sampled at a condition, calibrated, refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

import amfvi


@pytest.fixture
def pairs_file(tmp_path):
    random = np.random.default_rng(0)
    c = random.normal(size=(300, 2))
    y = np.exp(c[:, :1] + 0.3 * random.normal(size=(300, 1)))
    np.savetxt(
        tmp_path / "pairs.csv", np.column_stack([c, y]), delimiter=",", header="c1,c2,size",
        comments="",
    )  # fmt: skip
    return tmp_path / "pairs.csv"


def test_from_pairs_to_draws_at_a_condition(command, pairs_file, tmp_path):
    done = command(
        "fit", "--data", "pairs.csv", "--given", "c1,c2", "--positive", "size", "--experts",
        "gmm", "--folds", "2", "--out", "run", "--quiet",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["saved:   run", "report:  run/report.html"]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["n_fitted"], metrics["n_held_back"]) == (255, 45)
    assert metrics["given_names"] == ["c1", "c2"]
    assert list((tmp_path / "run" / "figures").glob("*.png"))
    done = command("sample", "run", "--given", "c1=1,c2=0", "-n", "2000", "--out", "draws.csv")
    assert done.returncode == 0, done.stderr
    draws = np.loadtxt(tmp_path / "draws.csv", delimiter=",", skiprows=1)
    assert np.median(draws) == pytest.approx(np.e, rel=0.15)
    assert (draws > 0).all()
    done = command("calibrate", "run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"] == metrics["calibration"]["verdict"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--given", "c1"), "--given names columns of a file of pairs: give --draws FILE"),
        (("--draws", "pairs.csv", "--given", "d"), "pairs.csv: no column 'd' (columns: c1, c2"),
        (("--draws", "pairs.csv", "--given", "c1,c2,size"), "all columns are given"),
        (("--draws", "pairs.csv", "--given", "c1", "--chains"), "--chains does not go with pairs"),
        (("--draws", "pairs.csv", "--given", "c1", "--experts", "rbig"), "no conditional form"),
        (("--target", "sinus", "--max-evaluations", "5"), "--max-evaluations does not go with"),
        (("--target", "sinus", "--from", "density"), "--from density does not go with pairs"),
    ],
)
def test_what_the_flags_of_pairs_cannot_be(cli, pairs_file, arguments, message):
    code, out, err = cli("fit", *arguments)
    assert code in (2, 4)
    assert message in err
    assert out == ""
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("file", ["nothing.csv", "."])
def test_pairs_in_no_file_are_refused(cli, file):
    code, out, err = cli("fit", "--data", file, "--given", "c1")
    assert (code, out) == (3, "")
    assert err.splitlines()[-1] == f"amfvi: error: {file}: no such file"


def test_summary_and_scores_of_a_run(cli, pairs_file, tmp_path):
    fitted = ("--experts", "gmm,tmm", "--folds", "2", "--quiet", "--no-figures", "--out", "run")
    assert cli("fit", "--draws", "pairs.csv", "--given", "c1,c2", *fitted)[0] == 0
    code, out, err = cli("summary", "run")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[:2] == ["p(size | c1, c2)", "pairs:   255 fitted, 45 held back"]
    assert lines[2].startswith("weights: gmm ")
    assert "config.json" in lines[3]
    assert "calibrated: " in lines[4]
    shown = json.loads(cli("summary", "run", "--json")[1])
    assert shown["metrics"]["n_fitted"] == 255
    scores = json.loads(cli("evaluate", "run", "--json")[1])
    model = amfvi.load(tmp_path / "run")
    with np.load(tmp_path / "run" / "held_back.npz") as pairs:
        log_q = model.log_prob(pairs["y"], given=pairs["given"])
    assert scores["mixture"]["nll"] == pytest.approx(-float(log_q.mean()))
    assert set(scores["experts"]) == {"gmm", "tmm"}
    assert "mixture " in cli("evaluate", "run")[1]
    metrics = tmp_path / "run" / "metrics.json"
    metrics.write_text(metrics.read_text().replace("255", "256"), encoding="utf-8")
    code, _, err = cli("summary", "run")
    assert code == 3
    assert "damaged or edited" in err


def test_a_condition_is_asked_for_and_only_there(cli, pairs_file, tmp_path):
    fitted = ("--experts", "gmm", "--folds", "2", "--quiet", "--no-figures")
    assert cli("fit", "--target", "sinus", "--n-draws", "200", "--out", "sinus", *fitted)[0] == 0
    code, _, err = cli("sample", "sinus")
    assert code == 3
    assert "a model of pairs, which needs a condition (--given)" in err
    assert "a run of pairs is scored on those" in cli("evaluate", "sinus", "--target", "sinus")[2]
    assert "a condition is of" in cli("sample", "sinus", "--given", "z=1")[2]
    assert "name=number" in cli("sample", "sinus", "--given", "1")[2]
    assert cli("fit", "--target", "bimodal", "--n-draws", "200", "--out", "draws", *fitted)[0] == 0
    assert "--given goes with a fit to pairs" in cli("sample", "draws", "--given", "c1=1")[2]
