"""Sums, sorts and means of all updates' rows against NumPy, at sizes around every tile and lane."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl import _core

SIZES = [(1, 1), (2, 3), (3, 4), (4, 5), (5, 513), (7, 1024), (20, 37), (33, 600), (64, 9)]


def made(k: int, c: int) -> np.ndarray:
    rng = np.random.default_rng(k * 1000 + c)
    rows = rng.normal(size=(k, c)).astype(np.float32)
    rows[rng.random((k, c)) < 0.3] = 0  # many ties, as with sparse codecs
    rows[rng.random((k, c)) < 0.05] *= np.float32(1e20)
    return rows


@pytest.mark.parametrize(("k", "c"), SIZES)
def test_rows_are_numpys(k: int, c: int) -> None:
    rows = made(k, c)
    wide = rows.astype(np.float64)
    gram = np.ones((k, k))
    _core.gram(rows, gram)
    np.testing.assert_allclose(np.tril(gram), np.tril(wide @ wide.T + 1), rtol=1e-12, atol=1e-12 * (wide**2).sum())
    assert (np.triu(gram, 1) == np.triu(np.ones((k, k)), 1)).all()

    weights = np.random.default_rng(1).normal(size=(5, k))
    out = np.empty((5, c), np.float32)
    _core.mix_rows(out, weights, rows)
    np.testing.assert_allclose(out, weights @ wide, rtol=1e-6, atol=1e-6 * np.abs(wide).max())

    ordered = rows.copy()
    _core.sort_columns(ordered)
    assert (ordered == np.sort(rows, axis=0)).all()
    one = np.empty(c, np.float32)
    for first, last in ((0, k), (k // 3, k - k // 3), (k - 1, k)):
        _core.mean_rows(one, ordered, first, last)
        np.testing.assert_allclose(one, ordered[first:last].mean(0, dtype=np.float64), rtol=1e-6)
    for keep in {1, (k + 1) // 2, k}:
        _core.mean_nearest(one, ordered, keep)
        sorted_wide = ordered.astype(np.float64)
        away = np.abs(sorted_wide - np.median(sorted_wide, axis=0))
        nearest = np.argsort(away, axis=0, kind="stable")[:keep]
        mean = np.take_along_axis(sorted_wide, nearest, axis=0).mean(axis=0)
        np.testing.assert_allclose(one, mean, rtol=1e-6, atol=1e-30)


def test_the_same_values_in_other_columns_give_the_same_bits() -> None:
    """A chunk may begin at any coordinate: vectors, and the rest that is none, must agree."""
    rows = made(9, 23)
    weights = np.random.default_rng(2).normal(size=(6, 9)).astype(np.float32).astype(np.float64)
    whole = np.empty((6, 23), np.float32)
    _core.mix_rows(whole, weights, rows)
    for start in range(5):
        part = np.empty((6, 23 - start), np.float32)
        _core.mix_rows(part, weights, np.ascontiguousarray(rows[:, start:]))
        assert part.tobytes() == whole[:, start:].tobytes()


def test_shapes_that_do_not_fit_are_refused() -> None:
    rows, one = np.zeros((3, 4), np.float32), np.zeros(4, np.float32)
    for call in (
        lambda: _core.gram(rows, np.zeros((2, 3))),
        lambda: _core.mix_rows(np.zeros((2, 4), np.float32), np.zeros((2, 4)), rows),
        lambda: _core.mix_rows(np.zeros((3, 4), np.float32), np.zeros((2, 3)), rows),
        lambda: _core.mean_rows(one, rows, 2, 2),
        lambda: _core.mean_rows(one, rows, 0, 4),
        lambda: _core.mean_rows(one[:3], rows, 0, 3),
        lambda: _core.mean_nearest(one, rows, 0),
        lambda: _core.mean_nearest(one, rows, 4),
        lambda: _core.mean_nearest(one[:2], rows, 1),
    ):
        with pytest.raises(ValueError, match=r"must|is \(m,c\)"):
            call()
    for empty in (np.zeros((0, 3), np.float32), np.zeros((3, 0), np.float32)):
        _core.sort_columns(empty)
        _core.gram(empty, np.zeros((len(empty), len(empty))))
