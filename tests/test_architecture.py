"""The shape of the tree: dependencies point one way, files and functions stay short."""

from __future__ import annotations

import ast
import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A module may import from lines above its own, and from its own room.
LEVELS = (
    (
        "amfvi.decimals",
        "amfvi.errors",
        "amfvi.randomness",
        "amfvi.reporting",
        "amfvi.statistics",
        "amfvi.user_modules",
    ),
    (
        "amfvi.cache",
        "amfvi.cluster",
        "amfvi.constraints",
        "amfvi.device",
        "amfvi.files",
        "amfvi.json_files",
        "amfvi.pools",
        "amfvi.variables",
    ),
    ("amfvi.density", "amfvi.draws", "amfvi.experts", "amfvi.sealed_json", "amfvi.targets"),
    ("amfvi.mixture", "amfvi.sampler"),
    ("amfvi.simulation", "amfvi.transport", "amfvi.two_stage"),
    ("amfvi.diagnostics", "amfvi.interop", "amfvi.metrics", "amfvi.saving", "amfvi.sources"),
    ("amfvi.arguments", "amfvi.conditional", "amfvi.inference", "amfvi.posterior"),
    ("amfvi.checking", "amfvi.fitting", "amfvi.loading", "amfvi.shards"),
    ("amfvi.report", "amfvi.runs"),
    ("amfvi.cli", "amfvi"),
)
ROOMS = {entry: number for number, line in enumerate(LEVELS) for entry in line}

MAX_LEVELS = 10
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 300

# Imports that a process makes only when it uses them, and their owners.
HEAVY = (
    "torch",
    "numpy",
    "scipy",
    "sklearn",
    "matplotlib",
    "ot",
    "nflows",
    "rich",
    "typer",
    "jinja2",
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


def room(name):
    """The entry of LEVELS that a module is or lies in; an error for one that is not listed."""
    if name == "amfvi.__main__":  # the process around the command line
        return "amfvi.cli"
    first_two = ".".join(name.split(".")[:2])
    assert first_two in ROOMS, f"{name} is not in LEVELS"
    return first_two


def imported(path):
    """Modules of ours imported anywhere in a file, those for annotations included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def ours(path):
    for name in imported(path):
        assert name.split(".")[0] not in ("experts", "targets"), "amfvi.experts, amfvi.targets"
        if name.split(".")[0] == "amfvi":
            yield name


def test_levels_are_few_and_complete():
    assert len(LEVELS) <= MAX_LEVELS
    assert {room(name) for name in MODULES} == set(ROOMS)


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name):
    here = room(name)
    for target in ours(MODULES[name]):
        there = room(target)
        assert there == here or ROOMS[there] < ROOMS[here], (
            f"{name} imports {target}, which is not below it"
        )


def test_no_import_closes_a_circle():
    graph = {name: {t for t in ours(path) if t in MODULES} for name, path in MODULES.items()}
    done: set[str] = set()

    def visit(name, path):
        assert name not in path, f"circle: {' -> '.join([*path[path.index(name) :], name])}"
        if name not in done:
            for target in sorted(graph[name] - {name}):
                visit(target, [*path, name])
            done.add(name)

    for name in graph:
        visit(name, [])


def functions(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.end_lineno - node.lineno + 1


@pytest.mark.parametrize("name", MODULES)
def test_functions_and_files_are_short(name):
    text = MODULES[name].read_text(encoding="utf-8")
    too_long = {f: n for f, n in functions(ast.parse(text)) if n > MAX_FUNCTION_LINES}
    assert not too_long
    assert len(text.splitlines()) <= MAX_FILE_LINES


def public(module):
    for name in getattr(module, "__all__", ()):
        thing = getattr(module, name)
        if isinstance(thing, type) and issubclass(thing, Exception):
            continue
        if callable(thing) and getattr(thing, "__module__", None) == module.__name__:
            yield name, thing


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of ArviZ, once a day
@pytest.mark.parametrize("name", [m for m in MODULES if not m.endswith("__main__")])
def test_docstrings_run(name):
    if ".pymc" in name:
        pytest.importorskip("pymc", reason="needs PyMC: the extra pymc")
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    assert doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed == 0


def test_every_public_name_has_an_example():
    import amfvi

    for name in amfvi.__all__:
        thing = getattr(amfvi, name)
        if callable(thing) and not (isinstance(thing, type) and issubclass(thing, Exception)):
            assert ">>>" in (thing.__doc__ or ""), f"amfvi.{name} has no example"


@pytest.mark.parametrize("name", [m for m in MODULES if not m.endswith("__main__")])
def test_public_classes_and_functions_have_examples(name):
    if name == "amfvi.cli.fit":  # its docstring is the help of the command
        return
    module = importlib.import_module(name)
    without = [n for n, thing in public(module) if ">>>" not in (thing.__doc__ or "")]
    assert not without


def test_public_names_exist_and_are_lazy():
    """``import amfvi`` imports nothing heavy, warns of nothing, and has all its names."""
    script = f"import sys, amfvi; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
    import amfvi

    for name in amfvi.__all__:
        assert getattr(amfvi, name) is not None
    assert {"fit", "load", "evaluate", "Draws", "Mixture", "Posterior"} <= set(amfvi.__all__)


def test_the_help_of_the_command_line_imports_nothing_heavy():
    heavy = tuple(set(HEAVY) - {"rich", "typer"})
    script = (
        "import sys; sys.argv = ['amfvi', '--help']\n"
        "from amfvi.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print(*[m for m in {heavy!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.strip()) == (0, "")


@pytest.mark.parametrize("name", MODULES)
def test_no_assert_reaches_a_user(name):
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]


def test_contributing_lists_every_file_with_the_first_line_of_its_docstring():
    expected = []
    for path in sorted(path.relative_to(ROOT) for path in MODULES.values()):
        if path.name in ("__init__.py", "__main__.py") and path.parent.name in ("amfvi",):
            continue
        first = ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8")))
        where = path.parent if path.name == "__init__.py" else path
        line = (first or "").splitlines()[0].rstrip(".")
        expected.append(f"- `{where}{'/' if path.name == '__init__.py' else ''}` {line}")
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    listed = [line for line in text.splitlines() if line.startswith(("- `amfvi/", "- `experts/"))]
    listed += [line for line in text.splitlines() if line.startswith("- `targets/")]
    assert listed == expected, "replace the list in CONTRIBUTING.md by:\n" + "\n".join(expected)


def test_contributing_names_files_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = [line for line in text.splitlines() if line.startswith("| ")]
    for path in {p for line in table for p in line.split("`")[1::2] if "/" in p}:
        assert (ROOT / path).exists(), path
