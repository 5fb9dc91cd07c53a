"""The code of the documentation's pages runs, and prints what the pages show."""

from __future__ import annotations

import re

import pytest

from docs.pages import PAGES, Page, run

VERDICTS = re.compile(
    r"use with importance weights|do not trust|(?<!not )\btrust\b|miscalibrated|\bcalibrated"
)

NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def numbers_in(text):
    return [float(number) for number in NUMBER.findall(text)]


def with_marks():
    for path in PAGES:
        page = Page.read(path)
        yield pytest.param(page, id=page.name, marks=[pytest.mark.slow] if page.is_slow else [])


@pytest.mark.parametrize("page", list(with_marks()))
def test_the_code_of_a_page_runs_and_gives_what_it_shows(page, tmp_path):
    for module in page.needs:
        pytest.importorskip(module, reason=f"{page.name} needs {module}")
    printed = run(page, tmp_path)
    for shown, real in zip(page.outputs, printed, strict=True):
        if shown:
            assert VERDICTS.findall(shown) == VERDICTS.findall(real)
            assert len(shown.splitlines()) == len(real.strip("\n").splitlines())
            # Another machine's rounding moves the last digits; an old page differs by more.
            assert numbers_in(real) == pytest.approx(numbers_in(shown), rel=0.15, abs=0.05)


def test_some_pages_run_by_default_and_every_output_is_filled_in():
    pages = [Page.read(path) for path in PAGES]
    assert {"tutorial", "verdicts"} <= {page.name for page in pages if not page.is_slow}
    assert not [page.name for page in pages if "```text\n```" in page.text]
