"""Robust rules against ByzFL 0.0.11, with its parameters, and Bulyan against NumPy (tests/support/byzfl_golden.py)."""

from __future__ import annotations

import json

import numpy as np
import pytest
from byzfl_golden import CASES, rules, vectors
from conftest import ROOT

from edgefl import codecs, strategies
from edgefl.settings.spec import split
from edgefl.strategies import Update

RAW = codecs.get("raw32")
GOLDEN = json.loads((ROOT / "tests" / "golden" / "byzfl.json").read_text())


def ours(spec: str, case: int, found: np.ndarray) -> np.ndarray:
    """Our rule's delta of these vectors."""
    n, d, f = CASES[case]
    spec = spec.replace("n-f-1", str(n - f - 1)).replace("trusted=2", "trusted=dev-02")
    name, options = split(spec)
    strategy = strategies.get(name, f=f, **options)
    strategy.start(np.zeros(d, np.float32), 1)
    for number in np.random.default_rng(5).permutation(n):
        strategy.add(Update(f"dev-{number:02d}", 1 + int(number), RAW, RAW.encode(np.float32(found[number]))))
    return strategy.finish()


@pytest.mark.parametrize("case", range(len(CASES)))
@pytest.mark.parametrize("spec", sorted(GOLDEN["0"]))
def test_each_rule_is_byzfls(spec: str, case: int) -> None:
    expected = np.array(GOLDEN[str(case)][spec])
    result = ours(spec, case, vectors(case))
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_the_golden_results_are_of_these_rules() -> None:
    """Where ByzFL is installed, they are computed anew."""
    pytest.importorskip("byzfl", reason="byzfl is not installed: its golden results stand for it")
    for case, (_, _, f) in enumerate(CASES):
        for spec, rule in rules(f).items():
            np.testing.assert_allclose(GOLDEN[str(case)][spec], rule(vectors(case)), rtol=1e-9)


def krum_scores(found: np.ndarray, f: int) -> np.ndarray:
    away = ((found[:, None] - found[None]) ** 2).sum(-1)
    return np.array([np.sort(np.delete(row, i))[: max(1, len(found) - f - 2)].sum() for i, row in enumerate(away)])


@pytest.mark.parametrize(("n", "f"), [(7, 1), (11, 2), (15, 3), (20, 4)])
def test_bulyan_is_the_papers(n: int, f: int) -> None:
    found = np.random.default_rng(n).normal(size=(n, 9)) * np.linspace(0.5, 2, n)[:, None]
    found = found.astype(np.float32).astype(np.float64)
    left, selected = list(range(n)), []
    for _ in range(n - 2 * f):
        selected.append(left.pop(int(np.argmin(krum_scores(found[left], f)))))
    among = found[selected]
    nearest = np.argsort(np.abs(among - np.median(among, axis=0)), axis=0, kind="stable")[: n - 4 * f]
    expected = np.take_along_axis(among, nearest, axis=0).mean(axis=0)
    strategy = strategies.get("bulyan", f=f)
    strategy.start(np.zeros(9, np.float32), 1)
    for number, delta in enumerate(found):
        strategy.add(Update(f"dev-{number:02d}", 1, RAW, RAW.encode(np.float32(delta))))
    np.testing.assert_allclose(strategy.finish(), expected, rtol=1e-5)
