"""The benchmarks run from end to end, small, and resume what they have finished."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
import torch

from experiments.benchmarks import (
    canonical,
    from_density,
    many_parameters,
    pool,
    pyro_posteriors,
    race,
    race_density,
    real_posteriors,
    shards,
)

GMM = "gmm (scikit-learn)"


def table(page, first):
    """The entries of the table whose header starts so, by line."""
    lines = page.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    entries = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        entries.append([entry.strip() for entry in line.strip("|").split("|")])
    assert len({len(line) for line in entries}) == 1
    return entries[2:]


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def run_twice(benchmark, tmp_path, *arguments):
    """The page, after checking that a second run makes the same of the same cells."""
    options = [*map(str, arguments), "--folder", str(tmp_path / "cells"),
               "--results", str(tmp_path)]  # fmt: skip
    benchmark.main(options)
    cells = {path: path.stat().st_mtime_ns for path in tmp_path.glob("cells/**/*.json")}
    pages = {path: path.read_text(encoding="utf-8") for path in tmp_path.glob("*.md")}
    assert cells
    assert len(pages) == 1
    benchmark.main(options)
    assert cells == {path: path.stat().st_mtime_ns for path in tmp_path.glob("cells/**/*.json")}
    assert pages == {path: path.read_text(encoding="utf-8") for path in tmp_path.glob("*.md")}
    return next(iter(pages.values()))


@pytest.mark.slow
def test_race(tmp_path, monkeypatch):
    monkeypatch.setattr(race, "N_TEST", 2_000)
    monkeypatch.setattr(race, "N_SPEED", 1_000)
    page = run_twice(race, tmp_path, "--n-draws", 100, "--seeds", 1, "--targets", "banana",
                     "--methods", f"paper,{GMM}")  # fmt: skip
    rows = read_csv(tmp_path / "race-100.csv")
    assert [(row["seed"], row["method"]) for row in rows] == [("0", "paper"), ("0", GMM)]
    for row in rows:
        assert all(float(row[key]) > 0 for key in ("kl_se", "seconds", "points_per_second"))
        assert math.isfinite(float(row["kl"]))
    ((ours, target, median, best, ratio, _),) = table(page, "ours")
    assert (ours, target) == ("paper", "banana")
    kl = {m: np.mean([float(r["kl"]) for r in rows if r["method"] == m]) for m in ("paper", GMM)}
    assert float(median) == pytest.approx(kl["paper"], abs=1e-4)
    assert best == f"{kl[GMM]:.4f} ({GMM})"
    assert float(ratio) == pytest.approx(kl["paper"] / kl[GMM], abs=0.01)


def test_peers_cells_outlive_changes_of_amfvi(monkeypatch):
    peer, ours = race.provenance_of({"method": GMM}), race.provenance_of({"method": "paper"})
    assert peer.sources != ours.sources
    assert "scikit-learn" in peer.made_with
    assert "amfvi" not in peer.made_with
    assert race_density.provenance_of({"method": "amfvi"}).sources == ours.sources


def test_a_peer_that_is_not_installed_is_skipped_by_name(monkeypatch, capsys):
    monkeypatch.setattr(race, "missing_module", lambda name: "zuko" if "zuko" in name else None)
    methods = race.installed_methods(None)
    assert GMM in methods
    assert not [name for name in methods if "zuko" in name]
    assert "nsf (zuko) is skipped: zuko is not installed" in capsys.readouterr().err


@pytest.mark.slow
def test_from_density(tmp_path):
    page = run_twice(from_density, tmp_path, "--seeds", 1, "--targets", "bimodal",
                     "--experts", "gmm")  # fmt: skip
    (row,) = read_csv(tmp_path / "from-density.csv")
    assert abs(float(row["log_z_error"])) < 0.1
    assert float(row["kl"]) < 0.05
    assert int(row["n_evaluations"]) > 1000
    ((target, dim, experts, *_),) = table(page, "target | d | experts")
    assert (target, dim, experts) == ("bimodal", "2", "gmm")
    ((*_, verdict),) = table(page, "target | seed")
    assert verdict.startswith(row["verdict"])


@pytest.mark.slow
def test_race_density_without_its_peers(tmp_path):
    page = run_twice(race_density, tmp_path, "--seeds", 1, "--targets", "banana",
                     "--methods", "amfvi")  # fmt: skip
    ((target, dim, method, seconds, evaluations, errors, untrusted),) = table(page, "target")
    assert (target, dim, method, untrusted) == ("banana", "2", "amfvi", "0 of 1")
    assert float(errors.split(",")[0]) < 0.02
    assert int(evaluations) > 1000
    total, sampling = (float(part.strip("()")) for part in seconds.split())
    assert total > sampling


@pytest.mark.slow
def test_pool_without_its_peers(tmp_path):
    page = run_twice(pool, tmp_path, "--targets", "bent", "--methods", "amfvi", "--workers", "1,4",
                     "--cost", 0.001)  # fmt: skip
    one, four = table(page, "target")
    assert (one[:3], four[:3]) == (["bent", "amfvi", "1"], ["bent", "amfvi", "4"])
    assert one[3] == four[3]  # evaluations
    assert one[-1] == four[-1]  # log Z
    assert (one[6], float(four[6]) > 1) == ("1.0", True)


def test_real_posteriors_with_known_moments(tmp_path):
    generator = np.random.default_rng(0)
    tau = generator.gamma(4.0, size=600)
    rows = np.column_stack([generator.normal(size=600), tau])
    write_draws(tmp_path / "toy.csv", "mu,tau", rows)
    (tmp_path / "summary.json").write_text(json.dumps({"toy": moments("mu,tau", rows)}))
    real_posteriors.main([str(tmp_path), "--positive", "toy=tau", "--experts", "gmm",
                          "--results", str(tmp_path)])  # fmt: skip
    page = (tmp_path / "real-posteriors.md").read_text(encoding="utf-8")
    ((name, dim, ours, gaussian, *_),) = table(page, "posterior | d")
    assert (name, dim) == ("toy", "2")
    assert float(ours) < float(gaussian)  # a gamma is skewed
    ((_, mean_error, sd_error, outside),) = table(page, "posterior | worst mean")
    assert float(mean_error) < 0.3
    assert float(sd_error.rstrip("%")) < 30
    assert outside == "0"


def test_real_posteriors_that_are_gaussian(tmp_path):
    rows = np.random.default_rng(0).multivariate_normal([1, 2], [[1, 0.5], [0.5, 2]], size=600)
    write_draws(tmp_path / "toy.csv", "a,b", rows)
    real_posteriors.main([str(tmp_path), "--experts", "gmm", "--results", str(tmp_path)])
    page = (tmp_path / "real-posteriors.md").read_text(encoding="utf-8")
    ((_, _, ours, gaussian, *_),) = table(page, "posterior | d")
    assert abs(float(ours) - float(gaussian)) < 0.05
    assert "worst mean" not in page


@pytest.mark.filterwarnings("ignore:\\s*ArviZ is undergoing:FutureWarning")
@pytest.mark.slow
def test_pyro_posteriors_on_a_regression_of_ours(tmp_path):
    generator = np.random.default_rng(0)
    x = np.arange(30.0)
    data = {"N": 30, "x": x.tolist(), "y": (2 + 0.1 * x + generator.normal(size=30)).tolist(),
            "pmualpha": 0, "psalpha": 100, "pmubeta": 0, "psbeta": 10}  # fmt: skip
    (tmp_path / "data_kilpisjarvi_mod.json").write_text(json.dumps(data))
    rows = generator.multivariate_normal([2, 0.1, 1], np.diag([0.1, 1e-3, 0.02]), size=2500)
    write_draws(tmp_path / "kilpisjarvi.csv", "alpha,beta,sigma", rows)
    summary = {"kilpisjarvi": moments("alpha,beta,sigma", rows)}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    pyro_posteriors.main([str(tmp_path), "--seeds", "1", "--posteriors", "kilpisjarvi",
                          "--experts", "gmm", "--results", str(tmp_path)])  # fmt: skip
    page = (tmp_path / "pyro-posteriors.md").read_text(encoding="utf-8")
    ((name, seed, mean_error, *_, classifier, _, _, _, evaluations, _, _),) = table(
        page, "posterior"
    )
    assert (name, seed) == ("kilpisjarvi", "0")
    assert float(mean_error) < 3  # the moments above are rough
    assert 0 < float(classifier) <= 1
    assert int(evaluations) > 1000


def write_draws(path, header, rows):
    np.savetxt(path, rows, delimiter=",", header=header, comments="")


def moments(header, rows):
    columns = zip(header.split(","), rows.T, strict=True)
    return {name: {"mean": x.mean(), "sd": x.std()} for name, x in columns}


@pytest.mark.slow
def test_canonical(tmp_path):
    page = run_twice(canonical, tmp_path, "--n-draws", 100, "--seeds", 1)
    rows = read_csv(tmp_path / "canonical-100.csv")
    assert len(rows) == 6
    assert all(float(row["kl_se"]) > 0 and float(row["seconds"]) > 0 for row in rows)
    medians = table(page, "target | maf")
    assert [line[0] for line in medians] == list(canonical.CANONICAL)
    assert [line[4] for line in medians] == [f"**{float(row['kl']):.4f}**" for row in rows]
    for row in rows:
        weights = [float(row[f"{name}_weight"]) for name in canonical.TRIO]
        assert sum(weights) == pytest.approx(1)


def test_the_canonical_page_is_that_of_its_rows():
    """The published table of medians is made from the published rows."""
    from experiments.lab.pages import RESULTS

    rows = [
        {key: text if key in ("target", "never_worse") else float(text)
         for key, text in row.items()}
        for row in read_csv(RESULTS / "canonical-10000.csv")
    ]  # fmt: skip
    for row in rows:
        row["never_worse"] = row["never_worse"] == "True"
        row["seed"] = int(row["seed"])
    page = canonical.page(rows, 10_000, 5, "")
    published = (RESULTS / "canonical-10000.md").read_text(encoding="utf-8")
    for first in ("target | maf", "target | seed"):
        assert table(page, first) == table(published, first)


@pytest.mark.slow
def test_shards_are_compared_with_one_fit(tmp_path):
    pytest.importorskip("numpyro")
    page = run_twice(shards, tmp_path, "--seeds", 1, "--n-draws", 1600, "--n-data", 400)
    ways = [line[0] for line in table(page, "draws")] + [line[0] for line in table(page, "data")]
    assert ways == list(shards.WAYS)
    for row in read_csv(tmp_path / "shards.csv"):
        if row["mean_error"]:
            assert float(row["mean_error"]) < 0.3


def test_errors_with_many_parameters_are_from_the_right_moments():
    name, seed = "hierarchical model", many_parameters.REFERENCE_SEED
    density = many_parameters.DENSITIES[name]()
    mean, sd = density.mean_and_sd
    row = {"density": name, "method": "amfvi", "seed": 0, "calls": 1234, "seconds": 5.0,
           "mean": (mean + 0.1 * sd).tolist(), "sd": (1.05 * sd).tolist(),
           "log_z": density.log_z + 0.02, "log_z_se": 0.01, "verdict": "trust"}  # fmt: skip
    right = {"density": "logistic regression", "method": "NUTS", "calls": 9, "seconds": 1.0,
             "mean": [0.0] * 100, "sd": [1.0] * 100}  # fmt: skip
    near = {**right, "seed": 0, "mean": [0.0] * 99 + [-0.2]}
    rows = many_parameters.with_errors([{**right, "seed": seed}, near, row])
    assert [r["mean_error"] for r in rows] == pytest.approx([0.2, 0.1])
    assert [r["sd_error"] for r in rows] == pytest.approx([0.0, 0.05])
    assert rows[1]["log_z_error"] == pytest.approx(0.02)
    lines = table(many_parameters.page(rows, "", ""), "density")
    assert [line[5] for line in lines] == ["0.200", "0.100"]


@pytest.mark.parametrize("name", many_parameters.DENSITIES)
def test_densities_of_many_parameters_are_the_same_for_jax(name):
    jax = pytest.importorskip("jax")
    density = many_parameters.DENSITIES[name]()
    x = torch.rand(2, density.dim, generator=torch.Generator().manual_seed(0)).double()
    with jax.enable_x64(True):
        there = [float(density.jax_log_density(point.numpy())) for point in x]
    assert there == pytest.approx(density.log_density(x).tolist(), rel=1e-9)
