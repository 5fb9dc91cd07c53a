"""Constraints as they are written on the command line."""

from __future__ import annotations

import math

import pytest

from amfvi.cli.values import parse_bounds, split_names
from amfvi.errors import UsageError


def test_command_line_bounds():
    assert split_names("tau, theta[1,2],mu") == ["tau", "theta[1,2]", "mu"]
    assert parse_bounds("tau", ["p=0:1,q=:2", "r[1,2]=-1:"]) == {
        "tau": (0, math.inf),
        "p": (0, 1),
        "q": (-math.inf, 2),
        "r[1,2]": (-1, math.inf),
    }


@pytest.mark.parametrize("text", ["p", "p=1", "p=a:b", "=0:1:2"])
def test_malformed_bounds_are_refused(text):
    with pytest.raises(UsageError, match="NAME=LOW:HIGH"):
        parse_bounds("", [text])


def test_bounded_twice_is_refused():
    with pytest.raises(UsageError, match="bounded twice"):
        parse_bounds("p", ["p=0:1"])
