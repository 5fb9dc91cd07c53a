"""Reports and comparisons on the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest


def test_a_fit_writes_its_report_and_names_it(finished):
    run, done = finished
    assert done.stdout.splitlines()[-1] == f"report:  runs/{run.name}/report.html"
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "amfvi fit --target banana --n-draws 600 --seed 4" in text


def test_a_report_is_made_again_and_its_path_printed(finished, cli):
    run, _ = finished
    before = (run / "report.html").read_text(encoding="utf-8")
    (run / "report.html").unlink()
    assert cli("report", run) == (0, f"{run}/report.html\n", "")
    again = (run / "report.html").read_text(encoding="utf-8")
    assert again.replace(str(run), f"runs/{run.name}") == before


def test_an_error_in_the_report_does_not_lose_the_fit(cli, monkeypatch, tmp_path):
    np.save(tmp_path / "draws.npy", np.random.default_rng(0).normal(size=(200, 2)))

    def broken(_):
        raise RuntimeError("no template")

    monkeypatch.setattr("amfvi.report.page.render_report", broken)
    code, out, err = cli(
        "fit", "--draws", "draws.npy", "--experts", "gmm", "--folds", 2, "--out", "run", "--quiet",
        "--no-figures",
    )  # fmt: skip
    assert (code, err) == (0, "warning: no report was written: no template\n")
    assert out.splitlines()[-1] == "saved:   run"
    assert (tmp_path / "run" / "metrics.json").is_file()


def test_runs_are_compared_as_a_table_a_page_and_json(finished, cli, tmp_path):
    run, _ = finished
    code, out, err = cli("compare", run, run, "--html", "both.html")
    assert (code, err) == (0, "")
    assert "mean of x1, in sd" in out
    assert (tmp_path / "both.html").read_text(encoding="utf-8").count("<h1>") == 1
    code, _, err = cli("compare", run, run, "--html", "both.html")
    assert (code, "exists" in err) == (3, True)
    found = json.loads(cli("compare", run, run, "--json")[1])
    assert found["runs"][1]["mean_shift_in_sd"] == {"x1": 0.0, "x2": 0.0}
    assert found["runs"][0]["mixture"]["kl"] > 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("report", "nothing"), 3, "nothing: no such run directory"),
        (("compare", "nothing"), 2, "compare needs two runs or more, found 1"),
        (("compare", "a", "b"), 3, "a: no such run directory"),
    ],
)
def test_what_cannot_be_reported(cli, arguments, code, message):
    found, out, err = cli(*arguments)
    assert (found, out, err) == (code, "", f"amfvi: error: {message}\n")
