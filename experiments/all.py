"""Every study, one after the other, and an index of their pages.

    python experiments/all.py [--seeds 5] [--quick]

Cells that are finished are not run again.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from study import Study, command

STUDIES = (
    "table2", "weights", "beta", "diversity", "divergence", "joint", "gating", "experts",
    "dimension", "budget", "early_stopping",
)  # fmt: skip


def study(name: str) -> Study:
    found: Study = importlib.import_module(name).STUDY
    return found


def write_index(results: Path) -> None:
    """A page with the question and the answer of every page that is there."""
    lines = ["# What is true of mixtures of flows", "",
             "Each page is made by one command, which it names, from cells that anyone can run "
             "again: `python experiments/all.py` runs all of them.", ""]  # fmt: skip
    for name in STUDIES:
        page = results / f"{name}.md"
        if page.is_file():
            answer = page.read_text().split("\n\n")[1]
            lines += [f"## [{study(name).question}]({name}.md)", "", answer, ""]
    (results / "index.md").write_text("\n".join(lines))


def main() -> None:
    for name in STUDIES:
        write_index(command(study(name)))


if __name__ == "__main__":
    main()
