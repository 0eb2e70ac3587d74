"""Skeletons as a device reads and fills them, and the metadata of an ONNX file.

The first byte chooses: a skeleton as it comes, the body of one, which zlib would hide, or a file with metadata.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from edgefl.core import protobuf
from edgefl.core.skeleton import LONGEST_BODY, MAGIC, VERSION, Axis, Block, Header, Hole, Skeleton

LONGEST = 8192
PARAMS = np.arange(30, dtype=np.float32)
SOUND = [
    Skeleton(Header(150, 30, [Hole(20, [Block(0, [Axis(5, 1), Axis(6, 5)])])]), bytes(30)),
    Skeleton(Header(60, 30, [Hole(3, [Block(29, [Axis(4, -2)]), Block(1)], 5, 0.5), Hole(40, [Block(2)])]), bytes(56)),
]


def packed(body: bytes) -> bytes:
    return struct.pack("<4sB3xI", MAGIC, VERSION, len(body)) + zlib.compress(body, 1)


def seeds() -> list[bytes]:
    whole = [made.to_bytes() for made in SOUND]
    file = b"".join(SOUND[0].pieces(PARAMS))
    stamped = b"\x08\x07" + protobuf.stamp({"version": "3", "federation": "digits"})
    return [b"\0" + blob for blob in whole] + [b"\1" + zlib.decompress(blob[12:]) for blob in whole] + [
        b"\2" + stamped, b"\2" + protobuf.stamp({"a": file[:20].hex()}),
    ]  # fmt: skip


def run(data: bytes) -> None:
    kind, data = data[:1], data[1:]
    if kind == b"\2":
        found = protobuf.metadata_of(data)
        rest = protobuf.without_stamp(data)
        assert protobuf.metadata_of(rest) == {}
        assert len(rest) <= len(data) and (rest == data or found)
        return
    if len(data) > LONGEST_BODY:
        return
    made = Skeleton.from_bytes(packed(data) if kind == b"\1" else data, len(PARAMS))
    file = b"".join(made.pieces(PARAMS))
    assert len(file) == made.header.size
    assert made.params_of(file) is not None
