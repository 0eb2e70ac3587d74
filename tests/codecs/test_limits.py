"""The entropy-coded codecs at their limits: tables of nothing but escapes, and budgets that leave next to no room."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl import _core, codecs
from edgefl.codecs.entropy_coded import ESCAPES
from edgefl.codecs.tables import ESCAPE, TOTAL
from edgefl.core.accumulator import SCALE, Accumulator
from edgefl.core.plan import Param
from edgefl.errors import CodecError

CODED = ("ecq", "ecq-sparse")
GAUSSIAN = np.random.default_rng(0).normal(size=20_000).astype(np.float32)
ALL_ESCAPES = np.uint16([0] * ESCAPE + [TOTAL])


def escapes_alone(name: str, form: int, values: np.ndarray) -> bytes:
    """A payload of 40 coordinates, whose tables know no symbol but the escape."""
    table = _core.write_table(ALL_ESCAPES)
    stream = _core.rans_encode(np.full(40, ESCAPE, np.uint8), None, ALL_ESCAPES[None], 32)
    count = len(values).to_bytes(4, "little") if form & ESCAPES else b""
    head = bytes([2 | form]) + np.float32(1).tobytes() + bytes(codecs.get(name).OWN.size) + bytes([1])
    rest = head + table + count + stream + values.tobytes()
    return _core.crc32c(rest).to_bytes(4, "little") + rest


@pytest.mark.parametrize("name", CODED)
@pytest.mark.parametrize("form", [0, ESCAPES])
def test_i16_a_frequency_for_escapes_that_are_not_there_is_refused(name, form):
    payload = escapes_alone(name, form, np.zeros(0, np.float32))
    codec, accumulator = codecs.get(name), Accumulator(40)
    with pytest.raises(CodecError, match="escapes"):
        codec.decode(payload, 40)
    with pytest.raises(CodecError, match="escapes"):
        codec.accumulate(payload, 1, accumulator)
    assert not accumulator.acc.any() and accumulator.count == 0


@pytest.mark.parametrize("name", CODED)
def test_a_payload_of_nothing_but_escapes_counts(name):
    accumulator = Accumulator(40)
    codecs.get(name).accumulate(escapes_alone(name, ESCAPES, GAUSSIAN[:40]), 1, accumulator)
    assert (accumulator.acc == np.rint(GAUSSIAN[:40].astype(np.float64) * SCALE)).all()


@pytest.mark.parametrize("name", CODED)
@pytest.mark.parametrize("budget", [60, 130, 160, 250, 400, 800, 1500, 5000])
def test_a_small_budget_takes_two_dozen_encodings_at_most(name, budget, monkeypatch):
    codec, steps = codecs.get(name, max_bytes=budget), []
    quantize = type(codec)._quantize
    monkeypatch.setattr(type(codec), "_quantize", lambda self, x, step: steps.append(step) or quantize(self, x, step))
    try:
        assert len(codec.encode(GAUSSIAN)) <= budget
    except CodecError as error:
        assert "max_bytes" in str(error)
    assert len(steps) <= 24


MANY_BIASES = [Param("w", [100, 100]), Param("b", [1500]), Param("variance", [500], False)]


@pytest.mark.parametrize("name", CODED)
@pytest.mark.parametrize("bits", [1, 2])
def test_bits_are_those_of_squeezed_coordinates_what_is_kept_comes_on_top(name, bits):
    x = GAUSSIAN[:12_000]
    codec = codecs.get(name, bits=bits).for_tensors(MANY_BIASES)
    payload = codec.encode(x)
    assert bits * 0.97 < 8 * (len(payload) - 2 * 2000) / 10_000 <= bits
    assert np.count_nonzero(codec.decode(payload, 12_000)[:10_000]) > 1000


@pytest.mark.parametrize("name", CODED)
@pytest.mark.parametrize(("size", "bits"), [(40, 0.5), (20_000, 0.002)])
def test_bits_that_can_not_be_met_are_an_error_not_an_update_of_nothing(name, size, bits):
    with pytest.raises(CodecError, match="bits"):
        codecs.get(name, bits=bits).encode(GAUSSIAN[:size])
    with pytest.raises(CodecError, match="bits"):
        codecs.get(name, bits=bits, max_bytes=10_000).encode(GAUSSIAN[:size])
    with pytest.raises(CodecError, match="max_bytes"):
        codecs.get(name, bits=bits, max_bytes=3).encode(GAUSSIAN[:size])


@pytest.mark.parametrize("name", ["ecq", "ecq-sparse"])
def test_nothing_takes_more_than_its_bits(name):
    codec = codecs.get(name, bits=0.5)
    assert not codec.decode(codec.encode(np.zeros(40, np.float32)), 40).any()


@pytest.mark.parametrize("name", CODED)
def test_max_bytes_below_what_is_kept_is_an_error(name):
    with pytest.raises(CodecError, match="max_bytes"):
        codecs.get(name, max_bytes=3000).for_tensors(MANY_BIASES).encode(GAUSSIAN[:12_000])


NORM = (Param("w", [30, 40]), Param("gamma", [300]), Param("variance", [1000], False))


@pytest.mark.parametrize("at", [1e-3, 1.0, 3e3, 9e4])
@pytest.mark.parametrize("exact", ["vectors", "none"])
@pytest.mark.parametrize("name", CODED)
def test_a_running_variance_that_becomes_small_never_falls_below_zero(name, exact, at):
    codec = codecs.get(name, exact=exact).for_tensors(NORM)
    rng = np.random.default_rng(0)
    shown = (at * rng.uniform(0.1, 3, 2500)).astype(np.float32)
    small = (1e-6 * at * rng.random(2500)).astype(np.float32)
    small[1500:1600] = 0
    for delta in (small - shown, (small - shown) / 8):
        after = shown + codec.decode(codec.encode(delta), 2500)
        assert (after[1500:] >= 0).all()
        assert np.abs(after - shown - delta)[1500:].max() <= 2**-10 * np.abs(delta[1500:]).max()


FROZEN = (Param("fc1.weight", [64, 200], trainable=False), Param("fc2.weight", [200, 10]), Param("fc2.bias", [10]))


@pytest.mark.parametrize("exact", ["vectors", "none"])
@pytest.mark.parametrize("name", CODED)
def test_frozen_matrices_take_no_bytes_and_if_they_have_moved_none_is_lost(name, exact):
    codec = codecs.get(name, step=1.0, exact=exact).for_tensors(FROZEN)
    delta = np.random.default_rng(0).normal(size=14_810).astype(np.float32)
    delta[:12_800] = 0
    payload = codec.encode(delta)
    assert len(payload) < 4 * 2010 / 4
    decoded = codec.decode(payload, len(delta))
    assert not decoded[:12_800].any() and decoded[12_800:].any()
    accumulator = Accumulator(len(delta))
    codec.accumulate(payload, 3, accumulator)
    np.testing.assert_array_equal(accumulator.acc, 3 * np.rint(decoded.astype(np.float64) * SCALE).astype(np.int64))
    delta[77] = 1e-3
    np.testing.assert_array_equal(codec.decode(codec.encode(delta), len(delta)), delta)
