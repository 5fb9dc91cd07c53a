"""Messages of the library, with flags of the command line for arguments of Python."""

from __future__ import annotations

import re

__all__ = ["FLAGS", "flags_for_arguments"]

FLAGS = {
    "constraints": "--positive or --bounds",
    "by_density": "--from density",
    "overwrite": "--force",
    "given_names": "--given",
    "experts": "--experts",
    "pool": "--jobs",
    "cluster": "--ray",
    **{
        name: "--" + name.replace("_", "-")
        for name in (
            "target", "draws", "given", "simulator", "prior", "jobs", "log_density", "dim",
            "names", "box", "max_evaluations", "max_refinements", "weight_rule", "beta",
            "n_draws", "n_weight_draws", "folds", "test_fraction", "chains", "nan_policy", "seed",
            "device", "timeout", "out",
        )
    },
}  # fmt: skip
"""The flag for each argument of the library that the command line has."""


ARGUMENT = re.compile(
    r"""(?<![\w/.'"-])           # not inside a path, a quotation or another word
    (?P<name>[a-z_]+)=
    (?P<value>(?>'[^']*'|"[^"]*"|[\w.+-]*\w)?)
    (?![\w/:=])                # not the beginning of a path""",
    re.VERBOSE,
)
"""An argument in a message of the library: ``name=`` or ``name=value``."""


def flags_for_arguments(message: str, *, verbatim: str = "") -> str:
    """Write a message of the library with flags in place of arguments of Python.

    The library writes an argument as ``name=`` or ``name=value``.

    Args:
        verbatim: a part of the message that is not the library's own, and stays as it is.

    Examples:
        >>> flags_for_arguments("beta= must be in [0, 1); or give nan_policy='omit'")
        '--beta must be in [0, 1); or give --nan-policy omit'
        >>> flags_for_arguments("runs/seed=1: exists; replace it with overwrite=True")
        'runs/seed=1: exists; replace it with --force'
    """

    def flag(match: re.Match[str]) -> str:
        name, value = match.group("name"), match.group("value").strip("'\"")
        if name not in FLAGS:
            return match.group()
        return FLAGS[name] if value in ("", "True") else f"{FLAGS[name]} {value}"

    if verbatim and verbatim in message:
        before, _, after = message.partition(verbatim)
        return flags_for_arguments(before) + verbatim + flags_for_arguments(after)
    return ARGUMENT.sub(flag, message)
