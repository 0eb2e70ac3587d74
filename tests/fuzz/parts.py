"""Assembler: any sequence of parts; each is preceded by its length in two bytes. Splitter: what it cuts is whole again.

The first byte says how many bytes the receiver's own plan allows, in hundreds.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from edgefl.errors import ProtocolError
from edgefl.protocol.envelope import HEADER_BYTES, MAX_PARTS, MIN_PART_BYTES, Envelope, Kind
from edgefl.protocol.parts import Assembler, Splitter, fitting_part_bytes

from . import envelope

LONGEST = 8192
NAMES = {"kind": Kind.UPDATE, "federation": 7, "round": 5, "version": 4}


def cut(blob: bytes, part_bytes: int) -> list[bytes]:
    """All parts of `blob`."""
    splitter = Splitter(blob, part_bytes, codec=3, **NAMES)
    return [splitter.part(i) for i in range(splitter.parts)]


def joined(parts: list[bytes]) -> bytes:
    return b"".join(len(part).to_bytes(2, "little") + part for part in parts)


def seeds() -> list[bytes]:
    one, two = cut(bytes(1000), 256), cut(b"y" * 700, 300)
    return [
        b"\x0a" + joined(one),
        b"\xff" + joined(one[::-1]),
        b"\x20" + joined([one[0], two[0], *one, two[2]]),
        b"\x05" + joined(two),
    ]


def pieces(data: bytes) -> Iterator[bytes]:
    at = 1
    while at < len(data):
        length = int.from_bytes(data[at : at + 2], "little")
        yield data[at + 2 : at + 2 + length]
        at += 2 + length


def mend(data: bytes) -> bytes:
    return data[:1] + joined([envelope.mend(piece) for piece in pieces(data)])


def run(data: bytes) -> None:
    most = 100 * data[0] if data else 0
    assembler = Assembler(max_total=most, **NAMES)
    for piece in pieces(data):
        try:
            part = Envelope.from_bytes(piece)
            whole = assembler.add(part)
        except ProtocolError:
            continue
        assert assembler.buffered <= assembler.total <= most
        assert len(assembler.missing()) == assembler.lacks <= MAX_PARTS
        assert whole == (assembler.lacks == 0)
        assert assembler.is_cut_like(part)
        if whole:
            assert len(assembler.blob()) == assembler.total
            assembler.clear()
            assert assembler.lacks == assembler.parts
    restored(data)


def restored(data: bytes) -> None:
    """`data` itself in parts, in any order, some of them twice."""
    if not data:
        return
    rng = random.Random(len(data) + data[-1])
    part_bytes = fitting_part_bytes(rng.randint(MIN_PART_BYTES, 5000), len(data), rng.choice((None, 100, 2000)))
    parts = cut(data, part_bytes)
    assembler = Assembler(max_total=len(data), **NAMES)
    order = rng.sample(parts, len(parts)) + parts[:2]
    assert any([assembler.add(Envelope.from_bytes(part)) for part in order])
    assert assembler.blob() == data and all(len(part) <= part_bytes + HEADER_BYTES for part in parts)
