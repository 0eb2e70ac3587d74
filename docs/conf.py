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
    "examples/plugin/README.md",
    "examples/mcu/README.md",
]
exclude_patterns = [".*", "build", "dist", "src", "tests", "edgefl", "**/__pycache__"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3  # links to headings work as they do on a forge
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_type_aliases = {"ArrayLike": "ArrayLike"}  # NumPy's own name instead of its ten lines
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"EdgeFL {release}"
html_copy_source = False


def plain_text_to_rst(*event: Any) -> None:
    """Docstrings are plain text: backticks hold code, a star is a star, an indented block is shown as it is."""
    lines = event[-1]
    blocks = re.split(r"\n\n(?=    )|(?<=\n)\n(?=\S)", "\n".join(lines) + "\n")
    for i, block in enumerate(blocks):
        if block.startswith("    "):
            blocks[i] = "::\n\n" + block
            continue
        pieces = block.split("`")
        for k, piece in enumerate(pieces):
            pieces[k] = f"``{piece}``\\ " if k % 2 else re.sub(r"([*|\\])", r"\\\1", piece)
        blocks[i] = "".join(pieces)
    lines[:] = "\n\n".join(blocks).split("\n")


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", plain_text_to_rst)
