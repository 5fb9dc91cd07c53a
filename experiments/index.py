"""The page that lists every study's question and short answer."""

from __future__ import annotations

from pathlib import Path

__all__ = ["STUDIES", "write_index"]

STUDIES = (
    "table2", "weights", "beta", "diversity", "divergence", "joint", "gating", "experts",
    "dimension", "budget", "early_stopping",
)  # fmt: skip


def write_index(results: Path) -> None:
    """Write ``index.md``: a line for every page that is in the folder."""
    lines = ["# What is true of mixtures of flows", "",
             "Each page is made by one command, which it names, from cells that anyone can run "
             "again; `python experiments/all.py` runs all of them.", "",
             "| question | answer |", "|---|---|"]  # fmt: skip
    for name in STUDIES:
        path = results / f"{name}.md"
        if path.is_file():
            page = path.read_text()
            question, brief = page.split("\n", 1)[0].removeprefix("# "), page.split("**")[1]
            lines.append(f"| [{question}]({name}.md) | {brief} |")
    (results / "index.md").write_text("\n".join([*lines, ""]))
