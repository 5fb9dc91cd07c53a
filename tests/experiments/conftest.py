"""The checkout on the path: experiments are not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]

if str(CHECKOUT) not in sys.path:
    sys.path.append(str(CHECKOUT))  # at the end: an installed amfvi comes first


@pytest.fixture(scope="session")
def fits(tmp_path_factory):
    """A folder of cells and fits that the tests of a session share."""
    return tmp_path_factory.mktemp("cells")


@pytest.fixture
def small_metrics(monkeypatch):
    """W2 and MMD² of few draws, which is quick."""
    monkeypatch.setattr("amfvi.metrics.evaluation.N_W2", 200)


@pytest.fixture
def start():
    """start(module, *arguments, cwd=…): a module of the checkout in a process of its own."""

    def popen(module, *arguments, cwd):
        path = os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")])
        return subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=cwd, env={**os.environ, "PYTHONPATH": path}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    return popen
