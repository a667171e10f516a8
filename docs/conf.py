"""Configuration of Sphinx: `make docs` builds the site into docs/_build/site."""

from pathlib import Path
from typing import Any

from alexnet import __version__
from alexnet.learn import write_course

project = "alexnet"
author = "the alexnet authors"
project_copyright = "MIT license"
version = release = __version__
language = "en"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_argparse_cli",
]
exclude_patterns = ["_build"]

# Docstrings are NumPy style with single backquotes for code, as in Markdown.
default_role = "literal"
napoleon_google_docstring = False
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries = False

# Types in docstrings, such as "path", are also names of attributes: no reference is meant.
suppress_warnings = ["ref.python"]

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

html_theme = "pydata_sphinx_theme"
html_title = f"alexnet {__version__}"
html_theme_options = {
    "logo": {"text": "alexnet"},
    "header_links_before_dropdown": 7,
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_toc_level": 2,
}
html_show_sourcelink = False


def set_language(app: Any, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Declare Korean pages as Korean, for screen readers and hyphenation."""
    if page.endswith(".ko"):
        context["language"] = "ko"


def add_course(app: Any, error: Exception | None) -> None:
    """Write the pages of `alexnet learn` beside the documentation."""
    if error is None and app.builder.name == "html":
        write_course(Path(app.outdir) / "learn")


def setup(app: Any) -> None:
    """Connect the events."""
    app.connect("html-page-context", set_language)
    app.connect("build-finished", add_course)
