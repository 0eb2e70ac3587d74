"""The page: one HTML, one CSS and one JavaScript file, as a server sends them, or all in one file with its data."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

import msgspec

# What a browser may do with the page: read it and its own server, and nothing else.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
ASSETS = {
    "page.html": "text/html; charset=utf-8",
    "board.css": "text/css; charset=utf-8",
    "board.js": "text/javascript; charset=utf-8",
}
_CSS = '<link rel="stylesheet" href="board.css">'
_JS = '<script src="board.js" defer></script>'
_DATA = '<script type="application/json" id="data">null</script>'


def asset(name: str) -> bytes:
    """One of ASSETS."""
    return (files(__package__) / "assets" / name).read_bytes()


def whole(data: object) -> str:
    """The page as one file: style, script and `data` are inside, and nothing else may be loaded."""
    page, css, js = (asset(name).decode() for name in ASSETS)
    policy = (
        f"default-src 'none'; script-src '{_hash(js)}'; style-src '{_hash(css)}'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )
    text = msgspec.json.encode(data).decode().replace("<", "\\u003c")  # so that no text in it ends the script
    page = page.replace(
        '<meta charset="utf-8">',
        f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{policy}">',
    )
    page = page.replace(_CSS, f"<style>{css}</style>")
    page = page.replace(_DATA, _DATA.replace("null", text, 1) + f"\n<script>{js}</script>")
    return page.replace(_JS, "")


def _hash(text: str) -> str:
    """How a content security policy names an inline script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
