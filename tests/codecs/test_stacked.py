"""Stacked: several vectors in one payload, each as its codec alone would write it."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from edgefl import codecs, load
from edgefl.codecs.stacked import Stacked
from edgefl.core.accumulator import Accumulator
from edgefl.errors import CodecError
from edgefl.onnx import zoo

TENSORS = load(zoo.mlp([30, 20, 4])).plan.params
P = sum(tensor.size for tensor in TENSORS)
RNG = np.random.default_rng(0)
PARTS = [(scale * RNG.normal(size=P)).astype(np.float32) for scale in (1.0, 1e-4, 30.0)]
WHOLE = np.concatenate(PARTS)
NAMES = ["raw32", "f16", "planes", "ecq", "ecq-dither", "ecq-sparse"]
CODECS = [codecs.get(name).for_tensors(TENSORS) for name in NAMES if name in codecs.CODECS]


@pytest.fixture(params=CODECS, ids=lambda codec: codec.name)
def codec(request):
    return request.param


def test_each_part_is_what_the_codec_makes_of_it_alone(codec):
    stacked = Stacked(codec, 3)
    alone = [codec.encode(part) for part in PARTS]
    assert stacked.encode(WHOLE) == struct.pack("<3I", *map(len, alone)) + b"".join(alone)
    expected = np.concatenate([codec.decode(payload, P) for payload in alone])
    np.testing.assert_array_equal(stacked.decode(stacked.encode(WHOLE), 3 * P), expected)
    after = stacked.encode_after(WHOLE / 2, WHOLE)
    assert after[12:] == b"".join(codec.encode_after(part / np.float32(2), part) for part in PARTS)


def test_it_keeps_the_contract_of_a_codec(codec):
    stacked = Stacked(codec, 3)
    payload = stacked.encode(WHOLE)
    assert (stacked.wire_id, stacked.lossless) == (codec.wire_id, codec.lossless)
    assert len(payload) <= stacked.bound(3 * P)
    for damaged in (
        b"",
        payload[:11],
        payload[:-1],
        payload + b"0",
        struct.pack("<3I", 2**32 - 1, 0, 0) + payload[12:],
    ):
        with pytest.raises(CodecError):
            stacked.decode(damaged, 3 * P)
    one, other = Accumulator(3 * P), Accumulator(3 * P)
    stacked.accumulate(payload, 3, one)
    other.add_f32(stacked.decode(payload, 3 * P).tobytes(), 3)
    assert one.to_bytes() == other.to_bytes()
