"""The documentation site: `make docs` builds it into build/docs, offline and strictly (a warning is an error).

The source folder is the repository itself, so that links between pages work here as they do in a checkout. Pages are
Markdown, and the API reference is made of the docstrings. Only MathJax is fetched, by the reader's browser.
"""

import re
from typing import Any

import edgefl

project = "EdgeFL"
author = "the EdgeFL authors"
version = release = edgefl.__version__
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "broker/README.md",
    "device_agent/README.md",
    "benchmarks/README.md",
    "examples/README.md",
]
exclude_patterns = [".*", "build", "dist", "src", "tests", "edgefl", "**/__pycache__"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3  # links to headings work as they do on a forge
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"EdgeFL {release}"
html_copy_source = False


def plain_text_to_rst(*event: Any) -> None:
    """Docstrings are plain text in which single backticks hold code and a star is a star."""
    lines = event[-1]
    pieces = "\n".join(lines).split("`")
    for i, piece in enumerate(pieces):
        pieces[i] = f"``{piece}``\\ " if i % 2 else re.sub(r"([*|\\])", r"\\\1", piece)
    lines[:] = "".join(pieces).split("\n")


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", plain_text_to_rst)
