"""The report of a run: one page that loads nothing, for every kind of run."""

from __future__ import annotations

import json
import re
import shutil
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

import amfvi
from amfvi.cli.report import read_contents, try_to_write_report, write_report
from amfvi.errors import InputError
from amfvi.report.advice import ADVICE
from amfvi.report.command import command_of

KINDS = ("draws", "density", "both", "pairs", "untrusted")
"""The runs of the fixture ``runs``."""

MAX_BYTES = 3_000_000

VOID = {"meta", "img", "br", "link", "input", "hr"}

LOADING = ("src", "href", "srcset", "data", "action", "poster", "background")
"""Attributes by which a page loads what is elsewhere."""


class Page(HTMLParser):
    """The structure of a page."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.headings, self.text = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def pages(runs):
    return {kind: write_report(runs / kind).read_text(encoding="utf-8") for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_whole_and_loads_nothing(pages, kind):
    text = pages[kind]
    page = Page(text)
    assert page.open == []
    assert page.named("html")[0]["lang"] == "en"
    assert any(meta.get("name") == "viewport" for meta in page.named("meta"))
    for tag in ("script", "link", "iframe", "object", "embed", "base", "form"):
        assert not page.named(tag)
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in LOADING:
            assert attributes.get(name, "data:").startswith(("data:", "#"))
    assert not re.search(r"url\(|@import", text)
    assert len(text.encode()) < MAX_BYTES


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_can_be_read_aloud(pages, kind):
    page = Page(pages[kind])
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    steps = zip(page.headings, page.headings[1:], strict=False)
    assert all(after <= before + 1 for before, after in steps)
    images = page.named("img")
    assert bool(images) == (kind in ("draws", "density", "pairs"))
    assert all(image["alt"].strip() and int(image["width"]) > 0 for image in images)
    assert len(page.named("details")) >= 3
    assert len(page.named("details")) == len(page.named("summary"))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("draws", ["no verdict", "Wasserstein-2", "--log-density", "Scores on 60 test draws"]),
        ("density", ["log Z", "k̂", "ELBO", "EUBO", "effective draws", "Corner plot"]),
        ("both", ["log Z", "by bridge sampling", "given draws with their log density"]),
        (
            "pairs",
            [
                "calibrated",
                "simulation-based calibration",
                "amfvi sample",
                "--given c=…",
                "Parameters against a condition",
            ],
        ),
        ("untrusted", ["do not trust", "Do not use its draws", "What to do next"]),
    ],
)
def test_a_page_says_what_its_run_found(pages, kind, words):
    text = " ".join(" ".join(Page(pages[kind]).text).split())
    alts = " ".join(image["alt"] for image in Page(pages[kind]).named("img"))
    for word in words:
        assert word in text + alts
    assert "amfvi fit" in text


@pytest.mark.parametrize("kind", ["draws", "density", "both", "untrusted"])
def test_numbers_are_those_of_the_summary(pages, runs, kind):
    run = read_contents(runs / kind)
    text = Page(pages[kind]).text
    for values in run.parameters.values():
        for value in values.values():
            assert f"{value:.4g}" in text
    if run.density is not None:
        assert f"{run.density['log_z']:.4f} ± {run.density['log_z_se']:.4f}" in text
        assert all(reason in text for reason in run.density["reasons"])


def test_a_hostile_name_is_shown_and_does_nothing(pages, runs, hostile):
    assert hostile in read_contents(runs / "draws").parameters
    page = Page(pages["draws"])
    assert hostile in page.text
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.named("img"))
    assert "<y>" in "".join(Page(pages["pairs"]).text)


def test_a_run_without_figures_has_a_report(runs, tmp_path):
    shutil.copytree(runs / "density", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "figures")
    page = Page(write_report(tmp_path / "run").read_text(encoding="utf-8"))
    assert not page.named("img")
    assert "log Z" in page.text


def test_a_report_is_quick_and_no_error_of_it_is_raised(runs, tmp_path, monkeypatch):
    write_report(runs / "density")
    started = time.process_time()
    path, error = try_to_write_report(runs / "density")
    assert (path, error) == (runs / "density" / "report.html", "")
    assert time.process_time() - started < 0.3

    def broken(_):
        raise RuntimeError("no\ntemplate")

    monkeypatch.setattr("amfvi.report.page.render_report", broken)
    assert try_to_write_report(runs / "density") == (None, "no report was written: no template")


def test_a_damaged_run_has_no_report(runs, tmp_path):
    for kind in ("density", "pairs"):
        file = shutil.copytree(runs / kind, tmp_path / kind) / "metrics.json"
        file.write_text(file.read_text().replace('"total"', '"all"', 1))
        with pytest.raises(InputError, match="damaged or edited"):
            write_report(tmp_path / kind)
    copy = shutil.copytree(runs / "draws", tmp_path / "draws")
    (copy / "figures" / "draws.png").write_text("<svg>")
    with pytest.raises(InputError, match="no PNG file"):
        write_report(copy)


def test_advice_is_for_reasons_that_exist():
    folder = Path(amfvi.__file__).parent / "diagnostics"
    source = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    joined = re.sub(r'"\s*\n\s*f?"', "", source)
    assert [words for words in ADVICE if words not in joined] == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_makes_the_same_settings(runs, kind):
    config = json.loads((runs / kind / "config.json").read_text())
    words = command_of(config)
    assert words.startswith("amfvi fit ")
    assert ("--max-refinements 0" in words) == (kind in ("density", "both"))
    assert ("--given c" in words) == (kind == "pairs")
    assert "--experts gmm" in words
    assert "--folds 2" in words


@pytest.mark.parametrize("kind", ["draws", "density"])
def test_the_last_row_of_scores_is_explained_by_its_name(pages, kind):
    last = re.findall(r'<tr class="truth">\s*<th[^>]*>(\w+)', pages[kind])
    for name in last:
        assert f"The row “{name}” is" in pages[kind]
    assert last or "The row" not in pages[kind]
