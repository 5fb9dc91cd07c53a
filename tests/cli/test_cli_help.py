"""Help, listings, and how output fits a terminal."""

from __future__ import annotations

import json
import re

import pytest

from amfvi.cli.flags import FLAGS
from amfvi.errors import ExitCode


def test_numbers_are_never_cut_short_on_a_narrow_terminal(finished, cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    for arguments in (("summary", finished[0]), ("targets",), ("evaluate", finished[0])):
        code, out, _ = cli(*arguments)
        assert code == 0
        assert "…" not in out


def test_no_arguments_is_help_with_commands_and_exit_codes(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = cli()
    assert (code, err) == (0, "")
    for command in ("fit", "evaluate", "summary", "sample", "log-prob", "targets", "experts"):
        assert f"  {command} " in out
    assert "..." not in out.partition("\n\n")[2]  # every line is whole
    codes = out.partition("Exit codes:")[2]
    for exit_code in ExitCode:
        assert re.search(rf"\b{int(exit_code)} \w", codes)
    assert max(map(len, out.splitlines())) <= 80


def test_the_version_is_that_of_the_package(cli):
    from importlib.metadata import version

    assert cli("--version") == (0, f"amfvi {version('amfvi')}\n", "")


@pytest.mark.parametrize(
    "name",
    ["fit", "init", "evaluate", "summary", "report", "compare", "sample", "calibrate", "log-prob"],
)
def test_help_fits_the_terminal_and_ends_with_an_example(cli, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "80")
    out = cli(name, "--help")[1]
    assert max(map(len, out.splitlines())) <= 80
    assert f"\n    amfvi {name} " in out.partition("Example")[2]
    for line in out.splitlines():
        assert not line.endswith("-")  # no flag is broken


def test_options_of_fit_stand_in_groups(cli):
    out = cli("fit", "--help")[1]
    groups = re.findall(r"^(\S.*):$", out, re.MULTILINE)
    assert groups[:2] == ["What to fit", "For a log density"]
    assert groups[-1] == "Other options"


def test_every_flag_that_a_message_can_name_is_an_option_of_fit(cli):
    _, out, _ = cli("fit", "--help")
    options = set(re.findall(r"--[a-z-]+", out))
    assert set(re.findall(r"--[a-z-]+", " ".join(FLAGS.values()))) <= options


@pytest.mark.parametrize("listing", ["targets", "experts"])
def test_listings(cli, listing):
    code, out, _ = cli(listing, "--json")
    rows = json.loads(out)
    assert code == 0
    assert {"targets": "two_moons", "experts": "realnvp"}[listing] in rows
    assert cli(listing)[0] == 0
