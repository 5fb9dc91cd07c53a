"""The page that lists the questions and brief answers of all studies."""

from __future__ import annotations

import json
from pathlib import Path

from amfvi.files import new_file

__all__ = ["STUDIES", "record_answer", "write_index"]

STUDIES = (
    "table2", "weights", "beta", "diversity", "divergence", "joint", "gating", "experts",
    "dimension", "budget", "early_stopping", "verdicts", "conditional",
)  # fmt: skip
"""Names of the studies, in the order of the index."""

UNPUBLISHED = ("branches",)
"""Names of studies that have no page yet; they run only when named."""

ANSWERS = "index.json"
"""The file with question and brief answer of every study by name, from which the index is made."""


def record_answer(results: Path, name: str, question: str, brief: str) -> None:
    """Keep a study's question and brief answer for the index."""
    answers = _read_answers(results) | {name: {"question": question, "brief": brief}}
    ordered = {s: answers[s] for s in (*STUDIES, *UNPUBLISHED) if s in answers}
    with new_file(results / ANSWERS, overwrite=True) as temporary:
        text = json.dumps(ordered, indent=1, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def write_index(results: Path) -> None:
    """Write ``index.md``: one line per study that has an answer in the folder."""
    lines = [
        "# What is true of mixtures of flows", "",
        "Each page is made by one command, which it names, from cells that can be run "
        "again; `python -m experiments` runs all of them.", "",
        "| question | answer |", "|---|---|",
    ]  # fmt: skip
    for name, answer in _read_answers(results).items():
        lines.append(f"| [{answer['question']}]({name}.md) | {answer['brief']} |")
    with new_file(results / "index.md", overwrite=True) as temporary:
        temporary.write_text("\n".join([*lines, ""]), encoding="utf-8")


def _read_answers(results: Path) -> dict[str, dict[str, str]]:
    """Questions and brief answers by study; none if there is no such file."""
    path = results / ANSWERS
    if not path.is_file():
        return {}
    answers: dict[str, dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
    return answers
