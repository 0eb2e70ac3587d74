"""qsgd, topk and sign do what their papers say."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl import _core, codecs
from edgefl.core.accumulator import Accumulator
from edgefl.errors import CodecError, UsageError

X = np.random.default_rng(0).normal(size=1025).astype(np.float32)


def test_topk_keeps_the_largest_as_they_are():
    back = codecs.get("topk", fraction=0.1).decode(codecs.get("topk", fraction=0.1).encode(X), len(X))
    kept = np.flatnonzero(back)
    assert len(kept) == 102 and (back[kept] == X[kept]).all()
    assert np.abs(X[back == 0]).max() <= np.abs(X[kept]).min()


def test_sign_moves_every_coordinate_by_the_mean():
    back = codecs.get("sign").decode(codecs.get("sign").encode(X), len(X))
    assert (np.sign(back) == np.sign(X)).all()
    assert np.allclose(np.abs(back), np.abs(X).mean())
    assert len(codecs.get("sign").encode(X)) == 8 + 129


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_qsgd_is_unbiased_within_a_level(bits):
    codec = codecs.get("qsgd", bits=bits)
    level = np.abs(X).max() / (2 ** (bits - 1) - 1)
    runs = [codec.decode(codec.encode(np.roll(X, k)), len(X)) for k in range(100)]
    errors = np.stack([np.roll(run, -k) for k, run in enumerate(runs)]) - X
    assert np.abs(errors).max() <= level * 1.001
    assert abs(errors.mean()) < 4 * errors.std() / np.sqrt(errors.size)
    assert abs((errors * X).mean()) < 4 * (errors * X).std() / np.sqrt(errors.size)


@pytest.mark.parametrize("name", ["qsgd", "topk", "sign"])
def test_i16_flips_and_truncations_are_refused(name):
    codec, accumulator = codecs.get(name), Accumulator(100)
    payload = codec.encode(X[:100])
    for bit in range(8 * len(payload)):
        wrong = bytearray(payload)
        wrong[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CodecError):
            codec.accumulate(bytes(wrong), 1, accumulator)
    for size in range(len(payload)):
        with pytest.raises(CodecError):
            codec.accumulate(payload[:size], 1, accumulator)
    assert not accumulator.acc.any() and accumulator.count == 0


def test_topk_with_indices_beyond_the_model_or_twice_is_refused():
    for index in ([3, 3], [4, 2], [0, 100]):
        data = np.array(index, "<u4").tobytes() + np.float32([1, 2]).tobytes()
        with pytest.raises(CodecError, match="index"):
            codecs.get("topk").decode(_core.crc32c(data).to_bytes(4, "little") + data, 100)


@pytest.mark.parametrize(
    ("name", "options"), [("qsgd", {"bits": 1}), ("topk", {"fraction": 0}), ("qsgd", {"bits": 2.5})]
)
def test_absurd_options_are_refused(name, options):
    with pytest.raises(UsageError):
        codecs.get(name, **options)
