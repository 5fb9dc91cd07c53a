"""Options from a file, settings of experts, and the file with all of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib

import pytest
import typer

from amfvi.cli.commands import app
from amfvi.errors import ExitCode
from amfvi.experts import EXPERTS

QUICK = """
target = "banana"
n-draws = 200
experts = "maf,gmm"
no-figures = true
quiet = true

[expert.maf]
layers = 2
max_steps = 50

[expert.gmm]
max_components = 2
"""


def config_of(run):
    return json.loads((run / "config.json").read_text(encoding="utf-8"))


def test_a_fit_takes_its_options_from_a_file_and_flags_go_before_it(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fit.toml").write_text(QUICK)
    code, _, err = cli(
        "fit", "--config", "fit.toml", "--n-draws", 300, "--seed", 7, "--set", "maf.layers=3"
    )
    assert code == 0, err
    config = config_of(tmp_path / "runs" / "banana-7")
    assert config["n_draws"] == 300
    assert config["experts"]["maf"]["layers"] == 3
    assert config["experts"]["maf"]["max_steps"] == 50
    assert config["experts"]["gmm"]["max_components"] == 2
    assert not (tmp_path / "runs" / "banana-7" / "figures").exists()


def test_settings_reach_the_experts_of_pairs(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = cli(
        "fit", "--target", "sinus", "--n-draws", 120, "--experts", "gmm", "--no-figures", "--quiet",
        "--set", "gmm.max_components=1",
    )  # fmt: skip
    assert code == 0, err
    text = (tmp_path / "runs" / "sinus-0" / "config.json").read_text(encoding="utf-8")
    assert re.search(r'"max_components": 1\b', text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tarjet = 'x'", r"unknown option in the file of options 'tarjet'; did you mean target\?"),
        ("seed = [[1]]", "seed must be a number or a text"),
        ("no-figures = 3", "no-figures must be true or false, found 3"),
        ("x =", "not a TOML file"),
        ("expert = 3", r"settings stand in tables such as \[expert.maf\]"),
        ("[expert.maf]\nlayres = 3", r"unknown setting of maf 'layres'; did you mean layers"),
        ("[expert.maf]\nlayers = 'many'", "maf: layers must be a whole number, found 'many'"),
        ("[expert.maf]\nlayers = -1", "maf: layers must be positive, found -1"),
        ("[expert.rbig]\nmax_knots = 'many'", "max_knots must be a whole number or nothing"),
        ("[expert.maf]\nlayers = true", "maf: layers must be a whole number, found True"),
        ("[expert.nsf]\nlayers = 2", "which is not among --experts maf,realnvp,rbig"),
        ("set = ['maf']", r"--set wants EXPERT.SETTING=VALUE, found 'maf'"),
    ],
)
def test_a_wrong_file_is_one_line_and_writes_nothing(cli, tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fit.toml").write_text(f"target = 'banana'\n{text}\n")
    code, out, err = cli("fit", "--config", "fit.toml")
    assert code in (ExitCode.USAGE, ExitCode.INPUT)
    assert out == ""
    assert re.search(message, err), err
    assert [path.name for path in tmp_path.iterdir()] == ["fit.toml"]


def test_a_file_that_is_not_there_is_told_how_to_be_written(cli, tmp_path):
    code, _, err = cli("fit", "--config", tmp_path / "none.toml")
    assert code == ExitCode.INPUT
    assert "no such file; 'amfvi init " in err


def test_init_writes_every_option_and_every_setting_once(cli, tmp_path):
    file = tmp_path / "deep" / "mine.toml"
    code, out, _ = cli("init", file)
    assert (code, out) == (0, f"written: {file}\n")
    text = file.read_text(encoding="utf-8")
    assert tomllib.loads(text) == {}  # nothing is set
    every = tomllib.loads(re.sub(r"(?m)^#(?!#| )", "", text))
    fit = typer.main.get_command(app).commands["fit"]
    flags = {max(p.opts, key=len)[2:] for p in fit.params} - {"config", "set"}
    assert set(every) - {"expert"} == flags
    for kind, config in EXPERTS.items():
        known = {k: v for k, v in config().to_json().items() if k != "kind" and v is not None}
        assert every["expert"][kind] == known
    assert max(map(len, text.splitlines())) <= 100


def test_init_does_not_replace_a_file_unasked(cli, tmp_path):
    file = tmp_path / "fit.toml"
    file.write_text("mine")
    code, _, err = cli("init", file)
    assert code == ExitCode.INPUT
    assert "--force" in err
    assert file.read_text() == "mine"
    assert cli("init", file, "--force")[0] == 0
    assert "seed" in file.read_text()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_flags(shell):
    program = "import sys; sys.argv[0] = 'amfvi'\nfrom amfvi.__main__ import main\nmain()"
    words = {
        "bash": "amfvi fit --max-ref",
        "zsh": "amfvi fit --max-ref",
        "fish": "amfvi fit --max-ref",
    }
    variables = {
        "_AMFVI_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": words[shell],
        "COMP_CWORD": "2",
        "_TYPER_COMPLETE_ARGS": words[shell],
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60,
        env=variables,
    )  # fmt: skip
    assert "--max-refinements" in done.stdout, done.stderr
