"""The form "live" of ecq's payloads: dead rows and columns have no symbols. It decodes to what the older form does, is
written only where a manifest says so, and trusts nobody."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structured_update import TENSORS, P, resealed, structured

import edgefl
from edgefl import _core, codecs
from edgefl.codecs.entropy_coded import ENERGIES, LANES, LIVE
from edgefl.core.accumulator import SCALE, Accumulator
from edgefl.core.plan import Param
from edgefl.errors import CodecError
from edgefl.federation import make_manifest
from edgefl.onnx import zoo
from edgefl.protocol.manifest import Manifest
from edgefl.settings import Settings


def both(step=5.0, tensors=TENSORS, **options):
    """ecq in its older form, and in this one."""
    codec = codecs.get("ecq", step=step, **options).for_tensors(tensors)
    return codec, codec.with_forms(["live"])


def check(codec, payload, size):
    """`payload` adds what it decodes to."""
    back, accumulator = codec.decode(payload, size), Accumulator(size)
    codec.accumulate(payload, 7, accumulator)
    assert (accumulator.acc == np.rint(back.astype(np.float64) * SCALE).astype(np.int64) * 7).all()
    return back


@pytest.mark.parametrize("step", [0.02, 0.3, 2.0, 5.0])
def test_decodes_to_what_the_older_form_does(step):
    older, live = both(step)
    delta = structured()
    delta[::997] *= 4000  # escapes
    before, payload = older.encode(delta), live.encode(delta)
    assert payload[4] & LIVE and not before[4] & LIVE
    assert len(payload) <= 1.01 * len(before) + 64
    back = check(live, payload, P)
    assert (back == older.decode(before, P)).all()
    assert (older.decode(payload, P) == back).all()  # every decoder reads both forms
    assert (live.decode(before, P) == back).all()


@given(
    shapes=st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=4),
    dead=st.floats(0, 1), step=st.floats(0.1, 30), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_whatever_is_encoded_is_decoded_as_before(shapes, dead, step, seed):
    rng = np.random.default_rng(seed)
    parts = []
    for rows, columns in shapes:
        values = rng.standard_t(2, size=(rows, columns)) * np.exp2(2 * rng.normal(size=(rows, 1)))
        parts.append((values * (rng.random((rows, 1)) >= dead) * (rng.random((1, columns)) >= dead)).ravel())
    delta = np.concatenate(parts).astype(np.float32)
    older, live = both(step, [Param(f"w{i}", list(shape)) for i, shape in enumerate(shapes)])
    back = check(live, live.encode(delta), len(delta))
    assert (back == older.decode(older.encode(delta), len(delta))).all()


def test_streams_of_all_lanes_are_written_and_read():
    rng, seen = np.random.default_rng(0), set()
    for rows in (40, 120, 160, 200, 500, 4000):
        live_rows = rng.random((rows, 1)) < 0.4
        live_rows = live_rows * np.exp2(2 * rng.normal(size=(rows, 1)))
        delta = (rng.standard_t(3, size=(rows, 120)) * live_rows).astype(np.float32).ravel()
        older, live = both(1.0, [Param("w", [rows, 120])])
        payload = live.encode(delta)
        seen.add(LANES[payload[4] & 3])
        assert (check(live, payload, len(delta)) == older.decode(older.encode(delta), len(delta))).all()
    assert seen == {1, 8, 16, 32}


def test_a_budget_holds():
    _, live = both(None, bits=0.3)
    assert live.encode(structured())[4] & LIVE
    _, live = both(None, max_bytes=4000)
    assert len(live.encode(structured())) <= 4000


def test_ecq_sparse_has_no_such_form():
    codec = codecs.get("ecq-sparse").for_tensors(TENSORS)
    assert codec.with_forms(["live"]).forms == ()
    rest = bytearray(codec.encode(structured())[4:])
    rest[0] |= LIVE | ENERGIES
    with pytest.raises(CodecError, match="unknown form"):
        codec.decode(resealed(bytes(rest)), P)


@pytest.mark.parametrize("form", [LIVE, LIVE | 0x20, 3, 3 | ENERGIES])
def test_i16_live_without_energies_and_16_lanes_without_live_are_refused(form):
    _, live = both()
    rest = bytearray(live.encode(structured())[4:])
    rest[0] = form
    with pytest.raises(CodecError, match="unknown form"):
        live.decode(resealed(bytes(rest)), P)


@settings(max_examples=300)
@given(data=st.data())
def test_i16_hostile_payloads_with_a_right_crc_count_or_leave_no_trace(data):
    _, live = both()
    rest = bytearray(live.encode(structured())[4:])
    for _ in range(data.draw(st.integers(1, 3))):
        rest[data.draw(st.integers(0, len(rest) - 1))] = data.draw(st.integers(0, 255))
    payload, accumulator = resealed(bytes(rest)), Accumulator(P)
    try:
        live.accumulate(payload, 5, accumulator)
    except CodecError:
        assert not accumulator.acc.any() and accumulator.count == 0
        with pytest.raises(CodecError):
            live.decode(payload, P)
    else:
        check(live, payload, P)


def test_i16_a_stream_that_ends_early_leaves_no_trace():
    """Of several blocks, the first ones have been added by then."""
    tensors = [Param("w", [700, 200])]
    delta = np.random.default_rng(0).standard_t(3, size=140_000).astype(np.float32) * np.repeat(
        np.float32(2) ** (np.arange(700) % 9 - 4), 200
    )
    _, live = both(5.0, tensors)
    rest = live.encode(delta)[4:]
    assert rest[0] & LIVE
    accumulator = Accumulator(len(delta))
    with pytest.raises(CodecError):
        live.accumulate(resealed(rest[:-2]), 5, accumulator)
    assert not accumulator.acc.any()


def test_live_checks_what_it_is_given():
    classes, shapes = np.array([1, 0, 2, 0, 3], np.uint8), np.array([[2, 3]], np.int64)
    starts, groups = np.array([4], np.int64), np.zeros(32, np.uint8)
    live = _core.Live(classes, shapes, starts, 10, groups)
    assert live.count == 2
    assert live.coordinates(0, np.array([0, 1])).tolist() == [4, 6]
    assert live.gather(np.arange(6, dtype=np.uint8)).tolist() == [0, 2]
    for wrong in (
        (classes[:-1], shapes, starts, 10, groups), (classes, shapes, starts, 9, groups),
        (classes, -shapes, starts, 10, groups), (classes + np.uint8(14), shapes, starts, 10, groups),
        (classes, shapes, starts, 10, groups[:-1]),
    ):  # fmt: skip
        with pytest.raises(ValueError):
            _core.Live(*wrong)
    with pytest.raises(ValueError):
        live.contexts(1, 2)
    with pytest.raises(ValueError):
        live.add(np.zeros(9, np.int64), 0, np.zeros(2, np.uint8), np.zeros(256, np.int64))


# Which form a device writes


@pytest.fixture(scope="module")
def plan():
    return edgefl.load(zoo.mlp([20, 30, 5]).SerializeToString()).plan


def manifest_of(plan, codec) -> Manifest:
    settings = Settings().replace(**{"codec.name": codec, "downlink.name": "raw32", "downlink.span": 1})
    return make_manifest(settings, "demo", "0" * 16, plan)


def test_the_manifest_says_that_the_aggregator_reads_it(plan):
    manifest = manifest_of(plan, "ecq")
    assert manifest.forms == ["live"] and manifest.update_codec.forms == ("live",)
    assert manifest.requires == []  # a device of an older version takes part
    for codec in ("ecq-sparse", "raw32"):
        assert manifest_of(plan, codec).forms == []


def test_without_the_word_of_the_manifest_a_device_writes_the_older_form(plan):
    """So does a device of an older version, which does not know the field; the aggregator adds what it writes."""
    manifest = manifest_of(plan, "ecq")
    older = msgspec.structs.replace(manifest, forms=[]).update_codec
    delta = np.zeros(plan.num_params, np.float32)
    delta[: 20 * 30] = np.random.default_rng(0).standard_t(2, 600) * np.repeat(np.arange(20) % 4 == 0, 30)
    assert older.forms == ()
    payload = older.encode(delta)
    assert not payload[4] & LIVE
    assert (manifest.update_codec.decode(payload, len(delta)) == older.decode(payload, len(delta))).all()


def test_forms_of_a_later_version_are_passed_over(plan):
    later = msgspec.structs.replace(manifest_of(plan, "ecq"), forms=["of-tomorrow"])
    assert later.update_codec.forms == ()
