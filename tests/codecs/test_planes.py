"""planes: every float32 comes back, in fewer bytes where it can."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgefl import _core, codecs
from edgefl.core.accumulator import Accumulator
from edgefl.errors import CodecError

WEIGHTS = (np.random.default_rng(0).normal(size=200_000) * 0.05).astype(np.float32)
NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)
ANY = arrays(np.float32, st.sampled_from([0, 1, 2, 3, 1023, 1024, 1031, 3000]), elements=NUMBERS, fill=NUMBERS)


@given(x=ANY)
def test_lossless(x):
    codec = codecs.get("planes")
    payload = codec.encode(x)
    assert len(payload) <= codec.bound(len(x))
    assert codec.decode(payload, len(x)).tobytes() == x.tobytes()


def test_weights_shrink():
    assert 4 * len(WEIGHTS) / len(codecs.get("planes").encode(WEIGHTS)) >= 1.19


@pytest.mark.parametrize("size", [2000, 65_536, 150_001])
def test_accumulates_as_raw32_does(size):
    sums = [Accumulator(size), Accumulator(size)]
    for accumulator, name in zip(sums, ("planes", "raw32"), strict=True):
        codecs.get(name).accumulate(codecs.get(name).encode(WEIGHTS[:size]), 3, accumulator)
    assert sums[0].to_bytes()[48:] == sums[1].to_bytes()[48:]


def test_i16_flips_and_truncations_are_refused():
    payload = codecs.get("planes").encode(WEIGHTS[:1100])
    accumulator = Accumulator(1100)
    step = 37  # every bit of a few thousand bytes takes a minute; each byte is met
    for wrong in (
        [payload[:n] for n in range(0, len(payload), step)]
        + [payload + b"\0"]
        + [payload[:at] + bytes([payload[at] ^ 1 << at % 8]) + payload[at + 1 :] for at in range(len(payload))]
    ):
        with pytest.raises(CodecError):
            codecs.get("planes").accumulate(wrong, 1, accumulator)
    assert not accumulator.acc.any() and accumulator.count == 0


@given(data=st.data())
def test_i16_a_hostile_payload_with_a_right_crc_counts_or_leaves_no_trace(data):
    rest = bytearray(codecs.get("planes").encode(WEIGHTS[:1100])[4:])
    for _ in range(data.draw(st.integers(1, 3))):
        rest[data.draw(st.integers(0, len(rest) - 1) | st.integers(0, 12))] = data.draw(st.integers(0, 255))
    wrong = _core.crc32c(bytes(rest)).to_bytes(4, "little") + bytes(rest)
    accumulator = Accumulator(1100)
    try:
        codecs.get("planes").accumulate(wrong, 1, accumulator)
    except CodecError:
        assert not accumulator.acc.any() and accumulator.count == 0
