"""The README keeps its word: its example runs and its numbers are those of the results."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RACE = (ROOT / "experiments" / "results" / "race-density.md").read_text(encoding="utf-8")


def block(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_python_example_runs_and_prints_the_verdict_shown(tmp_path):
    (example,) = block("python")
    assert len([line for line in example.splitlines() if line.strip()]) <= 14
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (shown,) = block("text")
    words = [re.sub(r"\d+(\.\d+)?", "#", " ".join(t.split())) for t in (shown, done.stdout)]
    assert words[1].startswith(words[0])


def test_the_first_two_commands_are_whole_lines():
    first, second = block("sh")[0].strip().splitlines()
    assert "venv" in first
    assert first.endswith("amfvi fit --target banana")
    assert "[test]" in second
    assert second.endswith("pytest")
    assert all("-c constraints.txt" in line for line in (first, second))


def test_the_table_is_the_one_in_the_results():
    table = [line for line in RACE.splitlines() if line.startswith("|")]
    assert len(table) == 14
    assert "\n".join(table) in README


def test_every_figure_is_on_a_page_of_results_that_is_linked():
    text = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)|<!--.*?-->", " ", README, flags=re.DOTALL)
    text = text.split("## Sources")[0].split("## How near it comes")[1]
    found = set(re.findall(r"(?<![\w.,/-])\d*\.\d+%?(?![\w.])|(?<![\w.])\d+%", text))
    links = re.findall(r"\]\((experiments/results/[^)]+\.md)\)", README)
    pages = " ".join((ROOT / link).read_text(encoding="utf-8") for link in links)
    assert not {n for n in found if n not in re.findall(r"\d*\.?\d+%?", pages)}


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 130


def test_linked_files_exist():
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).is_file(), link
