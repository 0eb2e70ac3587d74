"""Envelope.from_bytes: what it accepts is what it writes."""

from __future__ import annotations

from edgefl._core import crc32c
from edgefl.protocol.envelope import HEADER_BYTES, MIN_PART_BYTES, Envelope, Kind
from edgefl.protocol.parts import Splitter

LONGEST = 4096


def seeds() -> list[bytes]:
    made = []
    for kind, length in ((Kind.UPDATE, 10), (Kind.MODEL, 600), (Kind.UPDATE, MIN_PART_BYTES * 3)):
        cut = Splitter(bytes(range(250)) * 4, MIN_PART_BYTES, kind=kind, codec=3, federation=7, round=5, version=4)
        made += [cut.part(0), cut.part(cut.parts - 1)]
        whole = Splitter(b"x" * length, 2048, kind=kind, codec=1, federation=2**32 - 1, round=2**32 - 1, version=0)
        made.append(whole.part(0))
    return made


def mend(data: bytes) -> bytes:
    """With the right length and CRC32C."""
    if len(data) < HEADER_BYTES:
        return data
    head = data[: HEADER_BYTES - 8] + (len(data) - HEADER_BYTES).to_bytes(4, "little")
    body = data[HEADER_BYTES:]
    return b"".join((head, crc32c(body, crc32c(head)).to_bytes(4, "little"), body))


def run(data: bytes) -> None:
    envelope = Envelope.from_bytes(data)
    assert envelope.to_bytes() == data
    assert len(envelope.data) <= envelope.part_bytes and envelope.part < envelope.parts
    assert (envelope.parts - 1) * envelope.part_bytes < envelope.total <= envelope.parts * envelope.part_bytes
