"""The options of a fit: checked when they are made, and applied where they belong."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
import torch

from amfvi.errors import UsageError
from amfvi.experts import GMM
from amfvi.two_stage.options import APPLICABLE, FitOptions, FitSettings, InputKind

NUMBERS = (math.nan, math.inf, -math.inf, -1, "many", "", True, [], {}, torch.tensor(0.3))
WHOLE_NUMBERS = (*NUMBERS, 2.5, 0.9, 1.0, -3)

INVALID = {
    "experts": (0.9, 0, -1, None, True, math.nan, "many", "", [], {}, [3], ["maf", "mafia"]),
    "weight_rule": (0.9, 0, None, True, math.nan, "many", "", []),
    "beta": (*NUMBERS, 1.0, 1.5, False),
    "n_draws": (*WHOLE_NUMBERS, 0, 19, False),
    "n_weight_draws": (*WHOLE_NUMBERS, None, False),
    "folds": (*WHOLE_NUMBERS, 0, 21, None),
    "test_fraction": (*NUMBERS, 0.9, 1.0, 0.51, False),
    "max_evaluations": (*WHOLE_NUMBERS, 0),
    "max_refinements": (*WHOLE_NUMBERS, False),
    "timeout": (*NUMBERS, 0, 0.0, False),
    "seed": (*WHOLE_NUMBERS, None, 2**63),
    "device": (0.9, 0, None, True, math.nan, []),
    "cluster": (0.9, 0, True, math.nan, "", [], b"auto"),
}
"""Values that no option accepts, by name of the option; many of them once went through."""


def test_the_table_of_invalid_values_lists_every_option():
    names = [field.name for field in fields(FitOptions)]
    assert list(INVALID) == names
    assert list(FitSettings.__annotations__) == names


@pytest.mark.parametrize("name", INVALID)
def test_invalid_values_are_refused_and_the_option_is_named(name):
    for value in INVALID[name]:
        with pytest.raises(UsageError, match="expert" if name == "experts" else f"{name}="):
            FitOptions(**{name: value})


@pytest.mark.parametrize(
    "settings",
    [
        {"experts": "maf, rbig"}, {"experts": {"mine": GMM()}}, {"weight_rule": "batch-mean"},
        {"beta": 0}, {"beta": np.float64(0.99)}, {"n_draws": 20}, {"folds": 1}, {"folds": 20},
        {"test_fraction": 0}, {"test_fraction": 0.5}, {"max_evaluations": 1},
        {"max_refinements": 0}, {"timeout": 0.1}, {"timeout": np.float32(3)},
        {"seed": 2**63 - 1}, {"device": torch.device("cpu")}, {"device": "cuda:7"},
    ],
)  # fmt: skip
def test_values_at_the_edge_are_accepted(settings):
    (name,) = settings
    assert getattr(FitOptions(**settings), name) == settings[name]


def test_defaults_are_filled_in_where_they_are_used():
    options = FitOptions()
    assert (options.momentum, options.draws_wanted, options.test_share) == (0.9, 10_000, 0.15)
    chosen = FitOptions(beta=0.0, n_draws=50, test_fraction=0.0)
    assert (chosen.momentum, chosen.draws_wanted, chosen.test_share) == (0.0, 50, 0.0)


@pytest.mark.parametrize("weight_rule", ["em", "uniform"])
def test_a_rule_without_momentum_takes_none(weight_rule):
    assert FitOptions(weight_rule=weight_rule).beta is None
    with pytest.raises(UsageError, match="beta= goes with ema and batch-mean"):
        FitOptions(weight_rule=weight_rule, beta=0.5)


@pytest.mark.parametrize("kind", InputKind)
def test_options_apply_to_some_kinds_of_input_alone(kind):
    given = {
        "n_draws": 100, "n_weight_draws": 10, "test_fraction": 0.2, "max_evaluations": 10,
        "max_refinements": 1,
    }  # fmt: skip
    assert given.keys() == APPLICABLE.keys()
    FitOptions().check_for(kind)
    for name, value in given.items():
        options = FitOptions(**{name: value})
        if kind in APPLICABLE[name][0]:
            options.check_for(kind)
        else:
            with pytest.raises(UsageError, match=f"{name}= goes with .*, the input is {kind}"):
                options.check_for(kind)


def test_options_are_immutable_and_json():
    options = FitOptions(
        experts=[GMM(max_components=3)], device=torch.device("cpu"), seed=np.int64(2),
        beta=np.float32(0.5),
    )  # fmt: skip
    with pytest.raises(FrozenInstanceError):
        options.seed = 3
    described = json.loads(json.dumps(options.to_json()))
    assert described["experts"]["gmm"]["max_components"] == 3
    assert (described["device"], described["seed"], described["beta"]) == ("cpu", 2, 0.5)
    assert described.keys() == {field.name for field in fields(FitOptions)}
