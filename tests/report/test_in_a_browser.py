"""Pages in a headless Chromium: nothing is too wide for a phone, all letters can be read."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest

from amfvi.cli.report import read_contents, write_report
from amfvi.report.comparison import compare

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"),
]

MIN_CONTRAST = 4.5
"""Of letters and what is behind them (WCAG 2.2, level AA)."""

KINDS = ("draws", "density", "both", "pairs", "untrusted")

SCHEMES = {"dark": 0, "light": 1}
"""How Chromium numbers color schemes."""

MEASURE = """
const channel = v => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; };
const luminance = c => .2126 * channel(c[0]) + .7152 * channel(c[1]) + .0722 * channel(c[2]);
const numbers = text => text.match(/[\\d.]+/g).map(Number);
frame.onload = () => {
  const page = frame.contentDocument, view = frame.contentWindow;
  page.querySelectorAll("details").forEach(each => { each.open = true; });
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const color = numbers(view.getComputedStyle(e).backgroundColor);
      if (color.length == 3 || color[3] > 0) return color;
    }
  };
  const poor = [];
  for (const element of page.body.querySelectorAll("*")) {
    const own = [...element.childNodes].some(n => n.nodeType == 3 && n.textContent.trim());
    if (!own) continue;
    const lights = [numbers(view.getComputedStyle(element).color), behind(element)]
      .map(luminance).sort((a, b) => b - a);
    const contrast = (lights[0] + .05) / (lights[1] + .05);
    if (contrast < LEAST) poor.push(element.tagName + " " + contrast.toFixed(2));
  }
  const root = page.documentElement;
  result.textContent = JSON.stringify({
    width: root.scrollWidth, poor, dark: view.matchMedia("(prefers-color-scheme: dark)").matches,
    broken: [...page.images].filter(i => !i.complete || !i.naturalWidth).length,
    loaded: view.performance.getEntriesByType("resource").map(e => e.name)
      .filter(name => !name.startsWith("data:")),
  });
};
"""


def look_at(page, folder, width, scheme):
    """What Chromium finds of a page in a frame of some width."""
    literal = json.dumps(page).replace("</", "<\\/")  # no end of our own script
    script = MEASURE.replace("LEAST", str(MIN_CONTRAST)) + f"frame.srcdoc = {literal};"
    frame = f'<iframe id="frame" style="border:0;width:{width}px;height:900px"></iframe>'
    wrapper = folder / "wrapper.html"
    wrapper.write_text(f'<pre id="result"></pre>{frame}<script>{script}</script>', encoding="utf-8")
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
         "--virtual-time-budget=5000", f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
         str(wrapper)],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
    return json.loads(html.unescape(found.group(1)))


@pytest.fixture(scope="module")
def pages(runs):
    pages = {kind: write_report(runs / kind).read_text(encoding="utf-8") for kind in KINDS}
    compared = compare([read_contents(runs / kind, figures=False) for kind in KINDS])
    return {**pages, "comparison": compared.to_html()}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind", [*KINDS, "comparison"])
def test_a_page_can_be_read_on_a_phone_and_in_the_dark(pages, tmp_path, kind, scheme):
    for width in (400, 1400):
        found = look_at(pages[kind], tmp_path, width, scheme)
        assert found["dark"] == (scheme == "dark")
        assert found["width"] <= width
        assert found["poor"] == []
        assert found["broken"] == 0
        assert found["loaded"] == []


def test_a_page_that_is_too_wide_and_too_pale_is_seen(tmp_path):
    page = (
        '<body style="background:#fff"><p style="width:900px;color:#999">pale</p>'
        '<img src="data:image/png;base64,AAAA">'
    )
    found = look_at(page, tmp_path, 400, "light")
    assert found["width"] > 400
    assert found["poor"] == ["P 2.85"]
    assert found["broken"] == 1
