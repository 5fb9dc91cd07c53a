"""Cells are run once, saved whole, and never confused with those of another version."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from amfvi.errors import InputError
from experiments.__main__ import main
from experiments.lab.archive import pack_cells, unpack_cells
from experiments.lab.cells import CellStore, run_in_own_process
from experiments.lab.provenance import Provenance

NOW = Provenance(sources="a" * 64, code="1", commit="commit 1", made_with="torch 1")
LATER = Provenance(sources="b" * 64, code="2", commit="commit 2", made_with="torch 1")
CELLS = [{"target": "banana", "seed": seed} for seed in range(3)]


@pytest.fixture
def store(tmp_path):
    return CellStore(folder=tmp_path, experiment="study")


@pytest.fixture
def counted():
    """A function that runs a cell, and the cells that it has run."""
    ran = []

    def run(cell, folder):
        ran.append(cell)
        return [{"kl": 0.5 + cell["seed"]}, {"kl": float("inf")}]

    return run, ran


def test_a_finished_cell_is_read_and_not_run_again(store, counted):
    run, ran = counted
    first = store.run_all(CELLS, run, NOW)
    second = store.run_all(CELLS, run, NOW)
    assert ran == CELLS
    assert second == first
    assert [cell.parameters for cell in first] == CELLS
    assert first[1].full_rows[0] == {"target": "banana", "seed": 1, "kl": 1.5}
    assert first[0].rows[1]["kl"] == float("inf")
    assert all(cell.seconds >= 0 and cell.made_with == "torch 1" for cell in first)


def test_an_interrupted_experiment_goes_on_where_it_stopped(store, counted):
    run, ran = counted

    def interrupted(cell, folder):
        if cell["seed"] == 1:
            raise KeyboardInterrupt
        return run(cell, folder)

    with pytest.raises(KeyboardInterrupt):
        store.run_all(CELLS, interrupted, NOW)
    assert ran == CELLS[:1]
    rows = [cell.full_rows for cell in store.run_all(CELLS, run, NOW)]
    assert ran == CELLS
    assert rows == [[cell | {"kl": 0.5 + cell["seed"]}, cell | {"kl": float("inf")}]
                    for cell in CELLS]  # fmt: skip


def test_a_cell_of_other_sources_is_run_again(store, counted):
    run, ran = counted
    store.run(CELLS[0], run, NOW)
    cell = store.run(CELLS[0], run, LATER)
    assert len(ran) == 2
    assert cell.commit == "commit 2"
    assert store.run(CELLS[0], run, NOW).commit == "commit 1"  # both are kept
    assert len(ran) == 2


def test_cells_of_an_archive_are_those_of_another_version(store, counted, tmp_path):
    run, ran = counted
    cells = store.run_all(CELLS, run, NOW)
    pack_cells(cells, tmp_path / "study.jsonl")
    elsewhere = CellStore(folder=tmp_path / "elsewhere", experiment="study", any_version=True)
    unpack_cells(tmp_path / "study.jsonl", elsewhere)
    read = elsewhere.read_all([*CELLS, {"target": "rings", "seed": 0}], LATER)
    assert [cell.full_rows for cell in read] == [cell.full_rows for cell in cells]
    assert [cell.commit for cell in read] == ["commit 1"] * 3
    assert len(ran) == 3
    (tmp_path / "study.jsonl").write_text('{"rows": []}\n')
    with pytest.raises(InputError, match="line 1: not a finished cell"):
        unpack_cells(tmp_path / "study.jsonl", elsewhere)


def test_a_page_of_the_cells_that_are_finished_says_how_many_are_not(tmp_path, capsys):
    options = ["--tiny", "--folder", str(tmp_path / "cells"), "--results", str(tmp_path)]
    with pytest.raises(InputError, match="no cell of verdicts is finished"):
        main(["verdicts", "--seeds", "1", "--only-finished", *options])
    main(["verdicts", "--seeds", "1", "--archive", *options])
    assert "cells are finished" not in (tmp_path / "verdicts.md").read_text()
    main(["verdicts", "--seeds", "2", "--only-finished", *options])
    assert "2 of 4 cells are finished" in (tmp_path / "verdicts.md").read_text()
    assert len((tmp_path / "verdicts.jsonl").read_text().splitlines()) == 2


@pytest.mark.slow
def test_chosen_cells_are_run_alone_and_the_page_is_of_all_that_are_finished(tmp_path):
    options = ["verdicts", "--tiny", "--seeds", "2", "--folder", str(tmp_path / "cells")]
    options += ["--results", str(tmp_path), "--only"]
    main([*options, "seed=1"])
    assert "2 of 4 cells are finished" in (tmp_path / "verdicts.md").read_text()
    main([*options, "seed=0,1"])
    assert "cells are finished" not in (tmp_path / "verdicts.md").read_text()
    with pytest.raises(InputError, match=r"no cell has {'seed': '7'}, expected .*seed: 0, 1"):
        main([*options, "seed=7"])
    with pytest.raises(SystemExit):
        main([*options, "seed"])


def test_cells_of_other_sources_are_taken_if_that_is_asked_for(store, counted, tmp_path):
    run, ran = counted
    store.run(CELLS[0], run, NOW)
    lenient = CellStore(folder=tmp_path, experiment="study", any_version=True)
    assert lenient.run(CELLS[0], run, LATER).commit == "commit 1"
    assert lenient.run(CELLS[1], run, LATER).commit == "commit 2"
    assert ran == CELLS[:2]


def test_a_cell_of_other_parameters_is_not_taken_for_this_one(store, counted):
    run, ran = counted
    store.run({"a": 1, "seed": 23}, run, NOW)
    store.run({"b": 1, "seed": 23}, run, NOW)
    assert len(ran) == 2


def test_nothing_is_left_of_a_cell_that_cannot_be_written(store, tmp_path):
    with pytest.raises(TypeError):
        store.run(CELLS[0], lambda cell, folder: [{"kl": object()}], NOW)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_failures_are_skipped_only_if_that_is_asked_for(store, counted, capsys):
    run, _ = counted

    def fail(cell, folder):
        if cell["seed"] == 1:
            raise RuntimeError("out of luck")
        return run(cell, folder)

    finished = store.run_all(CELLS, fail, NOW, skip_failures=True)
    assert [cell.parameters["seed"] for cell in finished] == [0, 2]
    assert "seed=1 failed: out of luck" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="out of luck"):
        store.run_all(CELLS, fail, NOW)


def test_provenance_can_depend_on_the_cell(store, counted):
    run, ran = counted

    def of_cell(cell):
        return NOW if cell["seed"] == 0 else LATER

    store.run_all(CELLS, run, NOW)
    commits = [cell.commit for cell in store.run_all(CELLS, run, of_cell)]
    assert commits == ["commit 1", "commit 2", "commit 2"]
    assert len(ran) == 5


def test_a_process_of_its_own_returns_or_raises():
    assert run_in_own_process(os.getpid) != os.getpid()
    with pytest.raises(ZeroDivisionError):
        run_in_own_process(divmod, 1, 0)


@pytest.mark.slow
def test_a_study_that_was_killed_ends_with_the_same_page(tmp_path, fits, start):
    options = ("weights", "--tiny", "--seeds", "2", "--folder", "cells", "--results", "results")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    cut.mkdir()
    main([*options[:-4], "--folder", str(fits), "--results", str(whole / "results")])
    with start("experiments", *options, cwd=cut) as process:
        while not finished_cells(cut) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    kept = finished_cells(cut)
    assert len(kept) == 1
    with start("experiments", *options, cwd=cut) as process:
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert kept.items() <= finished_cells(cut).items()
    pages = [(folder / "results" / "weights.md").read_text() for folder in (whole, cut)]
    (page, made_with), (same_page, _) = (text.split("Made with") for text in pages)
    assert page == same_page
    assert "torch" in made_with


def finished_cells(folder):
    """When each finished cell was written, by the name of its file; each is whole."""
    cells = [p for p in folder.glob("cells/*/weights/*.json") if not p.name.startswith(".")]
    assert all(len(json.loads(path.read_text())["rows"]) == 8 for path in cells)
    return {path.name: path.stat().st_mtime_ns for path in cells}
