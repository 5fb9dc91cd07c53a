"""A hash that follows the sources, and a page that says what it was made with."""

from __future__ import annotations

import importlib
from dataclasses import replace
from importlib.metadata import version

import pytest
import torch

import amfvi
from experiments.lab import provenance
from experiments.lab.provenance import Provenance, describe_all, source_hash

ONE = Provenance(sources="0", code="1111", commit="commit abc", made_with="torch 2")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package on the path, and a function that hashes it anew."""
    folder = tmp_path / "hashed_package"
    (folder / "room").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "room" / "module.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()

    def fresh_hash():
        source_hash.cache_clear()
        return source_hash("hashed_package")

    yield folder, fresh_hash
    source_hash.cache_clear()


def test_the_hash_follows_contents_and_names(package):
    folder, fresh_hash = package
    first = fresh_hash()
    assert fresh_hash() == first
    (folder / "README.md").write_text("not source")
    assert fresh_hash() == first
    (folder / "room" / "module.py").write_text("x = 2\n")
    second = fresh_hash()
    assert second != first
    (folder / "room" / "module.py").rename(folder / "room" / "renamed.py")
    assert fresh_hash() not in (first, second)


def test_the_hash_is_of_all_three_folders():
    hashes = {source_hash(name) for name in (*provenance.AMFVI, "experiments.lab.peers")}
    assert len(hashes) == 4
    with pytest.raises(ModuleNotFoundError):
        source_hash("amfvi.no_such_module")


def test_a_process_is_described():
    current = Provenance.current()
    assert f"torch {version('torch')}" in current.made_with
    assert f"{torch.get_num_threads()} threads" in current.made_with
    assert current.sources == current.code
    assert Provenance.current(["amfvi.targets"]).sources != current.code


def test_changes_since_the_commit_are_told(monkeypatch):
    answers = {"rev-parse": "abc1234", "status": " M amfvi/mixture.py"}
    monkeypatch.setattr(provenance, "_git", lambda command, *_: answers[command])
    describe = provenance.describe_commit.__wrapped__  # past its cache
    assert describe() == "commit abc1234 with changes"
    answers["status"] = ""
    assert describe() == "commit abc1234"
    monkeypatch.setattr(provenance, "_git", lambda *_: None)
    assert describe() == "no commit"


def test_a_page_says_if_versions_are_combined():
    assert describe_all([ONE, ONE]) == "Made with torch 2, by commit abc (sources 1111)."
    faster = replace(ONE, made_with="torch 3")
    assert describe_all([faster, ONE]).startswith("Made with torch 2; torch 3, by commit abc")
    committed = replace(ONE, commit="commit def")  # the same sources
    assert describe_all([ONE, committed]).endswith(
        "2, by commit abc and commit def (sources 1111)."
    )
    changed = replace(committed, code="2222")
    assert describe_all([ONE, changed]) == (
        "Made with torch 2. Cells of several versions of the code are combined: "
        "commit abc (sources 1111); commit def (sources 2222)."
    )


def test_the_hash_covers_the_amfvi_that_is_imported():
    folder = provenance.find_spec("amfvi").submodule_search_locations[0]
    assert amfvi.__file__.startswith(folder)
