"""What the documentation lists is what there is: reasons, public names, commands, pictures."""

from __future__ import annotations

import ast
import re

import amfvi
from docs.check_site import check_site
from docs.pages import DOCS

ROOT = DOCS.parent
VERDICTS = (DOCS / "verdicts.md").read_text(encoding="utf-8")


def literals(path, keep):
    """Of each function of a file that ``keep`` accepts, the words it returns, in pieces."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and keep(node):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            pieces = [
                piece.value
                for statement in body
                for piece in ast.walk(statement)
                if isinstance(piece, ast.Constant) and isinstance(piece.value, str)
            ]
            if any(" " in piece for piece in pieces):
                yield node.name, pieces


def gives_reasons(node):
    return node.returns is not None and ast.unparse(node.returns) in ("str | None", "list[str]")


REASONS = dict(
    pair
    for path in ("amfvi/diagnostics/reasons.py", "amfvi/diagnostics/agreement.py")
    for pair in literals(path, gives_reasons)
)


def shown_reasons():
    """The pieces, between dots and numbers, of every reason in the tables of the page."""
    for row in re.findall(r'^\| "(.*?)" \|', VERDICTS, flags=re.MULTILINE):
        yield row, [piece.strip(" %") for piece in row.split("…") if piece.strip(" %,:")]


def test_every_reason_against_a_fit_is_explained():
    assert len(REASONS) >= 16
    for name, pieces in REASONS.items():
        text = " ".join(pieces)
        assert any(all(part in text for part in parts) for _, parts in shown_reasons()), name


def test_every_reason_that_is_explained_exists():
    files = [
        *(ROOT / "amfvi" / "diagnostics" / name for name in (
            "reasons.py", "agreement.py", "verdict.py", "calibration_report.py")),
        ROOT / "amfvi" / "conditional" / "observations.py",
    ]  # fmt: skip
    source = " ".join(path.read_text(encoding="utf-8") for path in files)
    joined = re.sub(r'"\s*f?"', "", source)
    for row, parts in shown_reasons():
        for part in parts:
            assert part in joined, f"{row!r} has {part!r}, which no reason says"


def test_the_reference_has_every_public_name():
    pages = " ".join(path.read_text(encoding="utf-8") for path in (DOCS / "api").glob("*.md"))
    documented = set(re.findall(r"auto\w+:: amfvi\.(\w+)", pages))
    modules = {"experts", "metrics", "targets"}
    assert set(amfvi.__all__) - modules <= documented
    assert {f"amfvi.{name}" for name in re.findall(r"auto\w+:: amfvi\.(experts\.\w+)", pages)} >= {
        f"amfvi.experts.{name}" for name in ("MAF", "RealNVP", "RBIG", "NSF", "GMM", "TMM")
    }


def test_the_command_line_page_shows_every_command():
    from amfvi.cli.commands import app

    known = {
        (c.name or c.callback.__name__).replace("_", "-")
        for c in app.registered_commands
        if c.callback
    }
    page = (DOCS / "how-to" / "command-line.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^amfvi (\S+)", page, flags=re.MULTILINE)) == known


def test_links_between_pages_and_to_pictures_lead_somewhere():
    for path in DOCS.rglob("*.md"):
        if "results" in path.parts:
            continue
        text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)#:]+)[)#]", text):
            assert (path.parent / link).is_file(), f"{path.name}: {link}"


def test_pictures_are_described_and_small():
    pictures = list((DOCS / "pictures").glob("*.png"))
    assert sum(path.stat().st_size for path in pictures) < 1_500_000
    pages = " ".join(path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md"))
    for path in pictures:
        assert re.search(rf"!\[[^\]]{{20,}}\]\(\S*{path.name}\)", pages), path.name


def test_dead_links_and_things_from_elsewhere_are_found(tmp_path):
    (tmp_path / "index.html").write_text(
        '<a href="gone.html">x</a><a href="#nowhere">x</a><a href="https://example.org">x</a>'
        '<script src="https://example.org/a.js"></script><p id="here"><a href="#here">x</a>'
    )
    found = check_site(tmp_path)
    assert [line.split(": ")[1] for line in found] == [
        "#nowhere has no such place",
        "gone.html is not there",
        "loads https://example.org/a.js",
    ]


def test_a_site_of_no_pages_is_wrong(tmp_path):
    assert check_site(tmp_path / "site") == [f"{tmp_path / 'site'}: no pages are there"]
