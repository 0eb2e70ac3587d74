"""Energies of rows and columns: they take bytes off what has structure, cost nothing else, and trust nobody."""

from __future__ import annotations

import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structured_update import TENSORS, P, resealed, structured

from edgefl import _core, codecs
from edgefl.codecs.energy import CONTEXTS, Energies, group, groups_to_bytes, read_groups
from edgefl.codecs.entropy_coded import ENERGIES
from edgefl.codecs.reader import Reader
from edgefl.codecs.tables import GEOMETRIC
from edgefl.core.accumulator import SCALE, Accumulator
from edgefl.core.plan import Param
from edgefl.errors import CodecError

CODED = ("ecq", "ecq-sparse")
STEPS = {"ecq": 5.0, "ecq-sparse": 4.0}  # at which a small model's energies pay


@pytest.mark.parametrize("name", CODED)
def test_what_has_structure_takes_less_and_decodes_alike(name):
    delta = structured()
    plain = codecs.get(name, step=STEPS[name], exact="none")
    codec = plain.for_tensors(TENSORS)
    assert plain.tensors == () and codec.tensors == TENSORS
    short, long = codec.encode(delta), plain.encode(delta)
    assert short[4] & ENERGIES and not long[4] & ENERGIES
    assert len(short) < 0.75 * len(long)
    if name == "ecq":  # the other one draws a new coin by the delta alone: the same one
        assert codec.decode(short, P).tobytes() == plain.decode(long, P).tobytes()


@pytest.mark.parametrize("name", CODED)
def test_what_has_none_is_sent_without(name):
    delta = np.random.default_rng(0).normal(size=P).astype(np.float32)
    codec = codecs.get(name).for_tensors(TENSORS)
    payload = codec.encode(delta)
    assert not payload[4] & ENERGIES
    assert np.isfinite(codec.decode(payload, P)).all()


@pytest.mark.parametrize("name", CODED)
@pytest.mark.parametrize(
    "options", [{"step": 2.0}, {"step": 0.3}, {"bits": 0.5}, {"max_bytes": 4000}, {"step": 2.0, "exact": "none"}]
)
def test_accumulates_what_it_decodes(name, options):
    delta, codec = structured(1), codecs.get(name, **options).for_tensors(TENSORS)
    payload = codec.encode(delta)
    assert payload[4] & ENERGIES
    accumulator = Accumulator(P)
    codec.accumulate(payload, 7, accumulator)
    assert (accumulator.acc == np.rint(codec.decode(payload, P).astype(np.float64) * SCALE).astype(np.int64) * 7).all()


@pytest.mark.parametrize("name", CODED)
@given(
    rows=st.integers(1, 400), columns=st.integers(1, 120), spread=st.floats(0, 6), dead=st.floats(0, 1),
    step=st.floats(0.1, 60), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_whatever_is_encoded_is_decoded(name, rows, columns, spread, dead, step, seed):
    rng = np.random.default_rng(seed)
    values = rng.standard_t(2, size=(rows, columns))
    values *= np.exp2(rng.normal(size=(rows, 1)) * spread) * (rng.random((rows, 1)) >= dead)
    values *= np.exp2(rng.normal(size=(1, columns)) * spread) * (rng.random((1, columns)) >= dead)
    delta = values.astype(np.float32).ravel()
    codec = codecs.get(name, step=step).for_tensors([Param("w", [rows, columns])])
    payload = codec.encode(delta)
    back = codec.decode(payload, delta.size)
    most = 1.01 if name == "ecq-sparse" else 1.56  # steps; ecq: rounding, dead zone, and a centroid of many magnitudes
    assert np.abs(back - delta).max() <= most * step * codec.rms(delta) + 2.0**-115


@given(
    shapes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=4),
    seed=st.integers(0, 1000), share=st.floats(0, 1),
)  # fmt: skip
def test_classes_are_read_as_they_were_written(shapes, seed, share):
    rng = np.random.default_rng(seed)
    size = sum(r * c for r, c in shapes)
    symbols = (rng.integers(0, 255, size) * (rng.random(size) < share)).astype(np.uint8)
    energies = Energies.of(symbols, shapes)
    data = energies.to_bytes()
    reader = Reader(data + b"more")
    back = Energies.read(reader, shapes)
    assert bytes(reader.rest) == b"more"
    for mine, others in zip(energies.classes, back.classes, strict=True):
        for a, b in zip(mine, others, strict=True):
            assert (a == b).all()
    whole = energies.contexts(np.zeros(size, np.uint8), 0)
    assert whole.max(initial=0) < CONTEXTS
    cut = size // 3  # blocks see what the whole saw
    assert (whole[cut:] == back.contexts(np.zeros(size - cut, np.uint8), cut)).all()


def test_the_largest_class_is_read_whatever_table_it_has():
    """A geometric table that reaches class 15 has a frequency for 16 too, which is no class."""
    rng = np.random.default_rng(0)
    rows, columns = 200, 40
    energies = Energies.of(np.zeros(rows * columns, np.uint8), [(rows, columns)])
    energies.classes[0][0][:] = np.where(rng.random(rows) < 0.6, 0, rng.integers(1, 16, rows))
    data = energies.to_bytes()
    assert data[1] == GEOMETRIC
    back = Energies.read(Reader(data), [(rows, columns)])
    assert (back.classes[0][0] == energies.classes[0][0]).all()
    energies.classes[0][0][3] = 16
    with pytest.raises(CodecError, match="class above 15"):
        Energies.read(Reader(energies.to_bytes()), [(rows, columns)])


def test_groups_are_read_as_they_were_written():
    counts = np.zeros((CONTEXTS, 256), np.uint64)
    for context in range(CONTEXTS):
        counts[context, : 1 + context // 8 * 20] = 1000
    groups, _ = group(counts)
    assert groups[0] == 0 and groups[-1] >= 3 and set(np.diff(groups)) <= {0, 1}
    reader = Reader(groups_to_bytes(groups))
    assert (read_groups(reader) == groups).all() and not reader.rest


@pytest.mark.parametrize("name", CODED)
def test_i16_payloads_with_energies_for_another_model_are_refused(name):
    payload = codecs.get(name, step=STEPS[name], exact="none").for_tensors(TENSORS).encode(structured())
    for tensors in ((Param("all", [P]),), (Param("w", [P // 10, 10]),), ()):
        accumulator = Accumulator(P)
        codec = codecs.get(name, exact="none")
        with pytest.raises(CodecError):
            (codec.for_tensors(tensors) if tensors else codec).accumulate(payload, 1, accumulator)
        assert not accumulator.acc.any()


@pytest.mark.parametrize("name", CODED)
def test_i16_energies_cut_off_or_absurd_are_refused(name):
    codec = codecs.get(name, step=STEPS[name], exact="none").for_tensors(TENSORS)
    rest = codec.encode(structured())[4:]
    at = 5 + codec.OWN.size  # form, step, own: then the groups
    wrongs = [rest[:n] for n in range(at, min(len(rest), at + 80))]
    wrongs.append(rest[:at] + struct.pack("<I", 0xFFFFFFFF) + rest[at + 4 :])  # a table for each context
    wrongs.append(rest[:at] + struct.pack("<I", 0) + rest[at + 4 :])  # one for all of them
    for wrong in wrongs:
        accumulator = Accumulator(P)
        with pytest.raises(CodecError):
            codec.accumulate(resealed(wrong), 1, accumulator)
        assert not accumulator.acc.any() and accumulator.count == 0


@pytest.mark.parametrize("name", CODED)
@settings(max_examples=200)
@given(data=st.data())
def test_i16_hostile_energies_with_a_right_crc_count_or_leave_no_trace(name, data):
    codec = codecs.get(name, step=STEPS[name]).for_tensors(TENSORS)
    rest = bytearray(codec.encode(structured())[4:])
    assert rest[0] & ENERGIES
    for _ in range(data.draw(st.integers(1, 3))):
        rest[data.draw(st.integers(0, len(rest) - 1))] = data.draw(st.integers(0, 255))
    accumulator = Accumulator(P)
    payload = resealed(bytes(rest))
    try:
        codec.accumulate(payload, 5, accumulator)
    except CodecError:
        assert not accumulator.acc.any() and accumulator.count == 0
    else:
        back = codec.decode(payload, P)
        assert (accumulator.acc == np.rint(back.astype(np.float64) * SCALE).astype(np.int64) * 5).all()


SCRIPT = """
import hashlib
from structured_update import P, TENSORS, structured
from test_energy import CODED
from edgefl import codecs
digest = hashlib.sha256()
for name in CODED:
    for step in (0.3, 2.0, 20.0):
        codec = codecs.get(name, step=step).for_tensors(TENSORS)
        payload = codec.encode(structured(3))
        digest.update(payload + codec.decode(payload, P).tobytes())
print(digest.hexdigest())
"""


def test_every_instruction_set_gives_the_same_bits():
    digests = set()
    for isa in {"baseline", _core.isa()} | ({"avx2"} if _core.isa() == "avx512" else set()):
        env = {**os.environ, "EDGEFL_ISA": isa, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
        ran = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=True)
        digests.add(ran.stdout)
    assert len(digests) == 1
