"""What a person at a terminal sees, and a program does not."""

from __future__ import annotations

import io
import os

import pytest

from amfvi.cli.terminal import announce, wrapped


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


LINE = "[   1.20 s] realnvp: held-out NLL 14.83336 at step 75, " + "no further improvement " * 4


@pytest.mark.parametrize("columns", [40, 80])
def test_lines_break_at_words_on_a_terminal(monkeypatch, columns):
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((columns, 24)))
    shown = wrapped(LINE, Terminal(), indent=12)
    lines = shown.splitlines()
    assert max(map(len, lines)) <= columns
    assert shown.split() == LINE.split()
    assert all(line.startswith(" " * 12) for line in lines[1:])


def test_lines_stay_whole_for_programs():
    assert wrapped(LINE, io.StringIO()) == LINE


def test_a_long_command_says_at_once_that_it_has_begun(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    announce("fitting draws.csv")
    assert "fitting draws.csv" in terminal.getvalue()
    announce("fitting more.csv", quiet=True)
    assert "more.csv" not in terminal.getvalue()


def test_programs_hear_nothing_of_it(capsys):
    announce("fitting draws.csv")
    assert capsys.readouterr().err == ""
