"""The shape of the tree: dependencies point one way, examples in docstrings run."""

from __future__ import annotations

import ast
import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the ground up. A module may import from its own line or from lines before it.
LEVELS = (
    ("amfvi.errors",),
    ("amfvi.randomness", "amfvi.blocks", "amfvi.outputs", "amfvi.run_log"),
    ("amfvi.bounds", "amfvi.diagnostics", "amfvi.batching", "amfvi.weighting"),
    ("amfvi.support",),
    ("amfvi.draws", "amfvi.readers", "amfvi.writers", "amfvi.posterior_summary"),
    ("amfvi.log_density",),
    ("amfvi.experts", "amfvi.targets"),
    ("amfvi.split",),
    ("amfvi.worker", "amfvi.worker_process"),
    ("amfvi.stage_one", "amfvi.stage_two"),
    ("amfvi.mixture",),
    ("amfvi.checkpoint", "amfvi.two_stages"),
    ("amfvi.metrics",),
    ("amfvi.importance",),
    ("amfvi.sampler",),
    ("amfvi.comparison",),
    ("amfvi.defence",),
    ("amfvi.missing",),
    ("amfvi.verdict",),
    ("amfvi.inference", "amfvi.bridges"),
    ("amfvi.fitting",),
    ("amfvi.user_function", "amfvi.run_settings"),
    ("amfvi.run_record", "amfvi.figures"),
    ("amfvi.run",),
    ("amfvi.saved_run", "amfvi.console"),
    ("amfvi.cli",),
    ("amfvi", "amfvi.__main__"),
)


def modules():
    for folder, package in (
        ("amfvi", "amfvi"),
        ("experts", "amfvi.experts"),
        ("targets", "amfvi.targets"),
    ):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            yield ".".join((package, *parts)).removesuffix(".__init__"), path


MODULES = dict(modules())


def level(name):
    """The line of LEVELS of the longest entry that ``name`` is or lies in."""
    entries = {entry: number for number, line in enumerate(LEVELS) for entry in line}
    while name not in entries:
        name = name.rpartition(".")[0]
    return entries[name]


def imported(path):
    """Modules of ours imported anywhere in a file, but for annotations alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.ImportFrom):
            yield node.level, node.module or "", [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield 0, alias.name, []


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name):
    for relative, module, aliases in imported(MODULES[name]):
        assert relative == 0, "imports are absolute"
        assert module.split(".")[0] not in ("experts", "targets"), "amfvi.experts, amfvi.targets"
        if module.split(".")[0] != "amfvi":
            continue
        for alias in aliases or [""]:
            full = f"{module}.{alias}"
            target = full if full in MODULES else module
            allowed = level(target) <= level(name)
            # A mixture saves and exports itself: calls back up, made inside the methods.
            ways_up = {"amfvi.checkpoint", "amfvi.bridges.arviz_data"}
            assert allowed or (name == "amfvi.mixture" and target in ways_up), (
                f"{name} imports {target}, which is above it"
            )


@pytest.mark.parametrize("name", [m for m in MODULES if not m.endswith("__main__")])
def test_docstrings_run(name):
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    assert doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed == 0


def test_public_names_exist_and_are_lazy():
    import amfvi

    for name in amfvi.__all__:
        assert getattr(amfvi, name) is not None
    assert {"fit", "load", "evaluate", "Draws", "Mixture"} <= set(amfvi.__all__)


@pytest.mark.parametrize("name", MODULES)
def test_no_assert_reaches_a_user(name):
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]
