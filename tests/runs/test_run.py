"""Runs: what the sampler's state belongs to, and what is kept of a run that fails."""

from __future__ import annotations

import dataclasses

import pytest

from amfvi.errors import FitError, InputError
from amfvi.reporting import Reporter
from amfvi.runs import run as run_module
from amfvi.runs.input import load_input
from amfvi.runs.log import RunLog
from amfvi.runs.run import run
from amfvi.runs.settings import InputSettings, RunSettings
from amfvi.two_stage.options import FitOptions

MODEL = """
import pathlib
import numpy
here = pathlib.Path.cwd()
center = float((here / "data.txt").read_text())

def log_prob(x):
    with (here / "count.txt").open("a") as count:
        count.write("." * len(x))
    return -0.5 * (x - center).square().sum(dim=1)
"""

OPTIONS = FitOptions(experts="gmm", folds=2, n_draws=500, max_refinements=0)


class Recorder(Reporter):
    """Keeps warnings."""

    def __init__(self):
        self.warnings = []

    def warn(self, line):
        self.warnings.append(line)


@pytest.fixture
def settings(folder):
    (folder / "model.py").write_text(MODEL)
    (folder / "data.txt").write_text("1.0")
    source = InputSettings(log_density="model.py:log_prob", dim=2)
    return RunSettings(input=source, options=OPTIONS, figures=False)


def fail_to_write(monkeypatch, settings):
    """Let the run fail after sampling, and return the exception."""

    def broken(*_):
        raise FitError("stage two broke")

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "_write", broken)
        with pytest.raises(FitError) as raised:
            run(settings)
    return raised.value


def n_evaluations(folder):
    n = len((folder / "count.txt").read_text())
    (folder / "count.txt").write_text("")
    return n


def test_the_state_of_the_sampler_is_for_the_same_data_alone(folder, settings, monkeypatch):
    error = fail_to_write(monkeypatch, settings)
    assert error.__notes__ == [
        "the sampler's state is kept in runs/.model-0.sampler; the same command resumes it"
    ]
    assert [p.name for p in (folder / "runs").iterdir()] == [".model-0.sampler"]
    whole = n_evaluations(folder)

    (folder / "data.txt").write_text("2.0")
    other = Recorder()
    fail_to_write(monkeypatch, settings)
    n_evaluations(folder)
    (folder / "data.txt").write_text("1.0")
    run(settings, reporter=other)
    assert any("of another density or other settings" in line for line in other.warnings)
    assert n_evaluations(folder) > 0.9 * whole

    again = dataclasses.replace(settings, force=True)
    fail_to_write(monkeypatch, again)
    n_evaluations(folder)
    same = Recorder()
    metrics = run(again, reporter=same)
    assert same.warnings == metrics["warnings"] == []
    assert n_evaluations(folder) < 0.8 * whole
    assert metrics["density"]["n_evaluations"] > 0.9 * whole  # counts those of before
    assert [p.name for p in (folder / "runs").iterdir()] == ["model-0"]


@pytest.mark.parametrize(
    "change",
    [
        {"experts": "rbig"}, {"weight_rule": "em"}, {"beta": 0.5}, {"n_draws": 600},
        {"folds": 3}, {"test_fraction": 0.2}, {"max_evaluations": 10_000}, {"timeout": 60.0},
        {"max_refinements": 1}, {"seed": 1}, {"device": "cuda"},
    ],
)  # fmt: skip
def test_every_option_belongs_to_the_state_of_the_sampler(settings, change):
    run_input = load_input(settings.input, RunLog(Reporter()))
    before = run_module._fingerprint(settings, run_input)
    options = dataclasses.replace(settings.options, **change)
    changed = dataclasses.replace(settings, options=options)
    assert run_module._fingerprint(changed, run_input) != before
    moved = dataclasses.replace(settings, out="elsewhere", force=True, figures=True)
    assert run_module._fingerprint(moved, run_input) == before


def test_an_interrupt_says_that_no_run_was_written(folder, monkeypatch):
    settings = RunSettings(
        input=InputSettings(target="rings"), options=FitOptions(experts="gmm", n_draws=300)
    )

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "fit_source", interrupted)
    with pytest.raises(KeyboardInterrupt) as raised:
        run(settings)
    assert raised.value.__notes__ == ["no run was written"]
    assert list(folder.iterdir()) == []


def test_a_run_lands_where_it_was_started(folder, settings):
    """Whatever the user's module does to the working directory and to numpy."""
    with (folder / "model.py").open("a") as file:
        file.write("import os\nos.mkdir('cwd')\nos.chdir('cwd')\nnumpy.seterr(all='raise')\n")
    metrics = run(dataclasses.replace(settings, figures=True))
    assert metrics["density"]["verdict"] == "trust"
    assert (folder / "runs" / "model-0" / "config.json").is_file()
    assert list((folder / "cwd").iterdir()) == []


def test_an_existing_run_is_refused_before_the_users_module_is_imported(folder, settings):
    (folder / "runs" / "model-0").mkdir(parents=True)
    (folder / "runs" / "model-0" / "config.json").touch()
    (folder / "data.txt").unlink()
    with pytest.raises(InputError, match="exists; choose another directory"):
        run(settings)
