"""What figures were made with: source code, packages, hardware and threads."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import torch

__all__ = [
    "AMFVI",
    "CHECKOUT",
    "PACKAGES",
    "Provenance",
    "describe_all",
    "describe_commit",
    "source_hash",
]

CHECKOUT = Path(__file__).parents[2]
"""The folder that holds ``amfvi``, ``experts``, ``targets`` and ``experiments``."""

AMFVI = ("amfvi", "amfvi.experts", "amfvi.targets")
"""Packages that the figures of a fit by amfvi depend on."""

LAB = tuple(
    f"experiments.lab.{name}"
    for name in (
        "pool", "targets", "unregularized", "continuous", "conditional_tasks",
        "conditional_methods", "conditional_peers",
    )
)  # fmt: skip
"""Modules that the figures of a study depend on besides."""

PACKAGES = ("amfvi", "torch", "scikit-learn")
"""Packages that are named where it is amfvi that is run."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What the figures of a cell depend on besides its parameters.

    Attributes:
        sources: hash of the source code that the figures depend on; part of a cell's key.
        code: hash of all source code of the checkout.
        commit: the commit of the checkout, and whether its sources have since changed.
        made_with: packages, hardware and threads in words.
    """

    sources: str
    code: str
    commit: str
    made_with: str

    @classmethod
    def current(
        cls, modules: Sequence[str] = (*AMFVI, *LAB), packages: Sequence[str] = PACKAGES
    ) -> Provenance:
        """Describe this process.

        Args:
            modules: whose source code the figures depend on.
            packages: to be named with their versions, those that are installed.
        """
        versions = []
        for package in packages:
            with suppress(PackageNotFoundError):
                versions.append(f"{package} {version(package)}")
        hardware = [platform.machine(), f"{os.cpu_count()} cores"]
        if torch.cuda.is_available():
            hardware.append(torch.cuda.get_device_name())
        python = f"Python {platform.python_version()}"
        threads = f"{torch.get_num_threads()} threads"
        return cls(
            sources=source_hash(*modules),
            code=source_hash(*AMFVI, *LAB),
            commit=describe_commit(),
            made_with=", ".join([*versions, python, *hardware, threads]),
        )


class Made(Protocol):
    """What has a provenance."""

    @property
    def made_with(self) -> str: ...

    @property
    def code(self) -> str: ...

    @property
    def commit(self) -> str: ...


def describe_all(cells: Iterable[Made]) -> str:
    """Say what the cells of a page were made with, and whether their code differs."""
    cells = list(cells)
    made_with = "; ".join(sorted({cell.made_with for cell in cells}))
    commits: dict[str, set[str]] = {}
    for cell in cells:
        commits.setdefault(cell.code, set()).add(cell.commit)
    versions = [f"{' and '.join(sorted(c))} (sources {code[:8]})" for code, c in commits.items()]
    if len(versions) == 1:
        return f"Made with {made_with}, by {versions[0]}."
    return (
        f"Made with {made_with}. Cells of several versions of the code are combined: "
        f"{'; '.join(sorted(versions))}."
    )


@cache
def source_hash(*modules: str) -> str:
    """Hash the Python files of modules and packages, as they are imported; hexadecimal.

    Raises:
        ModuleNotFoundError: no such module.
    """
    digest = hashlib.sha256()
    for module in modules:
        spec = find_spec(module)
        if spec is None:
            raise ModuleNotFoundError(f"{module}: no such module, expected one to hash")
        folders = spec.submodule_search_locations
        root = Path(folders[0]) if folders else Path(str(spec.origin)).parent
        files = sorted(root.rglob("*.py")) if folders else [Path(str(spec.origin))]
        for path in files:
            content = path.read_bytes()
            digest.update(f"{module}/{path.relative_to(root)} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()


@cache
def describe_commit() -> str:
    """Name the git commit of the checkout, and say if its sources have since changed."""
    head = _git("rev-parse", "--short", "HEAD")
    if head is None:
        return "no commit"
    changes = _git("status", "--porcelain", "--", "amfvi", "experts", "targets", "experiments/lab")
    return f"commit {head} with changes" if changes else f"commit {head}"


def _git(*arguments: str) -> str | None:
    """Output of a git command in the checkout; None where there is no git or no repository."""
    try:
        done = subprocess.run(
            ["git", "-C", str(CHECKOUT), *arguments], capture_output=True, text=True, check=True
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
