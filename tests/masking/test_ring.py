"""The ring: packed numbers are read back, and sums are those of Python's integers modulo 2^m."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl import _core
from edgefl.errors import CodecError
from edgefl.masking import ring

BITS = st.integers(2, 32)
SEEDS = st.integers(0, 2**32 - 1)


def numbers(n: int, bits: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**bits, n, dtype=np.uint64).astype(np.uint32)


def plainly_packed(vector: np.ndarray, bits: int) -> bytes:
    """The format's definition, as one large integer."""
    whole = sum(int(each) << i * bits for i, each in enumerate(vector))
    return whole.to_bytes(-(-len(vector) * bits // 8), "little")


@given(n=st.integers(0, 70), bits=BITS, seed=SEEDS)
def test_packed_bytes_are_those_of_the_definition(n, bits, seed):
    vector = numbers(n, bits, seed)
    data = ring.pack(vector, bits)
    assert data == plainly_packed(vector, bits) and len(data) == ring.packed_bytes(n, bits)
    assert (ring.unpack(data, n, bits) == vector).all()


@given(n=st.integers(1, 70), bits=BITS, seed=SEEDS)
def test_higher_bits_are_left_out(n, bits, seed):
    vector = np.random.default_rng(seed).integers(0, 2**32, n, dtype=np.uint64).astype(np.uint32)
    assert ring.pack(vector, bits) == plainly_packed(vector & np.uint32(2**bits - 1), bits)


@given(n=st.integers(1, 40), bits=BITS, count=st.integers(1, 9), seed=SEEDS)
def test_sums_are_modulo(n, bits, count, seed):
    rng = np.random.default_rng(seed)
    half = 2 ** (bits - 1)
    vectors = rng.integers(-half, half, (count, n))
    acc = np.zeros(n, np.uint32)
    for each in vectors:
        ring.add(acc, ring.pack(ring.of(each, bits), bits), bits)
    expected = [(sum(map(int, column)) + half) % 2**bits - half for column in vectors.T]
    assert ring.centre(acc, bits).tolist() == expected


@pytest.mark.parametrize("bits", [2, 7, 8, 31, 32])
def test_edges(bits):
    half = 2 ** (bits - 1)
    ends = np.array([-half, -1, 0, 1, half - 1])
    assert ring.centre(ring.of(ends, bits), bits).tolist() == ends.tolist()


@pytest.mark.parametrize("bits", [2, 16, 31, 32])
def test_what_a_device_rounds_to_is_32_bits_wide(bits):
    half = min(2 ** (bits - 1), 2**31 - 1)
    ends = np.array([-half, -1, 0, 1, half - 1], np.int32)
    assert ring.centre(ring.of(ends, bits), bits).tolist() == ends.tolist()


@pytest.mark.parametrize("size", [0, 6, 8, 100])
def test_another_length_is_refused_and_leaves_no_trace(size):
    acc = np.arange(5, dtype=np.uint32)
    with pytest.raises(CodecError, match="expected 7") as caught:
        ring.add(acc, bytes(size), 11)
    assert caught.value.code == "length" and acc.tolist() == [0, 1, 2, 3, 4]


def test_bits_after_the_last_number_are_refused():
    acc = np.zeros(5, np.uint32)
    with pytest.raises(CodecError, match="after its last number"):
        ring.add(acc, bytes(6) + b"\x80", 11)
    assert not acc.any()


@pytest.mark.parametrize("bits", range(2, 33))
def test_long_vectors_are_those_of_numpy(bits):
    """The bits of each number in turn, by NumPy; lengths around the core's words."""
    for n in (31, 32, 33, 63, 64, 65, 1000):
        vector = numbers(n, bits, n)
        flags = (vector[:, None] >> np.arange(bits, dtype=np.uint32) & 1).astype(np.uint8)
        data = np.packbits(flags, bitorder="little").tobytes()
        assert ring.pack(vector, bits) == data
        assert (ring.unpack(data, n, bits) == vector).all()


def test_the_core_refuses_arrays_that_do_not_fit():
    acc = np.zeros(5, np.uint32)
    for size, bits in ((6, 11), (8, 11), (1, 1), (33, 33), (20, -1)):
        with pytest.raises(ValueError, match="must"):
            _core.ring_add(acc, bytes(size), bits)
    with pytest.raises(ValueError, match="bits must"):
        _core.ring_pack(acc, 0)
    with pytest.raises(ValueError, match="reach must"):
        _core.ring_round(np.zeros(3, np.float32), 1.0, 0, None)
    assert not acc.any()


def test_hadamard_refuses_blocks_that_do_not_fit():
    for size, block in ((8, 3), (8, 0), (8, -8), (12, 8), (4, 8)):
        with pytest.raises(ValueError, match="block must"):
            _core.hadamard(np.zeros(size, np.float32), block)
