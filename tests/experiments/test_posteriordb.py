"""posteriordb as it lies on disk, errors by hand, and the pages that are made of them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from amfvi.errors import InputError
from experiments.benchmarks import evidence_from_draws, posteriordb
from experiments.lab.cells import Cell, CellStore
from experiments.lab.posteriordb import compare_with_reference, list_posteriors, read_posterior

PROGRAM = "parameters { real mu; } model { mu ~ normal(0, 1); }"


@pytest.fixture
def database(tmp_path):
    """Two posteriors, one without reference draws, in posteriordb's layout."""
    root = tmp_path / "posterior_database"
    for folder in ("posteriors", "models/stan", "data/data", "reference_posteriors/draws/draws"):
        (root / folder).mkdir(parents=True)
    for name, reference in (("a-one", "a-one"), ("b-two", None)):
        described = {
            "name": name, "model_name": "one", "data_name": "a",
            "reference_posterior_name": reference, "dimensions": {"mu": 1},
        }  # fmt: skip
        (root / "posteriors" / f"{name}.json").write_text(json.dumps(described))
    (root / "models/stan/one.stan").write_text(PROGRAM)
    with zipfile.ZipFile(root / "data/data/a.json.zip", "w") as packed:
        packed.writestr("a.json", json.dumps({"n": 3}))
    with zipfile.ZipFile(root / "reference_posteriors/draws/draws/a-one.json.zip", "w") as packed:
        packed.writestr("a-one.json", json.dumps([{"mu": [0.0, 1.0]}, {"mu": [2.0, 3.0]}]))
    return tmp_path


def test_posteriors_with_reference_draws_are_read(database):
    assert list_posteriors(database) == ["a-one"]
    posterior = read_posterior(database, "a-one")
    assert (posterior.code, posterior.data) == (PROGRAM, {"n": 3})
    assert posterior.chains["mu"].shape == (2, 2)
    assert posterior.draws["mu"].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_what_is_missing_is_named(database, tmp_path):
    (database / "posterior_database/data/data/a.json.zip").unlink()
    with pytest.raises(InputError, match=r"a\.json: no such file, nor a\.json\.zip"):
        read_posterior(database, "a-one")
    with pytest.raises(InputError, match="holds no posterior_database"):
        list_posteriors(tmp_path / "posterior_database")


def test_errors_are_in_units_of_the_reference():
    random = np.random.default_rng(0)
    reference = {"mu": 2 * random.normal(size=20_000), "tau": random.normal(size=20_000)}
    shifted = {"mu": reference["mu"] + 0.6, "tau": 1.2 * reference["tau"], "more": np.zeros(3)}
    errors = compare_with_reference(shifted, reference)
    assert errors["mean_error"] == pytest.approx(0.3, abs=0.01)
    assert errors["sd_error"] == pytest.approx(0.2, abs=0.01)
    assert errors["quantile_error"] == pytest.approx(0.33, abs=0.03)
    with pytest.raises(InputError, match="no draws of tau"):
        compare_with_reference({"mu": reference["mu"]}, reference)


def test_the_page_counts_what_is_trusted_and_wrong():
    common = {"dim": 3, "seed": 0, "quantile_error": 0.1, "log_z": 1.0, "log_z_se": 0.01,
              "calls": 9, "ess": 5.0, "cpu_seconds": 1.0, "seconds": 2.0}  # fmt: skip
    rows = [
        {"posterior": "a", "method": "default", "verdict": "trust", "mean_error": 0.05,
         "sd_error": 0.05, **common},
        {"posterior": "b", "method": "default", "verdict": "use with importance weights",
         "mean_error": 0.2, "sd_error": 0.05, **common},
        {"posterior": "c", "method": "default", "verdict": "do not trust", "mean_error": 0.2,
         "sd_error": 0.05, **common},
        {"posterior": "a", "method": "nuts", "verdict": "none", "mean_error": 0.05,
         "sd_error": 0.05, **common | {"log_z": None, "log_z_se": None}},
        {"posterior": "d", "method": "given draws", "dim": 2, "seed": 0, "verdict": "none"},
        {"posterior": "a", "method": "advi mean-field", "verdict": "none", "mean_error": 0.05,
         "sd_error": 0.5, **common | {"log_z": None, "log_z_se": None, "ess": None}},
    ]  # fmt: skip
    page = posteriordb.page(rows, "command", "made")
    assert "| default experts | 3 | 3 | 2 | 1 | 1 | 1 |" in page
    assert "| NUTS | 1 | 1 |  |  |  | 1 |" in page
    assert "| ADVI, mean-field | 1 | 1 |  |  |  | 0 |" in page


def test_the_page_of_evidences_counts_those_that_are_right():
    common = {"posterior": "a", "dim": 2, "seed": 0, "n_draws": 4000, "ess": 900.0, "seconds": 3.0,
              "given_verdict": "trust", "given_evaluations": 5, "sampled_error": 0.0,
              "sampled_se": 0.1, "sampled_verdict": "trust", "sampled_evaluations": 7}  # fmt: skip
    rows = [
        common | {"taken_error": 0.004, "taken_se": 0.002},
        common | {"taken_error": 0.004, "taken_se": 0.001},  # four standard errors
        common | {"taken_error": 0.08, "taken_se": 0.1},
    ]
    page = evidence_from_draws.page(rows, "command", "made")
    assert "1 of 3\nare within" in page


def test_methods_are_known_and_skipped_by_name_without_their_library(monkeypatch, capsys):
    monkeypatch.setattr(posteriordb, "missing_module", lambda: "blackjax")
    assert posteriordb.installed_methods("default,pathfinder,advi,nuts") == ["default", "nuts"]
    assert "pathfinder is skipped: blackjax is not installed" in capsys.readouterr().err
    monkeypatch.setattr(posteriordb, "missing_module", lambda: None)
    assert posteriordb.installed_methods("pathfinder,advi") == ["pathfinder", "advi"]
    with pytest.raises(SystemExit, match="no 'vi', expected some of default, robust"):
        posteriordb.installed_methods("default,vi")


def finished(method, commit):
    return Cell(
        parameters={"posterior": "a-one", "method": method, "seed": 0},
        rows=[{"verdict": "none", "reason": "a test", "dim": 1}], seconds=1.0,
        made_with="amfvi 0", code=commit * 2, commit=f"commit {commit}", files=Path(),
    )  # fmt: skip


def test_the_page_names_its_command_and_what_made_each_method(database, tmp_path, capsys):
    store = CellStore(folder=tmp_path / "runs", experiment="posteriordb")
    for method, commit in (("nuts", "aaaa"), ("default", "aaaa"), ("given draws", "bbbb")):
        store.add(finished(method, commit), "other")
    posteriordb.main([
        str(database), "--seeds", "1", "--methods", "default,given draws,nuts", "--any-version",
        "--folder", str(tmp_path / "runs"), "--results", str(tmp_path),
    ])  # fmt: skip
    page = (tmp_path / "posteriordb.md").read_text(encoding="utf-8")
    assert "FOLDER --seeds 1 --methods 'default,given draws,nuts' --any-version`" in page
    assert "default experts, NUTS: Made with amfvi 0, by commit aaaa" in page
    assert "given draws: Made with amfvi 0, by commit bbbb" in page
    assert "--only" not in page
