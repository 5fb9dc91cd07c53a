"""The README keeps its word: its example runs and its numbers are those of the results."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize(
    ("number", "printed"),
    [
        (0, "Posterior(d = 2, maf:"),
        (1, "trust: "),
        (2, "trust: "),
        (3, "calibrated"),
    ],
    ids=["draws", "density", "draws with a density", "pairs"],
)
def test_the_python_examples_run_as_they_stand(tmp_path, number, printed):
    examples = block("python")
    assert len(examples) == 4
    example = examples[number]
    assert len([line for line in example.splitlines() if line.strip()]) <= 14
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert printed in done.stdout
    assert number > 0 or (tmp_path / "my-posterior" / "manifest.json").is_file()


def test_the_first_two_commands_are_whole_lines():
    first, second = block("sh")[0].strip().splitlines()
    assert "venv" in first
    assert first.endswith("amfvi fit --target banana")
    assert "[test]" in second
    assert second.endswith("pytest")
    assert all("-c constraints.txt" in line for line in (first, second))


def test_the_table_is_the_one_in_the_results():
    page = (ROOT / "experiments" / "results" / "canonical-10000.md").read_text(encoding="utf-8")
    table = page.split("\n\n")[3]
    assert table.startswith("| target |")
    assert len(table.splitlines()) == 8
    assert table in README


def test_the_race_is_the_one_in_the_results():
    page = (ROOT / "experiments" / "results" / "race-10000.md").read_text(encoding="utf-8")
    table = page.split("\n\n")[4]
    assert table.startswith("| method |")
    assert table in README
    verdicts = re.findall(r"^\| robust \|(?:[^|]*\|){4} ([^|]*) \|$", page, flags=re.MULTILINE)
    assert verdicts == ["no run above the best peer + 2 SE"] * 6  # as README says


def test_the_race_by_density_is_the_one_in_the_results():
    page = (ROOT / "experiments" / "results" / "race-density.md").read_text(encoding="utf-8")
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert len(table) == 14
    assert "\n".join(table) in README


def test_the_fits_by_density_are_those_in_the_results():
    page = (ROOT / "experiments" / "results" / "from-density.md").read_text(encoding="utf-8")
    table = README.split("<!-- rows of experiments/results/from-density.md -->\n")[1]
    shown = table.split("\n\n")[0].splitlines()[2:]
    assert len(shown) == 6
    for line in shown:
        cells = line.strip("| ").split(" | ")
        row = next(line for line in page.splitlines() if line.startswith(f"| {cells[0]} |"))
        assert set(cells) <= set(row.strip("| ").split(" | "))


def test_the_answers_are_those_of_the_index():
    page = (ROOT / "experiments" / "results" / "index.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("|")]
    table = "\n".join(rows).replace("](", "](experiments/results/")
    assert table in README


def numbers(text):
    """Decimals and percentages, without the code, links and comments around them."""
    text = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)|<!--.*?-->", " ", text, flags=re.DOTALL)
    return set(re.findall(r"(?<![\w.,/-])\d*\.\d+%?(?![\w.])|(?<![\w.])\d+%", text))


@pytest.mark.parametrize(
    "section", re.findall(r"^(?:## How near|###|## What it cannot).*$", README, flags=re.MULTILINE)
)
def test_every_figure_is_on_a_page_that_its_section_links_to(section):
    text = re.split(r"^##", README.split(f"{section}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]
    links = re.findall(r"\]\((experiments/results/[^)]+\.md)\)", text)
    pages = " ".join((ROOT / link).read_text(encoding="utf-8") for link in links)
    unknown = {n for n in numbers(text) if n not in re.findall(r"\d*\.?\d+%?", pages)}
    assert not unknown


def test_every_command_shown_exists():
    from amfvi.cli.commands import app

    known = {
        (c.name or c.callback.__name__).replace("_", "-")
        for c in app.registered_commands
        if c.callback
    }
    shown = set(re.findall(r"^amfvi (\S+)", README, flags=re.MULTILINE))
    assert shown == known


def test_linked_files_exist():
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).is_file(), link
