"""Results shown in the documentation are those of the results pages."""

from __future__ import annotations

import re

import pytest

from docs.pages import DOCS

RESULTS = DOCS.parent / "experiments" / "results"
RESEARCH = (DOCS / "research.md").read_text(encoding="utf-8")
OTHER = (DOCS / "other-tools.md").read_text(encoding="utf-8")


def page(name):
    return (RESULTS / f"{name}.md").read_text(encoding="utf-8")


def test_the_table_is_the_one_in_the_results():
    table = page("canonical-10000").split("\n\n")[3]
    assert table.startswith("| target |")
    assert len(table.splitlines()) == 8
    assert table in RESEARCH


def test_the_race_is_the_one_in_the_results():
    race = page("race-10000")
    table = race.split("\n\n")[4]
    assert table.startswith("| method |")
    assert table in RESEARCH
    verdicts = re.findall(r"^\| robust \|(?:[^|]*\|){4} ([^|]*) \|$", race, flags=re.MULTILINE)
    assert verdicts == ["no run above the best peer + 2 SE"] * 6  # as the page says


def test_the_race_by_density_is_the_one_in_the_results():
    table = [line for line in page("race-density").splitlines() if line.startswith("|")]
    assert len(table) == 14
    assert "\n".join(table) in RESEARCH


def test_the_fits_by_density_are_those_in_the_results():
    table = RESEARCH.split("<!-- rows of experiments/results/from-density.md -->\n")[1]
    shown = table.split("\n\n")[0].splitlines()[2:]
    assert len(shown) == 6
    for line in shown:
        cells = line.strip("| ").split(" | ")
        row = next(
            row for row in page("from-density").splitlines() if row.startswith(f"| {cells[0]} |")
        )
        assert set(cells) <= set(row.strip("| ").split(" | "))


def test_the_answers_are_those_of_the_index():
    rows = [line for line in page("index").splitlines() if line.startswith("|")]
    assert "\n".join(rows).replace("](", "](../experiments/results/") in RESEARCH


def test_every_page_of_results_is_in_the_site():
    listed = set(re.findall(r"^results/(\S+)$", RESEARCH, flags=re.MULTILINE))
    assert listed == {path.stem for path in RESULTS.glob("*.md")}


def numbers(text):
    """Decimals and percentages, without the code, links and comments around them."""
    text = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)|<!--.*?-->", " ", text, flags=re.DOTALL)
    return set(re.findall(r"(?<![\w.,/-])\d*\.\d+%?(?![\w.])|(?<![\w.])\d+%", text))


SECTIONS = [
    *(re.split(r"^## ", RESEARCH, flags=re.MULTILINE)[1:]),
    OTHER.split("## What amfvi cannot do\n")[1],
]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda text: text.splitlines()[0] or "limits")
def test_every_figure_is_on_a_page_that_its_section_links_to(section):
    links = re.findall(r"\]\(\.\./experiments/results/([^)]+)\.md\)", section)
    pages = " ".join(page(link) for link in links)
    unknown = {n for n in numbers(section) if n not in re.findall(r"\d*\.?\d+%?", pages)}
    assert not unknown
