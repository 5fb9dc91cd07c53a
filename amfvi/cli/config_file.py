"""A file of options, ``amfvi fit --config fit.toml``, and the file that ``amfvi init`` writes."""

from __future__ import annotations

import json
import math
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from amfvi.cli import options as opt
from amfvi.errors import InputError, UsageError, unknown_name

__all__ = ["Config", "ExpertSettings", "describe_options", "join_settings", "read_config"]

SETTINGS_TABLE = "expert"
"""Table of the file whose tables hold the settings of experts, ``[expert.maf]``."""

NOT_IN_A_FILE = ("config", "help")
"""Options of a command that a file of options does not hold."""

HEADER = """\
# Options of `amfvi fit --config {name}`. Lines that begin with one # are options with their
# defaults: take the # away and change the value. A flag of the command line goes before this
# file. Paths are relative to where the command is run.
"""

WIDTH = 96
"""Columns of a comment."""


def read_config(context: Any, path: Path | None) -> Path | None:
    """Make the options of a TOML file the defaults of a command: the callback of ``--config``.

    Args:
        context: click's, of the command.

    Raises:
        InputError: the file cannot be read, or is not TOML.
        UsageError: an option that the command does not have, or a value of another kind.

    Examples:
        >>> read_config(None, None) is None
        True
    """
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8")
        given = tomllib.loads(text)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; 'amfvi init {path}' writes one") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # TOML that is none, or no text
        raise InputError(f"{path}: not a TOML file: {error}") from None
    options = {option.name: option for option in _options(context.command)}
    defaults: dict[str, Any] = {}
    settings = _settings(path, given.pop(SETTINGS_TABLE, {}))
    for key, value in given.items():
        name = _parameter_name(key, options)
        defaults[name] = _as_text(path, key, value, options[name])
    context.meta[SETTINGS_TABLE] = settings + defaults.pop("settings", [])
    context.default_map = {**(context.default_map or {}), **defaults}
    return path


def join_settings(context: Any, given: list[str] | None) -> list[str] | None:
    """Put settings of the command line behind those of the file: the callback of ``--set``.

    Args:
        context: click's, of the command.

    Examples:
        >>> class Context:
        ...     meta = {"expert": ["maf.layers=8"]}
        >>> join_settings(Context(), ["maf.layers=2"])
        ['maf.layers=8', 'maf.layers=2']
    """
    return [*context.meta.get(SETTINGS_TABLE, []), *(given or [])] or None


def _options(command: Any) -> list[Any]:
    """Options of a command that a file may hold."""
    return [
        each for each in command.params
        if each.param_type_name == "option" and each.name not in NOT_IN_A_FILE
    ]  # fmt: skip


def _flag(option: Any) -> str:
    return str(max(option.opts, key=len).removeprefix("--"))


def _parameter_name(key: str, options: Mapping[str, Any]) -> str:
    """The parameter of a flag without its dashes, written with - or _."""
    names = {_flag(option).replace("_", "-"): name for name, option in options.items()}
    wanted = key.replace("_", "-")
    if wanted not in names:
        raise unknown_name("option in the file of options", key, sorted(names))
    return names[wanted]


def _as_text(path: Path, key: str, value: Any, option: Any) -> Any:
    """A value as click takes it: text, true or false, or a list of texts."""
    if option.is_flag:
        if not isinstance(value, bool):
            raise UsageError(f"{path}: {key} must be true or false, found {value!r}")
        return value
    values = value if isinstance(value, list) else [value]
    if any(isinstance(each, bool | dict | list) for each in values):
        raise UsageError(f"{path}: {key} must be a number or a text, found {value!r}")
    texts = [str(each) for each in values]
    return texts if option.multiple else ",".join(texts)


def _settings(path: Path, tables: Any) -> list[str]:
    """``maf.layers=8`` for each setting in ``[expert.maf]``."""
    if not isinstance(tables, dict) or not all(isinstance(t, dict) for t in tables.values()):
        raise UsageError(f"{path}: settings stand in tables such as [{SETTINGS_TABLE}.maf]")
    return [
        f"{expert}.{name}={_toml(value)}"
        for expert, table in tables.items()
        for name, value in table.items()
    ]


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Take options from this TOML file; 'amfvi init' writes one with all of them.",
        rich_help_panel=opt.COMPUTING,
        is_eager=True,
        callback=read_config,
    ),
]
ExpertSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SETTING",
        help="A setting of an expert, such as maf.layers=8; 'amfvi experts' lists them. This may "
        "be repeated.",
        rich_help_panel=opt.HOW,
        callback=join_settings,
    ),
]


def describe_options(command: Any, name: str) -> str:
    """A file of all options of a command and of all experts' settings, each behind a #.

    Args:
        command: click's.
        name: of the file, for its first lines.

    Examples:
        >>> import typer
        >>> from amfvi.cli.commands import app
        >>> fit = typer.main.get_command(app).commands["fit"]
        >>> "#seed = 0" in describe_options(fit, "fit.toml").splitlines()
        True
    """
    from amfvi.experts import EXPERTS

    lines = [HEADER.format(name=name)]
    groups: dict[str, list[Any]] = {}
    for option in _options(command):
        groups.setdefault(str(getattr(option, "rich_help_panel", None) or "Other"), []).append(
            option
        )
    for group, options in groups.items():
        lines += [f"\n## {group}\n"]
        for option in options:
            if option.name != "settings":
                lines += _described(option)
    for kind, config in EXPERTS.items():
        lines += ["", f"#[{SETTINGS_TABLE}.{kind}]"]
        fields = config().to_json()
        lines += [f"#{n} = {_toml(v)}" for n, v in fields.items() if n != "kind" and v is not None]
    return "\n".join(lines) + "\n"


def _described(option: Any) -> Iterator[str]:
    """The help of an option, and the option with its default or with nothing."""
    yield textwrap.fill(
        " ".join((option.help or "").split()), WIDTH, initial_indent="## ", subsequent_indent="## "
    )
    default = option.default
    if isinstance(default, Enum):
        default = default.value
    if default is None or default == "":  # nothing, so what it would look like
        default = option.metavar or str(option.name).upper()
        default = [default] if option.multiple else default
    yield f"#{_flag(option)} = {_toml(default)}"
    yield ""


def _toml(value: Any) -> str:
    """A text, number, truth value or list as TOML writes it, which is as JSON does."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value, ensure_ascii=False)
