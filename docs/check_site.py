"""Check a built site: links within it lead somewhere, and nothing is loaded from elsewhere.

``python -m docs.check_site build/site`` prints what is wrong, and exits with 1 if anything is.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["check_site"]


class _Page(HTMLParser):
    """The links, the anchors and the loaded files of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.add(found["href"])
        elif tag == "link" and found.get("rel") in ("stylesheet", "preload", "icon"):
            self.loaded.add(found["href"])
        elif "src" in found:
            self.loaded.add(found["src"])


def check_site(site: Path) -> list[str]:
    """What is wrong with the site in a folder, one line each."""
    pages = {
        path.resolve(): _Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")
    }
    wrong = [] if pages else [f"{site}: no pages are there"]
    for path, page in pages.items():
        name = path.relative_to(site.resolve())
        for link in page.links | page.loaded:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.loaded and parts.scheme != "data":
                    wrong.append(f"{name}: loads {link}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                wrong.append(f"{name}: {link} is not there")
                continue
            there = pages[target].anchors if target in pages else {parts.fragment}
            if parts.fragment and unquote(parts.fragment) not in there:
                wrong.append(f"{name}: {link} has no such place")
    return sorted(wrong)


def main() -> None:
    """Check the site named on the command line."""
    wrong = check_site(Path(sys.argv[1]))
    print("\n".join(wrong) or "every link within the site leads somewhere")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
