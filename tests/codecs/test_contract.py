"""The contract of codecs/base.py, held by every codec of the table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgefl import codecs
from edgefl.core.accumulator import SCALE, Accumulator
from edgefl.errors import CodecError, UsageError

ALL = sorted(codecs.CODECS)
LOSSLESS = ["grid", "planes", "raw32"]
DELTAS = arrays(np.float32, st.integers(0, 40), elements=st.floats(-1000, 1000, width=32))


def state_of(accumulator):
    return accumulator.to_bytes()


@pytest.mark.parametrize("name", LOSSLESS)
@given(delta=DELTAS)
def test_identity_of_the_lossless(name, delta):
    codec = codecs.get(name)
    payload = codec.encode(delta)
    back = codec.decode(payload, len(delta))
    assert back.dtype == np.float32
    assert back.shape == delta.shape
    assert back.tobytes() == delta.tobytes()
    assert codec.lossless
    assert len(payload) <= codec.bound(len(delta))
    assert codec.encode(back) == payload


@pytest.mark.parametrize("name", ALL)
@given(delta=DELTAS, weight=st.integers(1, 2**17))
def test_accumulate_is_decode_times_weight(name, delta, weight):
    codec, accumulator = codecs.get(name), Accumulator(len(delta))
    payload = codec.encode(delta)
    codec.accumulate(payload, weight, accumulator)
    exact = np.rint(codec.decode(payload, len(delta)).astype(np.float64) * SCALE).astype(np.int64) * weight
    assert (accumulator.acc == exact).all()
    assert (accumulator.weight, accumulator.count) == (weight, 1)


@pytest.mark.parametrize("name", ALL)
def test_all_equal_updates_average_to_themselves(name):
    codec, accumulator = codecs.get(name), Accumulator(7)
    payload = codec.encode(np.linspace(-1, 1, 7, dtype=np.float32))
    for weight in (1, 600, 17):
        codec.accumulate(payload, weight, accumulator)
    assert np.allclose(accumulator.mean(), codec.decode(payload, 7), rtol=0, atol=1 / SCALE)


@pytest.mark.parametrize("name", ALL)
def test_i16_malformed_lengths_leave_no_trace(name):
    codec, accumulator = codecs.get(name), Accumulator(5)
    payload = codec.encode(np.ones(5, np.float32))
    codec.accumulate(payload, 3, accumulator)
    before = state_of(accumulator)
    for bad in (b"", payload[:-1], payload + b"\0", payload * 2):
        with pytest.raises(CodecError):
            codec.decode(bad, 5)
        with pytest.raises(CodecError):
            codec.accumulate(bad, 1, accumulator)
    assert state_of(accumulator) == before


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_i16_what_is_not_finite_is_refused_on_both_sides(name, value):
    codec, accumulator = codecs.get(name), Accumulator(5)
    delta = np.float32([0, 1, value, 2, 3])
    with pytest.raises(CodecError, match="coordinate 2"):
        codec.encode(delta)
    if name != "raw32":
        return
    with pytest.raises(CodecError, match="NaN or infinity"):
        codec.decode(delta.tobytes(), 5)
    with pytest.raises(CodecError, match="NaN or infinity"):
        codec.accumulate(delta.tobytes(), 1, accumulator)
    assert state_of(accumulator) == state_of(Accumulator(5))


@pytest.mark.parametrize("name", ALL)
@given(raw=st.binary(max_size=40))
def test_random_payloads_are_counted_or_leave_no_trace(name, raw):
    accumulator = Accumulator(5)
    try:
        codecs.get(name).accumulate(raw, 2**20, accumulator)
    except CodecError:
        assert state_of(accumulator) == state_of(Accumulator(5))


@pytest.mark.parametrize("name", ALL)
def test_max_bytes_is_a_budget(name):
    delta = np.random.default_rng(0).normal(size=999).astype(np.float32)
    size = len(codecs.get(name).encode(delta))
    assert len(codecs.get(name, max_bytes=size).encode(delta)) <= size
    with pytest.raises(CodecError, match="max_bytes"):
        codecs.get(name, max_bytes=3).encode(delta)
    with pytest.raises(CodecError, match="max_bytes"):
        codecs.get("raw32", max_bytes=4 * 999 - 1).encode(delta)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("bad", [0, -1, 1.5, "9"])
def test_absurd_max_bytes_is_refused_at_once(name, bad):
    with pytest.raises(UsageError, match="whole number"):
        codecs.get(name, max_bytes=bad)


@pytest.mark.parametrize("name", ALL)
def test_a_delta_is_one_flat_vector_of_any_float(name):
    codec = codecs.get(name)
    delta = np.linspace(-1, 1, 8)
    assert codec.encode(delta) == codec.encode(delta.astype(np.float32))
    assert codec.encode(delta.repeat(2)[::2]) == codec.encode(delta)
    with pytest.raises(CodecError, match="ravel"):
        codec.encode(delta.reshape(2, 4))


def test_bytes_are_frozen():
    codec, wire = codecs.get("raw32"), "0000803f000000bf"
    assert codec.encode(np.float32([1, -0.5])).hex() == wire
    assert codec.decode(bytes.fromhex(wire), 2).tolist() == [1, -0.5]


def test_wire_ids_are_frozen_and_unique():
    known = {name: type(codecs.get(name)).wire_id for name in codecs.CODECS}
    assert known == {"raw32": 1, "planes": 3, "ecq": 4, "ecq-sparse": 6, "grid": 11}
    assert all(codecs.get(name).name == name for name in known)


def test_ids_of_removed_codecs_are_never_used_again():
    assert codecs.RETIRED == {"f16": 2, "ecq-dither": 5, "ecq-tcq": 7, "qsgd": 8, "topk": 9, "sign": 10}
    used = {type(codecs.get(name)).wire_id for name in codecs.CODECS}
    assert used.isdisjoint(codecs.RETIRED.values())
    for name in codecs.RETIRED:
        with pytest.raises(UsageError, match="was removed: use ecq"):
            codecs.get(name)


def test_misspelt_names_and_options_are_named():
    with pytest.raises(UsageError, match="did you mean 'raw32'"):
        codecs.get("raw23")
    with pytest.raises(UsageError, match="did you mean 'max_bytes'"):
        codecs.get("raw32", max_byte=5)
