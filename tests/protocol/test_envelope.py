"""The envelope: its bytes are frozen, and nothing but an intact envelope is taken for one."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl._core import crc32c
from edgefl.errors import ProtocolError
from edgefl.protocol.envelope import HEADER_BYTES, Envelope, Kind, blob_id, federation_hash

GOLDEN = Envelope(Kind.UPDATE, 2, 0x01020304, 7, 6, 1, 2, 256, 260, b"ABCDEFGH", b"\x01\x02\x03\x04")
GOLDEN_BYTES = bytes.fromhex(
    "45464c54" "01" "02" "02" "00" "04030201" "07000000" "06000000" "0100" "0200"
    "00010000" "04010000" "4142434445464748" "04000000" "437c8ce7" "01020304"
)  # fmt: skip


def packed(
    *, magic=b"EFLT", protocol=1, kind=2, zero=0, part=0, parts=1, part_bytes=256, total=4, data=b"abcd", length=4
):
    """An envelope with any numbers and a right CRC32C."""
    head = struct.pack(
        "<4sBBBBIIIHHII8sI", magic, protocol, kind, 1, zero, 9, 1, 0, part, parts, part_bytes, total, b"b" * 8, length
    )
    return head + struct.pack("<I", crc32c(data, crc32c(head))) + data


def test_format_is_frozen():
    assert GOLDEN.to_bytes() == GOLDEN_BYTES
    assert Envelope.from_bytes(GOLDEN_BYTES) == GOLDEN
    assert HEADER_BYTES == 48


def test_checksum_is_crc32c():
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720's polynomial, its usual check value


def test_hashes_are_frozen():
    assert blob_id(b"123456789" * 2).hex() == "839206e3" * 2  # CRC32C's check value, RFC 3720, appendix B.4
    assert federation_hash("pond", "0" * 16, "ab") == 0x1CE15DBD


def test_every_single_bit_flip_is_refused():
    for bit in range(8 * len(GOLDEN_BYTES)):
        broken = bytearray(GOLDEN_BYTES)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ProtocolError):
            Envelope.from_bytes(bytes(broken))


def test_every_truncation_and_extension_is_refused():
    for cut in range(len(GOLDEN_BYTES)):
        with pytest.raises(ProtocolError):
            Envelope.from_bytes(GOLDEN_BYTES[:cut])
    with pytest.raises(ProtocolError, match="not as many"):
        Envelope.from_bytes(GOLDEN_BYTES + b"\0")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"magic": b"EFLU"}, "magic"),
        ({"zero": 1}, "magic"),
        ({"protocol": 2}, "update the older side"),
        ({"protocol": 0}, "protocol 0"),
        ({"kind": 0}, "unknown kind"),
        ({"kind": 6}, "unknown kind"),
        ({"part": 1}, "add up"),
        ({"parts": 0}, "add up"),
        ({"parts": 2}, "add up"),
        ({"part_bytes": 255}, "add up"),
        ({"part_bytes": 0}, "add up"),
        ({"total": 0}, "add up"),
        ({"total": 257}, "add up"),
        ({"total": 2**32 - 1}, "add up"),
        ({"total": 5}, "not as many"),
        ({"length": 3}, "not as many"),
        ({"length": 2**32 - 1}, "not as many"),
        ({"part_bytes": 256, "parts": 2, "total": 260}, "not as many"),
    ],
)
def test_contradictions_are_refused_under_a_right_checksum(wrong, says):
    assert Envelope.from_bytes(packed()).data == b"abcd"
    with pytest.raises(ProtocolError, match=says):
        Envelope.from_bytes(packed(**wrong))


def test_smallest_part_and_most_parts():
    full = b"x" * 256
    total = 65535 * 256
    assert Envelope.from_bytes(packed(part=65534, parts=65535, total=total, data=full, length=256)).part == 65534
    with pytest.raises(ProtocolError):
        Envelope.from_bytes(packed(part=0, parts=65535, total=total + 1, data=full, length=256))


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(raw):
    with pytest.raises(ProtocolError):
        Envelope.from_bytes(raw)


@given(st.binary(min_size=44, max_size=200))
def test_random_header_behind_the_magic_is_parsed_or_refused(raw):
    try:
        envelope = Envelope.from_bytes(GOLDEN_BYTES[:8] + raw)
    except ProtocolError:
        return
    assert envelope.to_bytes() == GOLDEN_BYTES[:8] + raw
