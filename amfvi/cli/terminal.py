"""What a person at a terminal sees: help in groups, lines broken at words, a first line at once."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TextIO

import typer
from typer.core import TyperCommand, TyperGroup

__all__ = [
    "GroupedCommand",
    "GroupedCommands",
    "announce",
    "example",
    "hanging_indent",
    "print_version",
    "wrapped",
]

MIN_WIDTH = 40
"""Columns below which lines are not broken at words."""

OTHER = "Other options"
"""The group of options that name none."""

ARGUMENTS = "Arguments"
"""The group of what is given without a flag."""

FEW = 10
"""Options up to which they are one group."""


def wrapped(text: str, stream: TextIO, *, indent: int = 0) -> str:
    """Break a line at words for a terminal; elsewhere it stays one line, for other programs.

    Args:
        indent: spaces before all lines but the first.

    Examples:
        >>> import io
        >>> wrapped("one line", io.StringIO())
        'one line'
    """
    if not stream.isatty():
        return text
    columns = shutil.get_terminal_size().columns
    if columns < MIN_WIDTH:
        return text
    return textwrap.fill(
        text, columns, subsequent_indent=" " * indent, break_long_words=False,
        break_on_hyphens=False, drop_whitespace=True, replace_whitespace=False,
    )  # fmt: skip


def hanging_indent(line: str) -> int:
    """The column at which the words of a line begin, after a label or a dash; 4 without one.

    Examples:
        >>> hanging_indent("log Z:   2.94"), hanging_indent("  - a reason"), hanging_indent("words")
        (9, 4, 4)
    """
    label = re.match(r"\s*- |\w{1,9}( \w)?:\s+", line)
    return 4 if label is None else label.end()


def announce(what: str, quiet: bool = False) -> None:
    """Say at once, to a person at a terminal, that something has begun.

    Examples:
        >>> announce("fit", quiet=True)
    """
    if not quiet and sys.stderr.isatty():
        typer.echo(f"amfvi {_version()}: {what} (loading PyTorch first)", err=True)


def example(*commands: str) -> str:
    """The examples of a command, which stand below its options.

    Examples:
        >>> print(example("amfvi targets").replace(chr(8), ""))
        <BLANKLINE>
        Example:
          amfvi targets
    """
    word = "Example" if len(commands) == 1 else "Examples"
    return "\n".join(["\b", f"{word}:", *(f"  {command}" for command in commands)])


def print_version(wanted: bool) -> None:
    """Print the version and end, if wanted: the callback of ``--version``.

    Examples:
        >>> print_version(False)
    """
    if wanted:
        typer.echo(f"amfvi {_version()}")
        raise typer.Exit


def _version() -> str:
    try:
        return version("amfvi")
    except PackageNotFoundError:
        return "(not installed)"


class GroupedCommand(TyperCommand):
    """A command whose help has its options in groups, by their ``rich_help_panel``.

    Boxes around groups would leave half of 80 columns for words, so there are none.

    Examples:
        >>> GroupedCommand("fit").name
        'fit'
    """

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options of each group below its name."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                group = getattr(parameter, "rich_help_panel", None) or OTHER
                group = ARGUMENTS if parameter.param_type_name == "argument" else group
                groups.setdefault(str(group), []).append(record)
        arguments = groups.pop(ARGUMENTS, [])
        ordered = sorted(groups.items(), key=lambda item: item[0] == OTHER)
        if sum(map(len, groups.values())) <= FEW:
            ordered = [("Options", [record for _, records in ordered for record in records])]
        for name, records in [(ARGUMENTS, arguments)] * bool(arguments) + ordered:
            with formatter.section(name):
                formatter.write_dl(records)


class GroupedCommands(TyperGroup):
    """The commands in groups, by their ``rich_help_panel``.

    Examples:
        >>> GroupedCommands(name="amfvi").name
        'amfvi'
    """

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands of each group below its name."""
        groups: dict[str, list[tuple[str, str]]] = {}
        names = self.list_commands(ctx)
        limit = formatter.width - 6 - max(map(len, names), default=0)
        for name in names:
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                group = str(getattr(command, "rich_help_panel", None) or "Commands")
                groups.setdefault(group, []).append((name, command.get_short_help_str(limit)))
        for group, rows in groups.items():
            with formatter.section(group):
                formatter.write_dl(rows)
