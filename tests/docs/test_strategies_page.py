"""docs/strategies.md has the table that strategies declare, and a formula for each of them."""

from __future__ import annotations

import sys

import pytest
from conftest import ROOT

from edgefl.strategies import STRATEGIES, get
from edgefl.strategies.fit import FEATURES, NEEDS


@pytest.fixture(scope="module")
def writer():
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import write_strategies
    finally:
        sys.path.pop(0)
    return write_strategies


def test_the_table_is_current(writer):
    assert writer.PAGE.read_text(encoding="utf-8") == writer.page(), "run: python docs/write_strategies.py"


def test_every_strategy_has_a_row_and_is_in_the_prose(writer):
    page = writer.PAGE.read_text(encoding="utf-8")
    for name in STRATEGIES:
        assert f"| `{name}` |" in page, name
        assert f"`{name}`" in page.replace(writer.table(), ""), name


def test_what_is_excluded_or_needed_is_in_the_table_with_its_reason(writer):
    lines = writer.table().splitlines()
    for name in STRATEGIES:
        fit = get(name, **writer.OPTIONS.get(name, {})).fit
        for told, known in ((fit.without, FEATURES), (fit.needs, NEEDS)):
            for feature, why in told.items():
                found = [line for line in lines if line.startswith(f"- `{name}`, ") and line.endswith(f": {why}.")]
                assert len(found) == 1 and known[feature].column in found[0], (name, feature)
