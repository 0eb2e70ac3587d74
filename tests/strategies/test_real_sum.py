"""Sums with real weights: exact enough, the same in any order, bounded in memory whatever devices say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.errors import CodecError
from edgefl.strategies.combine.real_sum import LEAST, MOST, RealSum

P = 20
weights = st.floats(1e-12, 1e12, allow_nan=False)
terms = st.lists(st.tuples(weights, st.integers(0, 2**32)), min_size=1, max_size=12)


def delta(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.05, P).astype(np.float32)


def total(parts: list[tuple[float, int]]) -> np.ndarray:
    summed = RealSum(P)
    for weight, seed in parts:
        summed.add(delta(seed), weight)
    return summed.total()


@given(terms, st.randoms())
def test_i02_the_order_of_real_weights_changes_no_bit(parts, random) -> None:
    shuffled = list(parts)
    random.shuffle(shuffled)
    assert total(parts).tobytes() == total(shuffled).tobytes()


@given(terms)
def test_the_sum_is_that_of_the_weighted_deltas(parts) -> None:
    """Within what float32 and the accumulator's 2^-30 leave of each term, however unlike the weights are."""
    exact = np.sum([weight * delta(seed).astype(np.float64) for weight, seed in parts], axis=0)
    allowed = sum(weight * (np.abs(delta(seed)) * 2.0**-23 + 2.0**-30) for weight, seed in parts)
    assert (np.abs(total(parts) - exact) <= allowed).all()


def test_i13_absurd_weights_take_no_more_than_eight_accumulators() -> None:
    summed = RealSum(P)
    for exponent in range(-300, 301, 3):
        summed.add(delta(1), 10.0**exponent)
    assert len(summed._sums) <= 8
    assert np.isfinite(summed.total()).all()
    assert total([(1e-300, 1)]).tobytes() == total([(LEAST, 1)]).tobytes()
    assert total([(1e300, 1)]).tobytes() == total([(MOST, 1)]).tobytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38, 2.0**40])
def test_i16_what_is_refused_leaves_nothing_behind(bad: float) -> None:
    summed = RealSum(P)
    summed.add(delta(1), 3.7)
    before = summed.total().tobytes()
    with pytest.raises(CodecError):
        summed.add(np.full(P, bad, np.float32), 1.9)
    assert summed.total().tobytes() == before
    assert RealSum(P).total().tolist() == [0.0] * P
