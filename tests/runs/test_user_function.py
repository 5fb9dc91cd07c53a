"""Loading a user's function: which file it comes from, and that it disturbs nothing."""

from __future__ import annotations

import os
import sys
import warnings

import numpy as np
import pytest
import torch

from amfvi.errors import InputError, UsageError
from amfvi.runs.input import load_input
from amfvi.runs.log import RunLog
from amfvi.runs.process_state import ProcessState, UserState
from amfvi.runs.settings import InputSettings
from amfvi.runs.user_function import load_object

FUNCTION = "def log_prob(x):\n    return -x.square().sum(dim=1)\n"


@pytest.mark.parametrize("name", ["random", "json", "queue", "sched", "numpy", "torch", "ot"])
@pytest.mark.parametrize("ending", ["", ".py"])
def test_a_file_here_goes_before_a_module_of_its_name(folder, name, ending):
    (folder / f"{name}.py").write_text(FUNCTION)
    before = sys.modules.get(name)
    loaded, file = load_object(f"{name}{ending}:log_prob")
    assert file == folder / f"{name}.py"
    assert float(loaded(torch.ones(1, 2))) == -2
    if before is not None:  # what others have imported is untouched
        assert sys.modules[name] is before


def test_a_file_here_goes_before_one_on_the_search_path(folder, monkeypatch):
    """Entries of PYTHONPATH come before the standard library."""
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "posterior.py").write_text("log_prob = None\n")
    monkeypatch.syspath_prepend(elsewhere)
    (folder / "posterior.py").write_text(FUNCTION)
    loaded, file = load_object("posterior:log_prob")
    assert file == folder / "posterior.py"
    assert float(loaded(torch.ones(1, 2))) == -2


def test_neighbors_are_imported_and_the_standard_library_stays_itself(folder):
    (folder / "data.py").write_text("number = 7\n")
    (folder / "sched.py").write_text("raise RuntimeError('not the standard library')\n")
    (folder / "model.py").write_text("import sched\nfrom data import number\n")
    sys.modules.pop("sched", None)
    number, _ = load_object("model:number")
    assert number == 7
    assert str(folder) not in sys.modules["sched"].__file__
    # Imports of others find installed modules first.
    assert sys.path[-1] == str(folder)
    assert sys.path.count(str(folder)) == 1


def test_a_module_in_a_package(folder):
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").touch()
    (folder / "package" / "mod.py").write_text("from . import other\n" + FUNCTION)
    (folder / "package" / "other.py").touch()
    assert load_object("package.mod:log_prob")[1] == folder / "package" / "mod.py"
    assert InputSettings(log_density="package.mod:log_prob").name == "mod"
    assert InputSettings(log_density="package/mod.py:log_prob").name == "mod"
    assert InputSettings(log_density="package.mod:banana").name == "banana"


@pytest.mark.parametrize("name", ["random", "json", "numpy"])
def test_a_package_here_goes_before_a_module_of_its_name(folder, name):
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(FUNCTION)
    (folder / name / "model.py").write_text("from .other import log_prob\n")
    (folder / name / "other.py").write_text(FUNCTION)
    before = sys.modules.get(name)
    for module, file in ((name, "__init__"), (f"{name}.model", "model")):
        loaded, found = load_object(f"{module}:log_prob")
        assert found == folder / name / f"{file}.py"
        assert float(loaded(torch.ones(1, 2))) == -2
    with pytest.raises(InputError, match=f"no module '{name}.nothing' here"):
        load_object(f"{name}.nothing:log_prob")
    assert sys.modules.get(name) is before


def test_a_folder_here_goes_before_the_standard_library(folder):
    (folder / "typing").mkdir()
    (folder / "typing" / "model.py").write_text(FUNCTION)
    assert load_object("typing.model:log_prob")[1] == folder / "typing" / "model.py"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import sys\nsys.exit(0)", r"ended the program while it was imported \(sys.exit\(0\)\)"),
        ("raise SystemExit('x')", r"while it was imported \(sys.exit\('x'\)\)"),
        ("exit()", "ended the program while it was imported"),
        ("import nowhere_to_be_found", "needs the module 'nowhere_to_be_found', which is missing"),
        ("def", "cannot be imported: SyntaxError"),
        ("x = 1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
        ("other = 1", "unknown name in .* 'log_prob'"),
    ],
)
@pytest.mark.parametrize("spec", ["wrong.py:log_prob", "wrong:log_prob"])
def test_a_module_that_cannot_be_used_is_an_input_error(folder, text, message, spec):
    (folder / "wrong.py").write_text(text)
    with pytest.raises(InputError, match=message):
        load_object(spec)


@pytest.mark.parametrize("spec", ["model", "model:", ":log_prob", ""])
def test_what_names_no_function_is_a_usage_error(spec):
    with pytest.raises(UsageError, match="log_density= wants MODULE:FUNCTION"):
        load_object(spec)


CHANGES = {
    "directory": "import os\nos.makedirs('elsewhere', exist_ok=True)\nos.chdir('elsewhere')",
    "removed directory": (
        "import os, shutil\nos.makedirs('gone', exist_ok=True)\nos.chdir('gone')\n"
        "shutil.rmtree(os.getcwd())"
    ),
    "numpy errors": "import numpy\nnumpy.seterr(all='raise')",
    "torch dtype": "import torch\ntorch.set_default_dtype(torch.float16)",
    "torch device": "import torch\ntorch.set_default_device('meta')",
    "matmul": "import torch\ntorch.set_float32_matmul_precision('medium')",
    "recursion": "import sys\nsys.setrecursionlimit(sys.getrecursionlimit() - 1)",
    "gradients": "import torch\ntorch.set_grad_enabled(False)",
    "warnings": "import warnings\nwarnings.simplefilter('error')",
}


# A function that changes gradients or warnings while it runs changes its own results alone.
CASES = [(change, "import") for change in CHANGES] + [
    (change, "call") for change in CHANGES if change not in ("gradients", "warnings")
]


@pytest.mark.parametrize(("change", "when"), CASES)
def test_what_a_module_changes_holds_for_it_alone(folder, change, when):
    text = CHANGES[change]
    at_import, in_call = (text, "pass") if when == "import" else ("", text)
    indented = in_call.replace("\n", "\n    ")
    (folder / "model.py").write_text(
        f"{at_import}\ndef log_prob(x):\n    {indented}\n    return 0\n"
    )
    before, filters = ProcessState.capture(), list(warnings.filters)
    limits = torch.get_float32_matmul_precision(), sys.getrecursionlimit()
    settings = InputSettings(log_density="model.py:log_prob", dim=2)
    density = load_input(settings, RunLog(None)).source
    for _ in range(2):
        density.function(torch.zeros(1, 2, device="cpu"))
        assert ProcessState.capture() == before
        assert (torch.get_float32_matmul_precision(), sys.getrecursionlimit()) == limits
    assert torch.is_grad_enabled()
    assert warnings.filters == filters


def test_a_module_finds_its_own_settings_again(folder):
    """Such as the directory whose files its function reads."""
    (folder / "data").mkdir()
    (folder / "data" / "n.txt").write_text("7")
    (folder / "model.py").write_text(
        "import os, pathlib, numpy\nos.chdir('data')\nnumpy.seterr(over='raise')\n"
        "def log_prob(x):\n    return pathlib.Path('n.txt').read_text(), numpy.geterr()['over']\n"
    )
    density = load_input(InputSettings(log_density="model:log_prob", dim=1), RunLog(None)).source
    assert density.function(None) == ("7", "raise")
    assert (os.getcwd(), np.geterr()["over"]) == (str(folder), "warn")


def test_an_exception_in_the_function_restores_our_settings():
    state = UserState()

    def raises(x):
        np.seterr(all="raise")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        state.guard(raises)(0)
    assert np.geterr()["over"] == "warn"
