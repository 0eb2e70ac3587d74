"""docs/troubleshooting.md quotes log lines that exist."""

from __future__ import annotations

import ast
import re

from conftest import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()


def literals() -> str:
    """All texts in the sources of library, agent and aggregator, each on a line; a value in an f-string is "{}"."""
    found = []
    for folder in ("edgefl", "device_agent", "broker"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
                elif isinstance(node, ast.JoinedStr):
                    parts = [p.value if isinstance(p, ast.Constant) else "{}" for p in node.values]
                    found.append("".join(map(str, parts)))
    return "\n".join(found)


def test_every_line_that_is_explained_is_one_that_is_logged() -> None:
    said = literals()
    quoted = re.findall(r"^\| `([^`]+)`", PAGE, flags=re.MULTILINE)
    assert len(quoted) > 15
    assert [text for text in quoted if text not in said] == []
