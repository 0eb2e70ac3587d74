"""Frequency tables: src/codecs/tables.c against a reference in float64 and Python's integers."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl import _core

TOTAL, ESCAPE = 4096, 255
CLOSE = 1e-9  # relative; sums of logarithms in another order
SOME = st.lists(st.tuples(st.integers(0, 255), st.integers(1, 9) | st.integers(1, 5000)), max_size=12)


def counts_of(found: list[tuple[int, int]], falling: int = 0) -> np.ndarray:
    """(256,) uint64: symbol and count of each pair, and a quantizer's falling counts from `falling` on."""
    counts = np.zeros(256, np.uint64)
    for symbol, count in found:
        counts[symbol] += np.uint64(count)
    for k in range(20):
        counts[2 * k + 1 : 2 * k + 3] += np.uint64(falling >> k)
    return counts


def cost_bits(counts: np.ndarray, frequencies: np.ndarray) -> float:
    """Of symbols that occur `counts` times; infinity if one of them has frequency 0."""
    occurring = counts > 0
    if not frequencies[occurring].all():
        return np.inf
    return float((counts[occurring] * (12 - np.log2(frequencies[occurring].astype(np.float64)))).sum())


def geometric(zero: int, decay: int, last: int) -> np.ndarray | None:
    """(256,) as tables.h says; None if nothing is left for 0."""
    escape, last, weights = last >> 7, last & 127, [1 << 32]
    while len(weights) < last:
        weights.append(weights[-1] * decay >> 8)
    room, total = max(0, TOTAL - 16 * zero - 8), 2 * sum(weights[:last])
    found = np.zeros(256, np.int64)
    for k in range(last):
        found[2 * k + 1 : 2 * k + 3] = max(1, room * weights[k] // total)
    found[ESCAPE] = escape
    found[0] = TOTAL - found.sum()
    return found if found[0] >= 1 else None


def fitted(counts: np.ndarray) -> float:
    """The fewest bits of the twelve geometric tables near what follows from `counts`; infinity if none is fit."""
    magnitudes, used = (np.arange(ESCAPE) + 1) // 2, np.flatnonzero(counts[:ESCAPE])
    last = (int(used[-1]) + 1) // 2 if len(used) else 0
    others = int(counts[1:ESCAPE].sum())
    mean = int((counts[:ESCAPE] * magnitudes.astype(np.uint64)).sum()) / max(1, others)
    share, slope = 256 * (int(counts[0]) / max(1, int(counts.sum()))), 256 * (1 - 1 / mean) if mean > 1 else 0.0
    tables = [
        geometric(min(255, max(0, round(share - 0.5) + z)), min(255, max(0, round(slope) + d)),
                  last | (128 if counts[ESCAPE] else 0))
        for z in (-1, 0, 1) for d in (-24, -8, 0, 8)
    ]  # fmt: skip
    return min(cost_bits(counts, table) if table is not None else np.inf for table in tables)


@given(found=SOME, falling=st.just(0) | st.integers(1, 8000))
def test_the_best_table_is_the_shorter_of_two_and_is_read_as_it_was_written(
    found: list[tuple[int, int]], falling: int
) -> None:
    counts = counts_of(found, falling)
    data, frequencies, bits = _core.best_tables(counts[None])
    assert (data, bits) == (_core.best_tables(counts[None])[0], _core.best_tables(counts[None])[2])
    again, size = _core.read_tables(np.frombuffer(data, np.uint8), 1)
    assert size == len(data) and (again == frequencies).all() and frequencies.sum() == TOTAL
    assert bits == pytest.approx(cost_bits(counts, frequencies[0]), rel=CLOSE, abs=CLOSE)
    exact = _core.rans_normalise(counts)
    explicit = 8 * len(_core.write_table(exact)) + cost_bits(counts, exact)
    if len(_core.write_table(exact)) > 6 and counts.sum() < 2**14:
        explicit = min(explicit, 8 * 4 + fitted(counts))
    assert 8 * len(data) + bits == pytest.approx(explicit, rel=CLOSE, abs=CLOSE)


@given(zero=st.integers(0, 255), decay=st.integers(0, 255), last=st.integers(0, 255))
def test_a_geometric_table_says_what_its_formula_says(zero: int, decay: int, last: int) -> None:
    data, wanted = np.array([1, zero, decay, last], np.uint8), geometric(zero, decay, last)
    if wanted is None:
        with pytest.raises(ValueError, match="nothing for zero"):
            _core.read_tables(data, 1)
    else:
        found, size = _core.read_tables(data, 1)
        assert size == 4 and (found[0] == wanted).all()


@given(data=st.binary(max_size=40), count=st.integers(1, 16))
def test_any_bytes_are_tables_that_sum_up_or_a_value_error(data: bytes, count: int) -> None:
    try:
        found, size = _core.read_tables(data, count)
    except ValueError:
        return
    assert (found.sum(axis=1) == TOTAL).all() and size <= len(data)


def costs(counts: np.ndarray) -> np.ndarray:
    """(33, 33): about the bits of contexts i to j - 1 with one table, and of the table."""

    def weight(k: np.ndarray) -> float:
        k = k[k > 0].astype(np.float64)
        return float((k * np.log2(k)).sum())

    cost = np.full((33, 33), np.inf)
    for i in range(32):
        for j in range(i + 1, 33):
            found = counts[i:j].sum(axis=0)
            cost[i, j] = weight(found.sum()[None]) - weight(found) + 8 * min(4 + np.count_nonzero(found), 12)
    return cost


@given(rows=st.lists(st.tuples(st.integers(0, 31), SOME), max_size=8))
def test_contexts_are_grouped_as_cheaply_as_runs_of_them_can_be(rows: list[tuple[int, list[tuple[int, int]]]]) -> None:
    counts = np.zeros((32, 256), np.uint64)
    for context, found in rows:
        counts[context] += counts_of(found)
    groups, bits = _core.group_contexts(counts)
    steps = np.diff(groups.astype(int))
    assert groups[0] == 0 and set(steps.tolist()) <= {0, 1} and groups[-1] < _core.MAX_TABLES
    cost = costs(counts)
    ends = [0, *(np.flatnonzero(steps) + 1).tolist(), 32]
    assert bits == pytest.approx(sum(cost[i, j] for i, j in pairwise(ends)), rel=CLOSE, abs=1e-6)
    best = np.array([0.0] + [np.inf] * 32)
    least = np.inf
    for _ in range(_core.MAX_TABLES):
        best = (best[:, None] + cost).min(axis=0)
        least = min(least, best[32])
    assert bits == pytest.approx(least, rel=CLOSE, abs=1e-6)
    assert (_core.group_contexts(counts)[0] == groups).all()
