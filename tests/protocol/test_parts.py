"""Parts: any order, repeated or not, only what belongs here, never more than the plan allows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from edgefl.errors import ProtocolError
from edgefl.protocol.envelope import Envelope, Kind
from edgefl.protocol.parts import DEFAULT_PART_BYTES, Assembler, Splitter

PLACE = {"kind": Kind.UPDATE, "federation": 9, "round": 3, "version": 2}
BLOB = bytes(range(256)) * 4 + b"tail"


def envelopes(blob=BLOB, part_bytes=256, **changes):
    splitter = Splitter(blob, part_bytes, codec=1, **{**PLACE, **changes})
    return [Envelope.from_bytes(splitter.part(i)) for i in range(splitter.parts)]


def assembler(max_total=4096):
    return Assembler(max_total=max_total, **PLACE)


def put_together(parts, target=None):
    target = target or assembler()
    whole = [target.add(part) for part in parts]
    return target.blob() if whole[-1] else None


@given(st.permutations(range(5)), st.lists(st.integers(0, 3), max_size=4))
def test_any_order_with_repeats(order, repeats):
    parts = envelopes()
    *early, final = order
    assert put_together([parts[i] for i in [*early, *(early[r] for r in repeats), final]]) == BLOB


@pytest.mark.parametrize("size", [1, 255, 256, 257, 512])
def test_lengths_around_a_part(size):
    parts = envelopes(b"z" * size)
    assert len(parts) == -(-size // 256)
    assert put_together(parts) == b"z" * size


def test_default_part_and_its_header_are_64_kib():
    assert len(Splitter(b"x" * 100_000, DEFAULT_PART_BYTES, codec=1, **PLACE).part(0)) == 64 * 1024


def test_missing_names_what_has_not_come():
    target, parts = assembler(), envelopes()
    assert target.missing() == []
    assert not target.add(parts[3])
    assert not target.add(parts[0])
    assert target.missing() == [1, 2, 4]
    assert (target.codec, target.buffered) == (1, 512)


def test_parts_of_two_blobs_never_mix():
    first, second = envelopes(), envelopes(BLOB[::-1])
    target = assembler()
    for a, b in zip(first, second, strict=True):
        assert not target.add(a)
        assert not target.add(b)
        assert target.buffered <= 256
    assert target.missing() == [0, 1, 2, 3]
    assert put_together(second[:4], target) == BLOB[::-1]


@pytest.mark.parametrize("changes", [{"kind": Kind.MODEL}, {"federation": 8}, {"round": 4}, {"version": 1}])
def test_what_belongs_elsewhere_is_refused(changes):
    target = assembler()
    with pytest.raises(ProtocolError, match="does not belong"):
        target.add(envelopes(**changes)[0])
    assert target.buffered == 0


def test_i17_too_long_a_blob_is_refused_before_anything_is_kept():
    target = assembler(max_total=len(BLOB) - 1)
    for part in envelopes():
        with pytest.raises(ProtocolError, match="the plan allows"):
            target.add(part)
    assert (target.buffered, target.missing()) == (0, [])
    assert put_together(envelopes(), assembler(max_total=len(BLOB))) == BLOB


@pytest.mark.parametrize("changes", [{"codec": 2}, {"part_bytes": 512, "parts": 3, "part": 1}, {"total": 1027}])
def test_a_part_that_disagrees_with_the_first_is_refused(changes):
    parts, target = envelopes(), assembler()
    target.add(parts[0])
    with pytest.raises(ProtocolError, match="disagrees"):
        target.add(replace(parts[1], **changes))
    assert target.buffered == 256


def test_too_many_parts_are_refused_when_cutting():
    assert Splitter(bytes(65535 * 256), 256, codec=1, **PLACE).parts == 65535
    with pytest.raises(ProtocolError, match="raise part_bytes"):
        Splitter(bytes(65535 * 256 + 1), 256, codec=1, **PLACE)
