"""The commands of the page on the command line run, in their order, on files as it describes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PAGE = (Path(__file__).parents[2] / "docs/how-to/command-line.md").read_text(encoding="utf-8")
QUICK = " --experts gmm --no-figures"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def write_draws(folder):
    """Draws of the log density of the page, and pairs of tau with two data."""
    rng = np.random.default_rng(0)
    tau = rng.gamma(3.0, size=2000)
    mu = tau * rng.normal(size=2000)
    np.savetxt(
        folder / "posterior.csv", np.c_[mu, tau], delimiter=",", header="mu,tau", comments=""
    )
    data = tau[:, None] * rng.lognormal(sigma=0.5, size=(2000, 2))
    np.savetxt(
        folder / "pairs.csv", np.c_[tau, data], delimiter=",", header="tau,c1,c2", comments=""
    )


@pytest.mark.slow
def test_the_commands_of_the_page_run(tmp_path):
    (tmp_path / "model.py").write_text(blocks("python")[0])
    write_draws(tmp_path)
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    # The last are other fits, with experts of their own, and take minutes.
    commands = [line for line in commands if "--target" not in line]
    assert len(commands) > 10
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    for line in commands:
        words = [sys.executable, "-m", *(line + QUICK * line.startswith("amfvi fit")).split()]
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (line, done.stderr)
    assert {"density", "draws", "judged", "pairs"} <= {
        p.name for p in (tmp_path / "runs").iterdir()
    }


def test_the_file_of_options_is_one(tmp_path):
    """Its keys are options, and its table an expert's settings."""
    (tmp_path / "fit.toml").write_text(blocks("toml")[0])
    done = subprocess.run(
        [sys.executable, "-m", "amfvi", "fit", "--config", "fit.toml"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, "posterior.csv: no such file" in done.stderr) == (3, True), done.stderr
