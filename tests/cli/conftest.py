"""What the tests of the command line share."""

from __future__ import annotations

import sys

import pytest

MODEL = """
import math
import time
import torch
import amfvi

def log_prob(x):
    return -0.5 * ((x[:, 0] - 1) ** 2 + (x[:, 1] / 3) ** 2)

def gamma(x):  # in its second parameter
    return -0.5 * x[:, 0] ** 2 + 2 * x[:, 1].log() - x[:, 1]

def heavy(x):
    return -0.75 * torch.log1p(x[:, 0] ** 2)

def raises(x):
    raise RuntimeError("the solver\\nfailed with beta=0.5")

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
    time.sleep(3e-4 * len(x))
    return log_prob(x)

def chatty(x):
    print("evaluating", len(x))
    return log_prob(x)

density = amfvi.LogDensity(log_prob, 2, names=["a", "b"])
number = 3
"""


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
