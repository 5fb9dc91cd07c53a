"""``amfvi.fit``: every kind of input, and every option checked before any work."""

from __future__ import annotations

import inspect
import json
import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

import amfvi
from amfvi.arguments import DRAWS_SETTINGS
from amfvi.density.log_density import LogDensity
from amfvi.errors import AmfviWarning, InputError, UsageError
from amfvi.experts import GMM
from amfvi.sources import kind_of
from amfvi.targets import EightSchools, get
from amfvi.two_stage.options import FitOptions, InputKind

QUICK = {"experts": [GMM(max_components=1)], "folds": 2, "seed": 0}
ROWS = np.random.default_rng(0).normal(size=(300, 2))


@pytest.fixture(params=["csv", "npy", "npz"])
def file_of_draws(request, tmp_path):
    path = tmp_path / f"draws.{request.param}"
    if request.param == "csv":
        lines = [",".join(map(repr, row)) for row in ROWS.tolist()]
        path.write_text("\n".join(["mu,tau", *lines]))
    elif request.param == "npy":
        np.save(path, ROWS)
    else:
        np.savez(path, draws=ROWS)
    return path


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_of_draws_is_fitted_by_its_path(kind, file_of_draws):
    """A path was taken for the name of a target, or refused."""
    posterior = amfvi.fit(kind(file_of_draws), **QUICK)
    expected = amfvi.fit(ROWS, **QUICK)
    assert torch.allclose(posterior.log_prob(ROWS), expected.log_prob(ROWS))
    assert posterior.names == (("mu", "tau") if file_of_draws.suffix == ".csv" else ("x1", "x2"))


def test_a_file_is_read_with_the_settings_of_draws(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = ROWS.copy()
    rows[7, 1] = math.nan
    rows[:, 0] = np.abs(rows[:, 0])
    np.save("draws.npy", rows)
    settings = {"names": ["tau", "mu"], "constraints": {"tau": (0, None)}, "nan_policy": "omit"}
    posterior = amfvi.fit("draws.npy", **settings, **QUICK)
    assert posterior.names == ("tau", "mu")
    assert posterior.log_prob([[-1.0, 0.0]]).tolist() == [-math.inf]
    with pytest.raises(InputError, match=r"draws\.npy.*NaN|NaN.*nan_policy"):
        amfvi.fit("draws.npy", **QUICK)
    with pytest.raises(InputError, match=r"missing\.csv"):
        amfvi.fit("missing.csv", **QUICK)


def test_a_string_that_is_neither_target_nor_file_names_the_nearest_target():
    with pytest.raises(UsageError, match="did you mean banana"):
        amfvi.fit("bananna")


def test_a_target_is_fitted_by_name_and_as_an_object():
    by_name = amfvi.fit("bimodal", n_draws=200, **QUICK)
    as_object = amfvi.fit(get("bimodal"), n_draws=200, **QUICK)
    x = by_name.summary.split.draws
    assert torch.equal(x, as_object.summary.split.draws)
    assert torch.equal(by_name.log_prob(x), as_object.log_prob(x))
    assert by_name.diagnostics is None


def test_a_target_without_exact_draws_says_how_to_fit_it():
    """It failed with an AttributeError of the target."""
    for data in ("eight_schools", EightSchools()):
        with pytest.raises(UsageError, match=r"eight_schools has no exact draws; fit its log dens"):
            amfvi.fit(data)


@pytest.mark.parametrize("form", ["array", "tensor", "list", "Draws"])
def test_draws_are_fitted_in_any_form(form):
    data = {
        "array": ROWS, "tensor": torch.from_numpy(ROWS), "list": ROWS.tolist(),
        "Draws": amfvi.Draws.from_array(ROWS),
    }[form]  # fmt: skip
    assert kind_of(data) is InputKind.DRAWS
    posterior = amfvi.fit(data, **QUICK)
    assert torch.equal(posterior.log_prob(ROWS), amfvi.fit(ROWS, **QUICK).log_prob(ROWS))


class Counted:
    """A standard normal log density that counts the times it is called."""

    def __init__(self):
        self.calls = 0
        self.data = LogDensity(self, 2)

    def __call__(self, x):
        self.calls += 1
        return -0.5 * x.square().sum(dim=1)


class CountedTarget(type(get("banana"))):
    """A target that counts the times draws are made of it."""

    def __init__(self):
        self.calls = 0
        self.data = self

    def sample(self, n, generator):
        self.calls += 1
        return super().sample(n, generator)


class CountedDraws:
    """An array that counts the times its values are read."""

    def __init__(self):
        self.calls = 0
        self.data = self

    def __array__(self, dtype=None, copy=None):
        self.calls += 1
        return ROWS


INVALID = {
    "experts": ("mafia", [], 3, None, math.nan),
    "weight_rule": ("emma", 3, None, True),
    "beta": (1.0, -1, math.nan, True, "many", math.inf),
    "n_draws": (0, -1, 2.5, math.nan, math.inf, True, "many"),
    "n_weight_draws": (-1, 2.5, math.nan, math.inf, True, "many", None),
    "folds": (0, -1, 2.5, 21, math.nan, math.inf, True, "many", None),
    "test_fraction": (0.9, 1.0, -1, math.nan, math.inf, True, "many"),
    "max_evaluations": (0, -1, 2.5, math.nan, math.inf, True, "many"),
    "max_refinements": (-1, 2.5, math.nan, math.inf, True, "many"),
    "timeout": (0, -1, math.nan, math.inf, True, "many"),
    "seed": (-1, 2.5, math.nan, math.inf, True, "many", None),
    "device": ("many", "cuda:99", 2.5, None, True),
    "cluster": [3, b"auto", ["auto"]],
}


@pytest.mark.parametrize("option", [field.name for field in fields(FitOptions)])
@pytest.mark.parametrize("source", [Counted, CountedTarget, CountedDraws])
def test_a_wrong_value_of_any_option_is_refused_before_any_work(source, option):
    """test_fraction=0.9 was refused after the sampling, 1.0 and n_draws=0 failed inside it."""
    counted = source()
    for value in INVALID[option]:
        with pytest.raises(UsageError) as error:
            amfvi.fit(counted.data, **{option: value})
        assert "\n" not in str(error.value)
    assert counted.calls == 0


@pytest.mark.parametrize(
    ("source", "settings", "message"),
    [
        (Counted, {"n_weight_draws": 10}, "n_weight_draws= goes with exact draws of a target"),
        (Counted, {"names": ["a", "b"]}, "names= goes with an array or a file of draws"),
        (Counted, {"constraints": [None, None]}, "constraints= goes with an array or a file"),
        (Counted, {"chains": True}, "chains= goes with an array or a file of draws"),
        (CountedTarget, {"test_fraction": 0.1}, "test_fraction= goes with given draws, pairs or"),
        (CountedTarget, {"max_evaluations": 10}, "max_evaluations= goes with a log density"),
        (CountedTarget, {"max_refinements": 1}, "max_refinements= goes with a log density"),
        (CountedTarget, {"sample_weight": ROWS[:, 0]}, "sample_weight= goes with an array"),
        (CountedDraws, {"n_draws": 100}, "n_draws= goes with a target, a log density or"),
        (CountedDraws, {"n_weight_draws": 10}, "n_weight_draws= goes with exact draws"),
        (CountedDraws, {"max_evaluations": 10}, "max_evaluations= goes with a log density"),
    ],
)
def test_options_that_the_input_has_no_use_for_are_refused_before_any_work(
    source, settings, message
):
    counted = source()
    with pytest.raises(UsageError, match=message):
        amfvi.fit(counted.data, **settings)
    assert counted.calls == 0


def test_draws_that_have_their_own_names_take_no_others():
    draws = amfvi.Draws.from_array(ROWS)
    with pytest.raises(UsageError, match=r"names= .* the input is amfvi\.Draws, which have their"):
        amfvi.fit(draws, names=["a", "b"])


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("n_draw", "n_draws"), ("weights_rule", "weight_rule"), ("max_evals", "max_evaluations"),
        ("testfraction", "test_fraction"), ("sample_weights", "sample_weight"),
        ("constraint", "constraints"), ("expert", "experts"),
    ],
)  # fmt: skip
def test_an_unknown_keyword_names_the_nearest(name, nearest):
    counted = Counted()
    with pytest.raises(UsageError, match=f"'{name}'; did you mean {nearest}"):
        amfvi.fit(counted.data, **{name: 3})
    assert counted.calls == 0


def test_options_are_given_as_an_object_or_one_by_one_and_not_as_both():
    options = FitOptions(**QUICK)
    x = torch.from_numpy(ROWS)
    assert torch.equal(amfvi.fit(x, options=options).log_prob(x), amfvi.fit(x, **QUICK).log_prob(x))
    with pytest.raises(UsageError, match="give options= or seed=, not both"):
        amfvi.fit(x, options=options, seed=1)
    named = amfvi.fit(x, options=options, names=["a", "b"])  # which describe the draws
    assert named.names == ("a", "b")


def test_help_lists_every_option():
    """Twenty parameters had become ``**settings``, which tells nothing."""
    parameters = inspect.signature(amfvi.fit).parameters
    own = ["data", "given", "given_names", "density", "checkpoint", "options", "reporter"]
    expected = [*own, *(f.name for f in fields(FitOptions))]
    assert list(parameters) == [*expected, *DRAWS_SETTINGS]
    for field in fields(FitOptions):
        assert parameters[field.name].default == field.default
        assert parameters[field.name].kind is inspect.Parameter.KEYWORD_ONLY
    from_array = inspect.signature(amfvi.Draws.from_array).parameters
    assert set(DRAWS_SETTINGS) <= from_array.keys()


def test_a_fit_to_draws_has_no_weights_to_give():
    posterior = amfvi.fit(ROWS, **QUICK)
    with pytest.raises(UsageError, match=r"fitted to draws or loaded; .*with_log_density\(density"):
        posterior.weighted_draws()
    counted = Counted()
    weighted = posterior.with_log_density(counted.data).weighted_draws(50)
    assert weighted.x.shape == (50, 2)
    assert counted.data.n_evaluations >= 50
    assert posterior.log_density is None


def test_a_reporter_hears_of_the_split_and_the_experts():
    lines, experts = [], []

    class Recorder(amfvi.Reporter):
        def log(self, line):
            lines.append(line)

        def expert_progress(self, expert, fraction, heldout_nll):
            experts.append((expert, fraction))

    amfvi.fit(ROWS, reporter=Recorder(), **QUICK)
    assert lines[0].startswith("2 parameters, ")
    assert experts[-1] == ("gmm", 1.0)


def test_a_data_frame_is_read_as_the_same_table_in_a_file(tmp_path):
    """Its names were lost, and a column of weights became a parameter."""
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    columns = {"mu": rng.normal(size=400), "weight": rng.random(400), "tau": rng.gamma(3, size=400)}
    frame = pandas.DataFrame(columns)
    frame.to_csv(tmp_path / "draws.csv", index=False)
    settings = {"experts": "gmm", "folds": 2, "constraints": {"tau": "positive"}}
    from_frame = amfvi.fit(frame, **settings)
    from_file = amfvi.fit(tmp_path / "draws.csv", **settings)
    assert from_frame.names == ("mu", "tau")
    points = [[0.0, 2.0], [1.0, 5.0]]
    assert torch.allclose(from_frame.log_prob(points), from_file.log_prob(points))


@pytest.mark.parametrize("n", [(-1,), -1, 1.5, None, "3"])
def test_a_number_of_draws_that_is_none_is_named(n):
    posterior = amfvi.fit("banana", experts="gmm", n_draws=200, folds=2)
    with pytest.raises(UsageError, match="a number of draws must be a whole number of at least 0"):
        posterior.sample(n)


def test_a_column_of_text_in_a_data_frame_is_named():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"mu": np.arange(50.0), "group": ["a", "b"] * 25})
    with pytest.raises(InputError, match=r"column 'group' holds no numbers .*'a'.*; leave it out"):
        amfvi.fit(frame)


def test_a_column_of_dates_in_a_data_frame_is_named():
    """It was fitted, in nanoseconds."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"mu": np.arange(50.0), "day": pandas.date_range("2026", periods=50)})
    with pytest.raises(InputError, match=r"column 'day' holds no numbers .*datetime64.*leave it"):
        amfvi.fit(frame)


def test_columns_of_several_kinds_are_numbers():
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    count = pandas.array(rng.poisson(5, size=300), dtype="Int64")
    frame = pandas.DataFrame({"mu": rng.normal(size=300), "count": count})
    with pytest.warns(AmfviWarning, match="column 'count' holds integers only"):
        posterior = amfvi.fit(frame.astype({"mu": object}), experts="gmm", folds=2)
    assert posterior.names == ("mu", "count")


def test_whole_numbers_may_be_numpys():
    density = amfvi.LogDensity(lambda x: -0.5 * x.square().sum(1), np.int64(2))
    settings = {"n_draws": np.int64(400), "folds": np.int64(2), "seed": np.int64(1)}
    posterior = amfvi.fit(density, experts=[GMM(max_components=np.int64(3))], **settings)
    json.dumps(posterior.experts["gmm"].config.to_json())
    assert posterior.dim == 2
