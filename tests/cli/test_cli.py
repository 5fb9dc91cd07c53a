"""The command line, as people and scripts use it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

QUICK = ("--experts", "rbig", "--no-figures")


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
    code, out, _ = cli("log-prob", run, "--points", "s.csv", "--device", "cpu")
    assert code == 0
    printed = np.loadtxt(out.splitlines(), skiprows=1)
    points = np.loadtxt(tmp_path / "s.csv", delimiter=",", skiprows=1)
    assert np.array_equal(printed, amfvi.load(run).log_prob(points).numpy())
    assert cli("log-prob", run, "--points", "s.csv", "--out", "l.npz", "--device", "cpu")[0] == 0
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
