"""docs/guarantees.md speaks of every promise, and of tests that exist."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest
from conftest import ROOT

SECTIONS = re.split(r"^### (?=I\d\d )", (ROOT / "docs" / "guarantees.md").read_text(), flags=re.MULTILINE)[1:]


@cache
def defined() -> set[str]:
    """Names of all test functions and classes."""
    found = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Assign):  # a rule-based machine is bound to its TestCase
                found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def test_every_promise_is_spoken_of_in_order():
    assert [section[:3] for section in SECTIONS] == [f"I{n:02d}" for n in range(1, 40)]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section[:3])
def test_a_promise_names_tests_that_exist_or_says_that_it_is_not_held(section):
    named = re.findall(r"`([Tt]est\w+)`", section)
    assert named or "**Not held**" in section
    assert set(named) <= defined()
