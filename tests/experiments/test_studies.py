"""Every study runs from end to end, small, and its page in the repository is that of its rows."""

from __future__ import annotations

import csv
import math
import re
import sys

import pytest

from amfvi.experts import EXPERTS
from experiments.__main__ import load_study, main
from experiments.lab.index import STUDIES, UNPUBLISHED, record_answer, write_index
from experiments.lab.pages import RESULTS
from experiments.lab.study import Size

UNBOUNDED = {
    "beta": {"steps"},  # where the rule does not arrive in time
    "divergence": {"kl", "without", "expert_kl", "expert_nll", "expert_train_nll"},
}
"""Columns that may be infinite, by study."""


@pytest.fixture(autouse=True)
def _experts_as_they_were(monkeypatch):
    """Forget an expert that a study has added."""
    monkeypatch.delitem(EXPERTS, "cnf", raising=False)
    monkeypatch.delitem(sys.modules, "experiments.lab.continuous", raising=False)


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return [{key: value_of(text) for key, value in row.items() for text in [value]}
                for row in csv.DictReader(file)]  # fmt: skip


def value_of(text):
    """The JSON value that a CSV entry was made from."""
    if text in ("", "True", "False"):
        return {"": None, "True": True, "False": False}[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return american(text)


def american(text):
    """Pages and tables are older than the spelling of the code."""
    return re.sub(r"(normal|regular)is", r"\1iz", text)


def figures(text):
    return re.findall(r"\d[\d,]*\.?\d*|∞", text)


QUICK = ("weights", "verdicts")
"""The studies whose pages are made in the fast suite."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in (*STUDIES, *UNPUBLISHED)
    ],
)
@pytest.mark.usefixtures("small_metrics")
def test_a_study_ends_in_a_page(name, fits, tmp_path, capsys):
    main([name, "--tiny", "--seeds", "1", "--folder", str(fits), "--results", str(tmp_path)])
    study, size = load_study(name), Size(name="tiny", seeds=1)
    rows = read_csv(tmp_path / f"{name}.csv")
    cells = study.cells(size)
    per_cell = [[row for row in rows if cell.items() <= row.items()] for cell in cells]
    assert sum(map(len, per_cell)) == len(rows) > 0
    assert len({len(of_cell) for of_cell in per_cell}) == 1
    for row in rows:
        for key, value in row.items():
            if isinstance(value, float) and key not in UNBOUNDED.get(name, ()):
                assert math.isfinite(value), (key, row)
    page = (tmp_path / f"{name}.md").read_text(encoding="utf-8")
    assert page in capsys.readouterr().out
    title, answer, figure = page.split("\n\n")[:3]
    assert title == f"# {study.question}"
    assert re.match(r"\*\*[^*]+\.\*\* \S.*\.$", answer)
    assert figure == f"![{name}]({name}.png)"
    assert f"`python -m experiments {name} --seeds 1`" in page
    assert not re.search(r"\bnan\b", page)
    assert answer.split("**")[1] in (tmp_path / "index.md").read_text(encoding="utf-8")
    assert (tmp_path / f"{name}.png").stat().st_size > 5_000


@pytest.mark.parametrize("name", STUDIES)
def test_a_page_has_the_figures_of_its_rows(name):
    """The report of the published rows has the published tables and answer."""
    report = load_study(name).report(read_csv(RESULTS / f"{name}.csv"))
    page = american((RESULTS / f"{name}.md").read_text(encoding="utf-8"))
    tables = [[figures(line) for line in lines if line.startswith("|")]
              for lines in (report.body, page.splitlines())]  # fmt: skip
    assert tables[0] == tables[1]
    assert len(tables[0]) > 3
    assert figures(f"{report.brief} {report.answer}") == figures(page.split("\n\n")[1])


def test_every_study_is_in_the_index():
    files = {path.stem for path in (RESULTS.parent / "studies").glob("*.py")} - {"__init__"}
    assert files == {*STUDIES, *UNPUBLISHED}
    assert all(load_study(name).name == name for name in files)


def test_the_index_is_that_of_the_answers(tmp_path):
    """Question and brief of each page are what the index was made from."""
    for name in reversed(STUDIES):
        page = (RESULTS / f"{name}.md").read_text(encoding="utf-8")
        question, answer = page.split("\n\n")[:2]
        record_answer(tmp_path, name, question.removeprefix("# "), answer.split("**")[1])
    write_index(tmp_path)
    assert (tmp_path / "index.md").read_text() == (RESULTS / "index.md").read_text()
    assert (tmp_path / "index.json").read_text() == (RESULTS / "index.json").read_text()


def test_an_empty_index_has_no_lines(tmp_path):
    write_index(tmp_path)
    assert (tmp_path / "index.md").read_text().endswith("| question | answer |\n|---|---|\n")


def test_sizes_and_grids():
    size = Size(name="quick", seeds=2)
    assert size.choose(1, 2, 3) == 2
    cells = size.grid(target=["a", "b"], n=5)
    assert cells[1] == {"target": "a", "n": 5, "n_test": 10_000, "seed": 1}
    assert [cell["target"] for cell in cells] == ["a", "a", "b", "b"]


def test_an_unknown_study_is_an_error(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["weihgts"])
    assert stopped.value.code == 2
    assert "no study weihgts (studies: table2, weights" in capsys.readouterr().err
