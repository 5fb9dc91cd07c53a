"""The experiment scripts run from end to end, small, and resume what they have finished."""

from __future__ import annotations

import csv
import importlib
import json
import math
import os
import re
import runpy
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from amfvi.mixture import Mixture

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def run(script, *arguments, cwd):
    done = subprocess.run(
        [sys.executable, EXPERIMENTS / f"{script}.py", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, check=False, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def test_throughput(tmp_path, fitted):
    experts = {kind: fitted(kind, 2)[0] for kind in ("maf", "rbig")}
    Mixture(experts, [0.5, 0.5]).save(tmp_path / "model")
    out = run("throughput", "model", "--points", 3000, cwd=tmp_path).stdout
    for name in ("maf", "rbig", "mixture", "peak memory"):
        assert name in out


def test_reference_posteriors(tmp_path):
    generator = np.random.default_rng(0)
    tau = generator.gamma(4.0, size=600)
    rows = np.column_stack([generator.normal(size=600), tau])
    np.savetxt(tmp_path / "toy.csv", rows, delimiter=",", header="mu,tau", comments="")
    named = zip(("mu", "tau"), rows.T, strict=True)
    moments = {name: {"mean": c.mean(), "sd": c.std()} for name, c in named}
    (tmp_path / "summary.json").write_text(json.dumps({"toy": moments}))
    out = run("reference_posteriors", tmp_path, "--positive", "toy=tau", cwd=tmp_path).stdout
    cells = [cell.strip() for cell in out.splitlines()[-1].strip("|").split("|")]
    assert cells[0] == "toy"
    assert float(cells[2]) < 0.3
    assert cells[7] == "0"


def test_real_posteriors(tmp_path):
    rows = np.random.default_rng(0).multivariate_normal([1, 2], [[1, 0.5], [0.5, 2]], size=600)
    np.savetxt(tmp_path / "toy.csv", rows, delimiter=",", header="a,b", comments="")
    out = run("real_posteriors", tmp_path, "--experts", "gmm", cwd=tmp_path).stdout
    cells = [cell.strip() for cell in out.splitlines()[-1].strip("|").split("|")]
    assert cells[:2] == ["toy", "2"]
    assert abs(float(cells[2]) - float(cells[3])) < 0.05  # a Gaussian is what it is


def test_frozen_speed(tmp_path):
    out = run("frozen_speed", "--points", 2000, cwd=tmp_path).stdout
    for name in ("| amfvi |", "| nflows, same weights |", "sum of its experts"):
        assert name in out


def test_race_resumes_finished_cells(tmp_path):
    options = (
        "--n-draws", 100, "--seeds", 1, "--targets", "banana", "--folder", "cells",
        "--methods", "paper,gmm (scikit-learn)", "--results", "results",
    )  # fmt: skip
    run("race", *options, cwd=tmp_path)
    (first,) = (tmp_path / "cells").glob("*paper.npz")
    made = first.stat().st_mtime_ns
    page = (tmp_path / "results" / "race-100.md").read_text()
    assert "| paper | banana |" in page
    run("race", *options, cwd=tmp_path)
    assert first.stat().st_mtime_ns == made
    assert (tmp_path / "results" / "race-100.md").read_text() == page


def test_from_density_resumes_finished_cells(tmp_path):
    options = (
        "--seeds", 1, "--targets", "bimodal", "--experts", "gmm", "--folder", "cells",
        "--results", "results",
    )  # fmt: skip
    run("from_density", *options, cwd=tmp_path)
    metrics = tmp_path / "cells" / "bimodal-0" / "metrics.json"
    made, page = metrics.stat().st_mtime_ns, tmp_path / "results" / "from-density.md"
    first = page.read_text()
    assert "| bimodal | 2 | gmm |" in first
    run("from_density", *options, cwd=tmp_path)
    assert (metrics.stat().st_mtime_ns, page.read_text()) == (made, first)


def test_race_density_without_its_peers(tmp_path):
    options = ("--seeds", 1, "--targets", "banana", "--methods", "amfvi", "--results", "results")
    out = run("race_density", *options, cwd=tmp_path).stdout
    cells = [cell.strip() for cell in out.strip().splitlines()[-1].strip("|").split("|")]
    assert cells[:3] == ["banana", "2", "amfvi"]
    assert float(cells[5].split(",")[0]) < 0.02


def test_pyro_posteriors_on_a_regression_of_ours(tmp_path):
    random = np.random.default_rng(0)
    x = np.arange(30.0)
    data = {"N": 30, "x": x.tolist(), "y": (2 + 0.1 * x + random.normal(size=30)).tolist(),
            "pmualpha": 0, "psalpha": 100, "pmubeta": 0, "psbeta": 10}  # fmt: skip
    (tmp_path / "data_kilpisjarvi_mod.json").write_text(json.dumps(data))
    rows = random.multivariate_normal([2, 0.1, 1], np.diag([0.1, 1e-3, 0.02]), size=2500)
    header = "alpha,beta,sigma"
    np.savetxt(tmp_path / "kilpisjarvi.csv", rows, delimiter=",", header=header, comments="")
    moments = {
        n: {"mean": c.mean(), "sd": c.std()} for n, c in zip(header.split(","), rows.T, strict=True)
    }
    (tmp_path / "summary.json").write_text(json.dumps({"kilpisjarvi": moments}))
    out = run("pyro_posteriors", tmp_path, "--seeds", 1, "--posteriors", "kilpisjarvi",
              "--experts", "gmm", "--results", tmp_path, cwd=tmp_path).stdout  # fmt: skip
    cells = [cell.strip() for cell in out.strip().splitlines()[-1].strip("|").split("|")]
    assert cells[0] == "kilpisjarvi"
    assert float(cells[2]) < 3  # the moments above are rough


STUDIES = runpy.run_path(str(EXPERIMENTS / "index.py"))["STUDIES"]


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_ends_in_a_page(name, tmp_path):
    run(name, "--tiny", "--seeds", 1, "--results", "results", cwd=tmp_path)
    page = (tmp_path / "results" / f"{name}.md").read_text()
    title, answer, figure = page.split("\n\n")[:3]
    assert title.startswith("# ")
    assert title.endswith("?")
    assert re.match(r"\*\*[^*]+\.\*\* \S", answer)
    assert answer.endswith(".")
    assert figure == f"![{name}]({name}.png)"
    assert not re.search(r"\bnan\b", answer)
    assert answer.split("**")[1] in (tmp_path / "results" / "index.md").read_text()
    assert (tmp_path / "results" / f"{name}.png").stat().st_size > 5_000
    with (tmp_path / "results" / f"{name}.csv").open() as file:
        assert all(row["seed"] == "0" for row in csv.DictReader(file))


def on_a_grid(target, half, cells):
    """The integral of a density over a square around the origin, and its entropy there."""
    step = 2 * half / cells
    centres = -half + step * (torch.arange(cells).double() + 0.5)
    log_p = target.log_prob(torch.cartesian_prod(centres, centres))
    p = log_p.exp() * step**2
    return float(p.sum()), -float(torch.nan_to_num(p * log_p, nan=0.0).sum())


@pytest.mark.parametrize(
    ("name", "half"),
    [("student_t_banana", 40.0), ("eight_gaussians", 5.0), ("checkerboard", 2.5), ("spiral", 4.0),
     ("three_gaussians", 10.0), ("long_banana", 15.0), ("deep_funnel", 12.0)],
)  # fmt: skip
def test_a_target_of_the_studies_is_exact(name, half, monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    shapes, scalable = importlib.import_module("shapes"), importlib.import_module("scalable")
    target = shapes.SHAPES[name]() if name in shapes.SHAPES else scalable.SCALABLE[name](2)
    mass, entropy = on_a_grid(target, half, cells=200 if name == "spiral" else 500)
    assert mass == pytest.approx(1, abs=2e-3)
    for seed in range(3):
        log_p = target.log_prob(target.sample(10_000, torch.Generator().manual_seed(seed)))
        assert -float(log_p.mean()) == pytest.approx(
            entropy, abs=4 * float(log_p.std()) / 10_000**0.5 + 5e-3
        )


@pytest.mark.parametrize("dim", [3, 10])
def test_a_target_of_any_dimension_has_the_entropy_it_draws(dim, monkeypatch):
    """Closed forms: each pair of a banana adds ½ log 2 to d normals, a funnel nothing."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    scalable = importlib.import_module("scalable").SCALABLE
    normal = 0.5 * dim * (1 + math.log(2 * math.pi))
    for name, entropy in (
        ("long_banana", normal + 0.5 * (dim // 2) * math.log(2)), ("deep_funnel", normal)
    ):  # fmt: skip
        target = scalable[name](dim)
        log_p = target.log_prob(target.sample(50_000, torch.Generator().manual_seed(0)))
        assert -float(log_p.mean()) == pytest.approx(
            entropy, abs=4 * float(log_p.std()) / 50_000**0.5
        )


def test_a_study_that_was_killed_ends_with_the_same_page(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    options = ("--tiny", "--seeds", "3", "--folder", "cells", "--results", "results")
    run("weights", *options, cwd=whole)
    cells = cut / "cells" / "weights"
    with subprocess.Popen(
        [sys.executable, EXPERIMENTS / "weights.py", *options],
        cwd=cut, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        while not list(cells.glob("*.json")) and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    done = {path.name: path.stat().st_mtime_ns for path in cells.glob("*.json")}
    assert 1 <= len(done) < 3
    run("weights", *options, cwd=cut)
    assert all((cells / name).stat().st_mtime_ns == when for name, when in done.items())
    pages = [(folder / "results" / "weights.md").read_text() for folder in (whole, cut)]
    assert pages[0] == pages[1]


@pytest.mark.slow
def test_canonical_resumes_finished_cells(tmp_path):
    options = ("--n-draws", 100, "--seeds", 1, "--folder", "cells", "--results", "results")
    run("canonical", *options, cwd=tmp_path)
    first = (tmp_path / "results" / "canonical-100.md").read_text()
    untouched = (tmp_path / "cells" / "banana-0" / "metrics.json").stat().st_mtime_ns
    run("canonical", *options, cwd=tmp_path)
    assert (tmp_path / "results" / "canonical-100.md").read_text() == first
    assert (tmp_path / "cells" / "banana-0" / "metrics.json").stat().st_mtime_ns == untouched
    with (tmp_path / "results" / "canonical-100.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 6
