"""Files and directories written whole or not at all, and what a killed process leaves."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from amfvi import files
from amfvi.errors import InputError, MissingFileError
from amfvi.files import check_directory, new_directory, new_file
from amfvi.json_files import read_json, without_nonfinite, write_json

KILLED_WHILE_WRITING = """
import os, signal
from pathlib import Path
from amfvi.files import new_directory, new_file

Path("run").mkdir()
Path("run", "marker").write_text("old")
with new_file(Path("draws.csv"), overwrite=False) as file:
    file.write_text("half")
    with new_directory(Path("run"), overwrite=True, marker="marker") as temporary:
        (temporary / "marker").write_text("new")
        print(temporary.name, file.name)
        os.kill(os.getpid(), signal.SIGKILL)
"""

KILLED_BETWEEN_TWO_RENAMES = """
import os, signal
from pathlib import Path
from amfvi.files import new_directory

Path("run").mkdir()
Path("run", "marker").write_text("old")
rename = Path.rename

def rename_once(self, target):
    rename(self, target)
    os.kill(os.getpid(), signal.SIGKILL)

Path.rename = rename_once
with new_directory(Path("run"), overwrite=True, marker="marker") as temporary:
    (temporary / "marker").write_text("new")
"""


def killed(script, folder):
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == -9, done.stderr
    return done.stdout


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def replace(path, text):
    with new_directory(path, overwrite=True, marker="marker") as temporary:
        (temporary / "marker").write_text(text)


def write_half(new, error):
    with new as temporary:
        (temporary / "marker" if temporary.is_dir() else temporary).write_text("half")
        raise error


def test_what_a_killed_process_leaves_is_removed_by_the_next(tmp_path):
    left = killed(KILLED_WHILE_WRITING, tmp_path).split()
    assert names(tmp_path) == sorted([*left, "run"])
    replace(tmp_path / "run", "newer")
    assert names(tmp_path) == sorted([left[1], "run"])
    assert (tmp_path / "run" / "marker").read_text() == "newer"
    with new_file(tmp_path / "draws.csv", overwrite=False) as file:
        file.write_text("whole")
    assert names(tmp_path) == ["draws.csv", "run"]


def test_a_directory_that_was_taken_away_and_not_replaced_comes_back(tmp_path):
    killed(KILLED_BETWEEN_TWO_RENAMES, tmp_path)
    assert "run" not in names(tmp_path)
    with pytest.raises(InputError, match="exists"):
        check_directory(tmp_path / "run", overwrite=False, marker="marker")
    assert names(tmp_path) == ["run"]
    assert (tmp_path / "run" / "marker").read_text() == "old"


def test_nothing_but_what_amfvi_abandoned_is_removed(tmp_path):
    """Other names, other hosts, living processes and what this process is writing stay."""
    running = os.getppid()
    kept = [
        ".run-backup",
        ".run-new-notes",
        f".run-new-elsewhere.org-{2**22 + 1}-0123abcd",
        f".run-new-{files.HOST}-{running}-0123abcd",
        f".run-1-new-{files.HOST}-{2**22 + 1}-0123abcd",
        f".run-new-{files.HOST}-{2**22 + 1}-0123abcd.old",
    ]
    abandoned = f".run-new-{files.HOST}-{2**22 + 1}-0123abcd"  # above the largest process id
    for name in (*kept, abandoned):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.tex").touch()
    with new_directory(tmp_path / "run", overwrite=True, marker="marker") as first:
        (first / "marker").write_text("first")
        assert names(tmp_path) == sorted([*kept, first.name])
        replace(tmp_path / "run", "second, meanwhile")
        assert first.is_dir()
    assert names(tmp_path) == sorted([*kept, "run"])
    assert (tmp_path / "run" / "marker").read_text() == "first"


@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError, OSError])
def test_an_exception_leaves_things_as_they_were(tmp_path, error):
    replace(tmp_path / "run", "old")
    for path in (tmp_path / "run", tmp_path / "missing" / "folder" / "run"):
        with pytest.raises(InputError if error is OSError else error):
            write_half(new_directory(path, overwrite=True, marker="marker"), error)
    assert names(tmp_path) == ["run"]
    assert (tmp_path / "run" / "marker").read_text() == "old"


def test_a_rename_that_fails_puts_the_old_directory_back(tmp_path, monkeypatch):
    replace(tmp_path / "run", "old")
    rename = files.Path.rename

    def failing(self, target):
        if "-new-" in self.name:
            raise OSError("no more space")
        return rename(self, target)

    monkeypatch.setattr(files.Path, "rename", failing)
    with pytest.raises(InputError, match="run: cannot be written"):
        replace(tmp_path / "run", "new")
    assert names(tmp_path) == ["run"]
    assert (tmp_path / "run" / "marker").read_text() == "old"


def write_directory(path):
    path.mkdir()
    (path / "marker").write_text("theirs")


@pytest.mark.parametrize(
    "take", [write_directory, lambda path: path.write_text("theirs")], ids=["directory", "file"]
)
def test_what_another_process_made_meanwhile_is_not_replaced(tmp_path, take):
    """The later of two runs took the place of the earlier, without being asked to."""
    theirs = tmp_path / "run"

    def write():
        with new_directory(theirs, overwrite=False, marker="marker") as temporary:
            (temporary / "marker").write_text("ours")
            take(theirs)
            (tmp_path / "run-2").touch()

    with pytest.raises(InputError, match=r"run: exists.*: this one is kept in .*run-3"):
        write()
    assert (theirs / "marker" if theirs.is_dir() else theirs).read_text() == "theirs"
    assert (tmp_path / "run-3" / "marker").read_text() == "ours"
    assert names(tmp_path) == ["run", "run-2", "run-3"]


def test_a_file_that_another_process_made_meanwhile_is_not_replaced(tmp_path):
    path = tmp_path / "draws.csv"

    def write(*, overwrite):
        with new_file(path, overwrite=overwrite) as temporary:
            temporary.write_text("ours")
            path.write_text("theirs")

    with pytest.raises(InputError, match=r"draws.csv: exists.* kept in .*draws-2.csv"):
        write(overwrite=False)
    assert (path.read_text(), (tmp_path / "draws-2.csv").read_text()) == ("theirs", "ours")
    write(overwrite=True)
    assert path.read_text() == "ours"


def test_a_file_is_whole_or_as_before(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("old")
    with pytest.raises(RuntimeError):
        write_half(new_file(path, overwrite=True), RuntimeError)
    assert (names(tmp_path), path.read_text()) == (["a.csv"], "old")
    with pytest.raises(InputError, match=re.escape("replace it with overwrite=True")):
        new_file(path, overwrite=False).__enter__()
    with new_file(path, overwrite=True) as temporary:
        assert temporary.suffix == ".csv"
        temporary.write_text("new")
    assert (names(tmp_path), path.read_text()) == (["a.csv"], "new")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not readable as JSON"),
        (b"[1]", "expected a JSON object, found list"),
        (b"\xff\xfe", "not readable as JSON"),
        (b'{"a":' + b"[" * 100_000, "not readable as JSON"),
    ],
)
def test_what_is_no_json_object_is_named(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=f"a.json: {message}"):
        read_json(tmp_path / "a.json")


def test_json_has_null_for_what_it_cannot_hold(tmp_path):
    value = {"a": [1.0, float("nan")], "b": (float("-inf"), "x"), "c": {"d": True}}
    write_json(tmp_path / "a.json", value)
    expected = {"a": [1.0, None], "b": [None, "x"], "c": {"d": True}}
    assert read_json(tmp_path / "a.json") == expected == without_nonfinite(value)
    assert json.loads((tmp_path / "a.json").read_text()) == expected
    with pytest.raises(MissingFileError):
        read_json(tmp_path / "b.json")
