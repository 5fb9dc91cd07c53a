"""Run the Python of a page of the documentation, and write what it prints into the page.

A page's blocks of ``python`` are one program, run in order in a process and a folder of its own;
a block of ``text`` right after one is what it prints. ``python -m docs.pages docs/tutorial.md``
runs a page, renews these blocks, and keeps the pictures that the page writes in docs/pictures.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PAGES", "Page", "run"]

DOCS = Path(__file__).parent
PAGES = sorted(
    path
    for path in DOCS.rglob("*.md")
    if "results" not in path.parts and "```python\n" in path.read_text(encoding="utf-8")
)
"""The pages that have code, without the results of experiments."""

BLOCK = re.compile(r"```python\n(?P<code>.*?)```\n(?:\s*```text\n(?P<output>.*?)```\n)?", re.DOTALL)
MARK = "\x1e"
"""Printed after each block, so that outputs can be told apart."""


@dataclass(frozen=True)
class Page:
    """A page with code.

    Attributes:
        path: of its file.
        text: what is in it.
    """

    path: Path
    text: str

    @classmethod
    def read(cls, path: Path) -> Page:
        """The page in a file."""
        return cls(path, path.read_text(encoding="utf-8"))

    @property
    def name(self) -> str:
        """Its path in the documentation, without its ending."""
        return str(self.path.resolve().relative_to(DOCS.resolve()).with_suffix(""))

    @property
    def is_slow(self) -> bool:
        """Whether it says of itself that it takes long."""
        return re.search(r"\A---\n(?:.*\n)*?run: slow\n", self.text) is not None

    @property
    def needs(self) -> list[str]:
        """Modules that it says it needs."""
        found = re.search(r"\A---\n(?:.*\n)*?needs: (.*)\n", self.text)
        return [] if found is None else found[1].split(", ")

    @property
    def program(self) -> str:
        """All of its code, which prints a mark after each block."""
        mark = f"\nprint({MARK!r}, end='', flush=True)\n"
        return "".join(found["code"] + mark for found in BLOCK.finditer(self.text))

    @property
    def outputs(self) -> list[str]:
        """What it shows below each block of code; an empty string below one that shows nothing."""
        return [found["output"] or "" for found in BLOCK.finditer(self.text)]

    def with_outputs(self, outputs: list[str]) -> str:
        """The text of the page with other outputs where it shows some."""
        left = iter(outputs)

        def renewed(found: re.Match[str]) -> str:
            output = next(left)
            if found["output"] is None:
                return found[0]
            return f"```python\n{found['code']}```\n\n```text\n{output.rstrip()}\n```\n"

        return BLOCK.sub(renewed, self.text)


def run(page: Page, folder: Path) -> list[str]:
    """Run a page's code in a folder and return what each block prints.

    Raises:
        RuntimeError: the program failed; the message has its standard error.
    """
    done = subprocess.run(
        [sys.executable, "-c", page.program],
        cwd=folder,
        env={"OMP_NUM_THREADS": "1", "JAX_ENABLE_X64": "1", **os.environ, "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{page.name}: {done.stderr}")
    return done.stdout.split(MARK)[:-1]


def main() -> None:
    """Renew the pages named on the command line."""
    for name in sys.argv[1:]:
        page = Page.read(Path(name))
        with tempfile.TemporaryDirectory() as folder:
            page.path.write_text(page.with_outputs(run(page, Path(folder))), encoding="utf-8")
            for picture in Path(folder).glob("*.png"):
                shutil.copy(picture, DOCS / "pictures")


if __name__ == "__main__":
    main()
