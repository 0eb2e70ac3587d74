"""docs/cli.md is what the programs say of themselves."""

from __future__ import annotations

import importlib.util

from conftest import ROOT


def test_the_page_is_what_the_programs_help_says(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    spec = importlib.util.spec_from_file_location("write_cli", ROOT / "docs" / "write_cli.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert text.count("\n### ") > 20
    assert text == module.page(), "stale: run `python docs/write_cli.py`"
