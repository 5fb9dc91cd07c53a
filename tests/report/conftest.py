"""One small run of each kind."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from amfvi.runs.conditional_run import ConditionalRun, run_conditional
from amfvi.runs.run import run
from amfvi.runs.settings import InputSettings, RunSettings
from amfvi.two_stage.options import FitOptions

MODEL = """
import torch

def normal(x):
    return -0.5 * x.square().sum(dim=1)

def two_modes(x):  # the given draws are of one of them
    return torch.logaddexp(normal(x), normal(x - 30))
"""

HOSTILE = '<img src="https://example.org/x.png" onerror=alert(1)>'
"""The name of a parameter."""


@pytest.fixture(scope="session")
def hostile():
    """The name of the first parameter of the run "draws"."""
    return HOSTILE


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A folder with a finished run of each kind, named by it."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "model.py").write_text(MODEL)
    random = np.random.default_rng(0)
    draws = random.normal(size=(400, 3))
    header = f'"{HOSTILE.replace(chr(34), chr(34) * 2)}",$b_1$,c'
    np.savetxt(folder / "draws.csv", draws, delimiter=",", header=header, comments="")
    np.save(folder / "draws.npy", draws)
    c = random.normal(size=(300, 1))
    pairs = np.column_stack([c, c + random.normal(size=(300, 2))])
    np.savetxt(folder / "pairs.csv", pairs, delimiter=",", header="c,<y>,z", comments="")
    options = FitOptions(experts="gmm", folds=2)
    small = FitOptions(experts="gmm", folds=2, n_draws=400, max_refinements=0)
    path, density = str(folder / "draws.npy"), f"{folder}/model.py:normal"
    before = list(sys.path)
    sources = {
        "draws": (InputSettings(draws=str(folder / "draws.csv")), options),
        "density": (InputSettings(log_density=density, dim=3), small),
        "both": (
            InputSettings(draws=path, log_density=density),
            FitOptions(experts="gmm", folds=2, max_refinements=0, max_evaluations=20_000),
        ),
        "untrusted": (
            InputSettings(draws=path, log_density=f"{folder}/model.py:two_modes"),
            FitOptions(experts="gmm", folds=2, max_evaluations=3000),
        ),
    }
    for kind, (source, chosen) in sources.items():
        figures = kind in ("draws", "density")
        run(RunSettings(input=source, options=chosen, out=str(folder / kind), figures=figures))
    run_conditional(
        ConditionalRun(
            data=str(folder / "pairs.csv"), given=("c",), options=options,
            out=str(folder / "pairs"),
        )
    )  # fmt: skip
    sys.path[:] = before
    return folder
