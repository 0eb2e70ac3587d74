"""ONNX's own node tests: EdgeFL refuses, or predicts what they expect; and it still takes those that it took."""

from __future__ import annotations

from pathlib import Path

import pytest
from backend_cases import RIGHT, WRONG, cases, judge

KNOWN = Path(__file__).parent.parent / "golden" / "backend-right.txt"


@pytest.mark.parametrize("op", sorted({case.op for case in cases().values()}))
def test_no_node_test_is_taken_and_computed_wrongly(op: str) -> None:
    known = set(KNOWN.read_text().split())
    found = {case.name: judge(case) for case in cases().values() if case.op == op}
    assert {name: verdict.why for name, verdict in found.items() if verdict.what == WRONG} == {}
    gone = {name: verdict.why for name, verdict in found.items() if name in known and verdict.what != RIGHT}
    assert gone == {}, "these were right before"
