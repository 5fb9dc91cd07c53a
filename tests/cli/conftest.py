"""What the tests of the command line share."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

MODEL = """
import math
import pathlib
import time
import torch
import amfvi

def log_prob(x):
    return -0.5 * ((x[:, 0] - 1) ** 2 + (x[:, 1] / 3) ** 2)

def gamma(x):  # in its second parameter
    return -0.5 * x[:, 0] ** 2 + 2 * x[:, 1].log() - x[:, 1]

def heavy(x):
    return -0.75 * torch.log1p(x[:, 0] ** 2)

def forgotten_minus(x):
    return 0.5 * x.square().sum(dim=1)

def raises(x):
    raise RuntimeError("the solver\\nfailed")

def raises_later(x):
    if len(x) > 3:
        raise RuntimeError("wrong with beta=0.5")
    return log_prob(x)

def nan(x):
    return x.sum(dim=1) * float("nan")

def wide(x):
    return x

def nowhere(x):
    return torch.full((len(x),), -math.inf)

def slow(x):
    time.sleep(0.1 * len(x))
    return -x.square().sum(dim=1)

def rather_slow(x):
    if pathlib.Path("slow").exists():
        time.sleep(3e-4 * len(x))
    return log_prob(x)

density = amfvi.LogDensity(log_prob, 2, names=["a", "b"])
number = 3
"""


N_W2 = 300
"""Draws in a W2 distance, fewer than by default: tests of the command line need no accuracy."""


@pytest.fixture(autouse=True)
def _few_draws_for_w2(monkeypatch):
    monkeypatch.setattr("amfvi.metrics.evaluation.N_W2", N_W2)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run of three experts with figures, and the process that made it."""
    folder = tmp_path_factory.mktemp("finished")
    program = (
        f"import amfvi.metrics.evaluation as evaluation\nevaluation.N_W2 = {N_W2}\n"
        "from amfvi.__main__ import main\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "fit", "--target", "banana", "--n-draws", "600",
         "--seed", "4"],
        cwd=folder, capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "XDG_CACHE_HOME": str(folder)},
    )  # fmt: skip
    return folder / "runs" / "banana-4", done


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A folder with ``mymodel.py``; what a test imports is forgotten after it."""
    (tmp_path / "mymodel.py").write_text(MODEL)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def csv_file(tmp_path):
    generator = np.random.default_rng(0)
    tau = generator.gamma(2, size=(400, 1))
    rows = np.column_stack([generator.normal(size=(400, 1)) * tau, tau])
    np.savetxt(tmp_path / "d.csv", rows, delimiter=",", header="mu,tau", comments="")
    return tmp_path / "d.csv"
