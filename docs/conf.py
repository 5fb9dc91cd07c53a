"""Sphinx configuration. Build with: sphinx-build -W --keep-going -b dirhtml docs build/site."""

from __future__ import annotations

import re
import shutil
from importlib.metadata import version as installed_version
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]

project = "amfvi"
copyright = "the authors of amfvi"
version = release = installed_version("amfvi")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["README.md"]

myst_enable_extensions = ["colon_fence", "attrs_inline", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
# Names for what a function takes, rather than all that numpy turns into an array.
autodoc_type_aliases = {
    name: name
    for name in (
        "ConstraintsLike", "DensityLike", "DrawsLike", "ExpertsLike", "GivenLike", "InputLike",
        "PairsLike", "WeightsLike",
    )
}  # fmt: skip
toc_object_entries_show_parents = "hide"
autodoc_preserve_defaults = True
maximum_signature_line_length = 80
napoleon_use_ivar = True
napoleon_numpy_docstring = False
add_module_names = False
suppress_warnings = ["ref.python"]  # attributes of one name in several classes
default_role = "literal"

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
# Outputs are not to be copied.
copybutton_selector = "div:not(.highlight-text) > div.highlight > pre"

# Only what lies in the site itself is loaded: system fonts, no script from elsewhere.
html_theme = "furo"
html_title = f"amfvi {release}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"
pygments_dark_style = "monokai"


def copy_results(app: Sphinx) -> None:
    """Put the pages of experiments/results beside the others, as they are."""
    into = Path(app.srcdir) / "results"
    shutil.rmtree(into, ignore_errors=True)
    shutil.copytree(ROOT / "experiments" / "results", into, ignore=shutil.ignore_patterns("*.json"))


def link_results(app: Sphinx, name: str, source: list[str]) -> None:
    """Turn links to experiments/results, as they are in the repository, into links in the site."""
    source[0] = re.sub(r"\]\((\.\./)+experiments/results/", "](/results/", source[0])


def name_aliases(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:  # fmt: skip
    """Write a type alias within a union as its name alone."""

    def named(text: str | None) -> str | None:
        return text and re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", text)

    return named(signature), named(returns)


def setup(app: Sphinx) -> None:
    """Bring in the results before pages are read."""
    app.connect("builder-inited", copy_results)
    app.connect("source-read", link_results)
    app.connect("autodoc-process-signature", name_aliases)
