"""The entropy-coded codecs: near the rate-distortion limit, the same bits everywhere, and nothing believed."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgefl import _core, codecs
from edgefl.codecs import tables
from edgefl.codecs.entropy_coded import EntropyCoded
from edgefl.codecs.reader import Reader
from edgefl.core.accumulator import SCALE, Accumulator
from edgefl.core.plan import Param
from edgefl.errors import CodecError, UsageError

CODED = sorted(n for n in codecs.CODECS if issubclass(type(codecs.get(n)), EntropyCoded))
GAUSSIAN = np.random.default_rng(0).normal(size=2**20).astype(np.float32)
LIMIT = {2: 0.0895, 3: 0.0224, 4: 0.0057}  # NMSE of ecq, by bits a coordinate
TENSORS = [Param("w", [20, 30]), Param("b", [30]), Param("w2", [30, 5]), Param("b2", [5]), Param("mean", [5], False)]
P = sum(t.size for t in TENSORS)
WILD = arrays(
    np.float32,
    st.one_of(st.sampled_from([0, 1, 2, 3, 31, 32, 33]), st.integers(0, 500)),
    elements=st.one_of(st.just(0.0), st.floats(-4.0, 4.0, width=32), st.floats(-(2.0**60), 2.0**60, width=32)),
)


def nmse(x, y):
    return float(((x.astype(np.float64) - y) ** 2).sum() / (x.astype(np.float64) ** 2).sum())


@pytest.mark.parametrize("bits", LIMIT)
def test_distortion_of_gaussian_coordinates_in_real_bytes(bits):
    codec = codecs.get("ecq", bits=bits)
    payload = codec.encode(GAUSSIAN)
    assert 8 * len(payload) <= bits * len(GAUSSIAN)
    assert nmse(GAUSSIAN, codec.decode(payload, len(GAUSSIAN))) <= LIMIT[bits]


def test_entropy_coder_is_within_two_thousandths_of_its_model():
    symbols = np.empty(len(GAUSSIAN), np.uint8)
    counts, _ = _core.quantize(GAUSSIAN, symbols, 1.0, 0.5)
    stream = _core.rans_encode(symbols, None, _core.rans_normalise(counts)[None], 32)
    share = counts[counts > 0] / len(GAUSSIAN)
    entropy = -(share * np.log2(share)).sum() * len(GAUSSIAN)
    assert entropy <= 8 * len(stream) <= 1.002 * entropy


def test_chance_is_unbiased_over_seeds():
    x = GAUSSIAN[:4000] * np.float32(0.01)
    runs = [codecs.get("ecq-sparse", step=2.0, seed=seed) for seed in range(200)]
    errors = np.stack([c.decode(c.encode(x), len(x)) for c in runs]).astype(np.float64) - x
    step = 2.0 * _core.rms(x)
    share = np.abs(x) / step % 1  # of the draws in which a coordinate becomes one step more
    standard = step * np.sqrt(share * (1 - share) / len(runs))
    often = len(runs) * share * (1 - share) > 5  # the others' means are not nearly normal
    assert often.mean() > 0.8
    assert (np.abs(errors.mean(axis=0)) < 3 * standard)[often].mean() > 0.99
    assert abs(errors.mean()) < 3 * errors.std() / np.sqrt(errors.size)
    assert abs((errors * x).mean()) < 3 * (errors * x).std() / np.sqrt(errors.size)


@pytest.mark.parametrize("name", CODED)
@settings(max_examples=200)
@given(delta=WILD, weight=st.integers(1, 1000))
def test_any_delta_decodes_to_what_is_accumulated(name, delta, weight):
    codec = codecs.get(name)
    payload = codec.encode(delta)
    assert payload == codec.encode(delta)
    assert len(payload) <= codec.bound(len(delta))
    back = codec.decode(payload, len(delta))
    assert np.isfinite(back).all()
    assert (back[delta == 0] == 0).all()
    accumulator = Accumulator(len(delta))
    if weight * np.abs(back.astype(np.float64)).max(initial=0) < 2.0**30:
        try:
            codec.accumulate(payload, weight, accumulator)
        except CodecError as error:
            assert "absurd scale" in str(error) or "overflow" in str(error)
            return
        assert (accumulator.acc == np.rint(back.astype(np.float64) * SCALE).astype(np.int64) * weight).all()


@pytest.mark.parametrize("name", CODED)
@pytest.mark.parametrize("value", [0.0, 1.0, -3.5e-3, 1e-44, 1e30])
@pytest.mark.parametrize("size", [1, 2, 3, 1000, 100_001])
def test_constant_deltas(name, value, size):
    delta = np.full(size, value, np.float32)
    codec = codecs.get(name)
    back = codec.decode(codec.encode(delta), size)
    share = 1.01 if name == "ecq-sparse" else 0.51  # of a step, for rounding up or down by chance
    assert np.abs(back - delta).max() <= share * codec.step * abs(value) + 2.0**-115
    tiny = codecs.get(name, step=1e-3)
    assert np.abs(tiny.decode(tiny.encode(delta), size) - delta).max() <= 1e-3 * abs(value) + 2.0**-115


@pytest.mark.parametrize("name", CODED)
def test_i16_every_truncation_and_every_flipped_bit_is_refused(name):
    delta = np.random.default_rng(1).normal(size=60).astype(np.float32)
    delta[7] = 1e5  # an escape
    codec = codecs.get(name, step=0.01, exact="none") if name == "ecq" else codecs.get(name, exact="none")
    payload = codec.encode(delta)
    accumulator = Accumulator(60)
    codec.accumulate(codecs.get(name).encode(delta * 0 + 1), 2, accumulator)
    before = accumulator.to_bytes()
    damaged = [payload[:n] for n in range(len(payload))] + [payload + b"\0"]
    for bit in range(8 * len(payload)):
        wrong = bytearray(payload)
        wrong[bit // 8] ^= 1 << bit % 8
        damaged.append(bytes(wrong))
    for wrong in damaged:
        with pytest.raises(CodecError):
            codec.decode(wrong, 60)
        with pytest.raises(CodecError):
            codec.accumulate(wrong, 1, accumulator)
    assert accumulator.to_bytes() == before


def resealed(rest: bytes) -> bytes:
    """A payload with a right CRC, however wrong it is."""
    return _core.crc32c(rest).to_bytes(4, "little") + rest


@pytest.mark.parametrize("name", CODED)
@settings(max_examples=300)
@given(data=st.data())
def test_i16_a_hostile_payload_with_a_right_crc_counts_or_leaves_no_trace(name, data):
    delta = np.random.default_rng(2).normal(size=300).astype(np.float32)
    codec = codecs.get(name).for_tensors([Param("w", [10, 28]), Param("b", [20])])
    rest = bytearray(codec.encode(delta)[4:])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(rest) - 1))
        rest[at] = data.draw(st.integers(0, 255))
    rest = bytes(rest)[: data.draw(st.integers(max(0, len(rest) - 3), len(rest)))]
    accumulator = Accumulator(300)
    try:
        codec.accumulate(resealed(rest), 5, accumulator)
    except CodecError:
        assert not accumulator.acc.any() and accumulator.count == 0
    else:
        back = codec.decode(resealed(rest), 300)
        assert (accumulator.acc == np.rint(back.astype(np.float64) * SCALE).astype(np.int64) * 5).all()


@pytest.mark.parametrize("name", CODED)
def test_i16_a_raw_payload_that_is_not_finite_is_refused(name):
    codec, accumulator = codecs.get(name), Accumulator(3)
    wrong = resealed(b"\x80" + np.float32([1, np.inf, 2]).tobytes())
    with pytest.raises(CodecError, match="NaN or infinity"):
        codec.decode(wrong, 3)
    with pytest.raises(CodecError, match="NaN or infinity"):
        codec.accumulate(wrong, 1, accumulator)
    assert not accumulator.acc.any()


@pytest.mark.parametrize("name", CODED)
def test_a_stream_that_fails_late_is_taken_back(name):
    """The last words of a long stream are wrong: hundreds of thousands of coordinates have been added by then."""
    codec = codecs.get(name, bits=1)
    rest = codec.encode(GAUSSIAN[:400_000])[4:]
    accumulator = Accumulator(400_000)
    accumulator.acc[:] = np.arange(400_000)
    for wrong in (rest[:-2], rest + b"\0\0", rest[:-8] + bytes(8)):
        with pytest.raises(CodecError):
            codec.accumulate(resealed(wrong), 9, accumulator)
        assert (accumulator.acc == np.arange(400_000)).all()


@pytest.mark.parametrize("name", CODED)
@pytest.mark.parametrize(("exact", "kept"), [("vectors", [1, 3, 4]), ("none", [4])])
def test_kept_tensors_lose_only_a_half_floats_precision(name, exact, kept):
    delta = np.random.default_rng(3).normal(size=P).astype(np.float32)
    codec = codecs.get(name, exact=exact, step=3.0).for_tensors(TENSORS)
    payload = codec.encode(delta)
    back = codec.decode(payload, P)
    ends = np.cumsum([t.size for t in TENSORS])
    for index, (tensor, end) in enumerate(zip(TENSORS, ends, strict=True)):
        error = np.abs(back - delta)[end - tensor.size : end].max()
        assert (error < 2e-3) == (index in kept), tensor.name
    accumulator = Accumulator(P)
    codec.accumulate(payload, 2, accumulator)
    assert (accumulator.acc == np.rint(back.astype(np.float64) * SCALE).astype(np.int64) * 2).all()


def test_kept_values_too_large_for_half_floats_stay_float32():
    delta = np.zeros(P, np.float32)
    delta[600:630] = 1e6 + np.arange(30)
    codec = codecs.get("ecq").for_tensors(TENSORS)
    assert (codec.decode(codec.encode(delta), P) == delta).all()


def test_tensors_of_another_model_are_refused():
    codec = codecs.get("ecq").for_tensors(TENSORS)
    with pytest.raises(CodecError, match="another model"):
        codec.encode(np.zeros(P + 1, np.float32))
    with pytest.raises(CodecError, match="another model"):
        codec.decode(codec.encode(np.zeros(P, np.float32)), P - 1)


@pytest.mark.parametrize("name", CODED)
@pytest.mark.parametrize("budget", [200, 1000, 5000, 20_000])
def test_max_bytes_is_used_up_and_never_exceeded(name, budget):
    x = GAUSSIAN[:40_000]
    sizes = [len(codecs.get(name, max_bytes=b).encode(x)) for b in (budget, budget + 400)]
    assert sizes[0] <= budget < sizes[1] <= budget + 400
    assert sizes[0] > 0.9 * budget - 60


def test_rms_sets_the_step_where_the_delta_carries_former_losses():
    x = GAUSSIAN[:10_000]
    codec = codecs.get("ecq", step=1.0)
    assert codec.encode(x, rms=_core.rms(x)) == codec.encode(x)
    assert len(codec.encode(x, rms=0.5)) > len(codec.encode(x)) > len(codec.encode(x, rms=2.0))


@pytest.mark.parametrize("options", [{"step": 0}, {"step": -1.0}, {"bits": 33}, {"step": "x"}, {"exact": "state"}])
def test_absurd_options_are_refused(options):
    with pytest.raises(UsageError):
        codecs.get("ecq", **options)
    with pytest.raises(UsageError, match="twice"):
        codecs.get("ecq", step=1.0, bits=2)


@given(counts=st.lists(st.integers(0, 2**40), min_size=256, max_size=256))
def test_tables_are_read_as_they_were_written(counts):
    counts = np.array(counts, np.uint64)
    data, frequencies, _ = tables.best_tables(counts[None])
    reader = Reader(data + b"rest")
    assert (tables.read_tables(reader) == frequencies).all() and bytes(reader.rest) == b"rest"
    frequencies = frequencies[0]
    assert int(frequencies.sum()) == 4096 and (frequencies[counts > 0] > 0).all()


def test_a_tiny_update_is_not_mostly_tables():
    codec = codecs.get("ecq", step=2.0)
    assert len(codec.encode(np.random.default_rng(0).laplace(size=300).astype(np.float32))) < 24 + 300 * 1.5 / 8


SCRIPT = """
import hashlib, numpy as np
from edgefl import codecs
digest = hashlib.sha256()
for name in {names}:
    for size in (1, 31, 33, 5000, 200_001):
        x = np.random.default_rng(size).standard_t(2.5, size=size).astype(np.float32)
        for step in (0.05, 1.0, 6.0):
            codec = codecs.get(name, step=step)
            payload = codec.encode(x)
            digest.update(payload + codec.decode(payload, size).tobytes())
print(digest.hexdigest())
"""


def test_every_instruction_set_gives_the_same_bits():
    isas = ["baseline", *(["avx2"] if _core.isa() in ("avx2", "avx512") else []), _core.isa()]
    digests = {
        isa: subprocess.run(
            [sys.executable, "-c", SCRIPT.format(names=CODED)],
            env={**os.environ, "EDGEFL_ISA": isa}, capture_output=True, text=True, check=True,
        ).stdout
        for isa in isas
    }  # fmt: skip
    assert len(set(digests.values())) == 1, digests
