"""The laws of Accumulator: order and grouping change no bit, and a refused update leaves none changed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.core.accumulator import Accumulator
from edgefl.core.plan import Node, Param, Plan
from edgefl.core.trainer import Trainer
from edgefl.errors import CodecError

P = 5
deltas = st.lists(st.floats(-100, 100, width=32), min_size=P, max_size=P).map(lambda x: np.array(x, "<f4"))
updates = st.lists(st.tuples(deltas, st.integers(1, 10_000)), min_size=1, max_size=6)


def total(parts):
    acc = Accumulator(P)
    for delta, weight in parts:
        acc.add_f32(delta.tobytes(), weight)
    return acc


@given(updates, st.randoms())
def test_order_and_grouping_change_no_bit(parts, random):
    expected = total(parts).to_bytes()
    shuffled = random.sample(parts, len(parts))
    assert total(shuffled).to_bytes() == expected
    cut = random.randint(0, len(parts))
    left, right = total(shuffled[:cut]), total(shuffled[cut:])
    right.merge(Accumulator.from_bytes(left.to_bytes(), P))
    assert right.to_bytes() == expected


def test_every_permutation_of_four_updates():
    rng = np.random.default_rng(0)
    parts = [(rng.standard_normal(P).astype("<f4"), int(n)) for n in rng.integers(1, 99, 4)]
    assert len({total(order).mean().tobytes() for order in itertools.permutations(parts)}) == 1


@given(updates)
def test_mean_is_the_weighted_mean(parts):
    acc = total(parts)
    x, weights = np.array([d for d, _ in parts], np.float64), [w for _, w in parts]
    assert np.allclose(acc.mean(), np.average(x, axis=0, weights=weights), rtol=1e-6, atol=2**-30)
    assert (acc.weight, acc.count) == (sum(weights), len(parts))
    assert acc.mean().dtype == np.float32


@pytest.mark.parametrize("weight", [1, 3, 60_000, 12_345_679])
def test_a_lone_trained_delta_comes_back_bit_exactly(weight):
    plan = Plan([9], [Node("dense", [0], [0])], [Param("w", [9, 700])], "mse", 1, 1)
    rng = np.random.default_rng(1)
    params, x, y = (rng.standard_normal(s).astype(np.float32) for s in (plan.num_params, (20, 9), (20, 700)))
    delta = Trainer(plan).fit(params, x, y, lr=3.0).delta
    acc = Accumulator(delta.size)
    acc.add_f32(delta.astype("<f4").tobytes(), weight)
    assert acc.mean().tobytes() == delta.tobytes()
    assert np.abs(delta).min() < 2**-12, "no small coordinate to lose bits of"


def full():
    """An accumulator with room for less than 2^33 * 2^20 more."""
    acc = Accumulator(P)
    acc.add_f32(np.full(P, 1.5, "<f4").tobytes(), 2**32)
    return acc


@pytest.mark.parametrize(
    ("value", "weight"),
    [(np.nan, 1), (np.inf, 1), (-np.inf, 1), (1, 0), (1, -1), (1, 2**32 + 1), (1e30, 1), (2**32, 1), (0.5, 2**32)],
)
def test_a_refused_update_leaves_no_trace(value, weight):
    acc = full()
    before = acc.to_bytes()
    with pytest.raises(CodecError):
        acc.add_f32(np.array([0, 1, value, 0, 0], "<f4").tobytes(), weight)
    assert acc.to_bytes() == before


def test_headroom_is_exact():
    acc = Accumulator(1)
    peak = np.array([2**33 - 1024], "<f4").tobytes()
    acc.add_f32(peak, 1)
    with pytest.raises(CodecError, match="overflow"):
        acc.add_f32(peak, 1)
    assert acc.acc[0] == (2**33 - 1024) * 2**30


def test_merge_checks_length_and_headroom():
    acc = full()
    before = acc.to_bytes()
    with pytest.raises(CodecError, match="params"):
        acc.merge(Accumulator(P + 1))
    with pytest.raises(CodecError, match="overflow"):
        acc.merge(full())
    assert acc.to_bytes() == before


@pytest.mark.parametrize("cut", [0, 1, -4, -1])
def test_wrong_lengths_are_refused(cut):
    with pytest.raises(CodecError):
        Accumulator.from_bytes(full().to_bytes()[:cut], P)
    with pytest.raises(CodecError):
        Accumulator(P).add_f32(bytes(4 * P)[:cut], 1)


def test_a_partial_sum_beyond_its_bound_is_refused():
    data = bytearray(full().to_bytes())
    data[-1] = 0x80
    with pytest.raises(CodecError, match="damaged"):
        Accumulator.from_bytes(bytes(data), P)
    with pytest.raises(CodecError, match="damaged"):
        Accumulator.from_bytes(b"\xff" * len(data), P)


def test_the_mean_of_nothing_is_zero():
    assert not Accumulator(3).mean().any()
