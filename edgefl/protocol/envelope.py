"""The envelope of one part of a tensor: 48 bytes before the part's own, little-endian.

    magic 4s "EFLT" | protocol u8 | kind u8 | codec u8 | 0 u8 | federation u32 | round u32 | model version u32
    | part u16 | parts u16 | part_bytes u32 | total u32 | blob 8s | length u32 | CRC32C u32 | bytes

    kind 1   a payload of the model, keyframe or delta: round 0, the version that it leads to
    kind 2   an update, header and encoded delta: its round, the version that it starts from
    kind 3   reserved for side vectors: what a strategy sends to the devices with the model. No topic carries them yet
    kind 4   what a helper is asked to open (masking/exchange.py): its round, the version that this starts from
    kind 5   its answer, with the same numbers

The CRC32C (RFC 3720) covers the header before it and the bytes. `blob` is the CRC32C of the whole blob's first
half, then that of its second half, so parts of two attempts don't mix. Each part's CRC vouches for it, so the receiver
compares it and does not compute it again. (A model's decoded params have a SHA-256 of their own.)
Every number is checked against the others here, and against our own plan by the assembler: nothing is allocated from a
size on the wire.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from enum import IntEnum

import msgspec

from .._core import crc32c
from ..digests import sha256
from ..errors import ProtocolError

MAGIC = b"EFLT"
PROTOCOL = 1
_HEAD = struct.Struct("<4sBBBBIIIHHII8sI")
_CRC = struct.Struct("<I")
_ID = struct.Struct("<II")
HEADER_BYTES = _HEAD.size + _CRC.size
MAX_PARTS = 65535
MIN_PART_BYTES, MAX_PART_BYTES = 256, 2**20


class Kind(IntEnum):
    """What the blob is."""

    MODEL = 1
    UPDATE = 2
    SIDE = 3  # not used: a strategy's side vectors lie behind the params (Manifest.sides)
    ASK = 4
    ANSWER = 5


class Unwritten(ABC):
    """A blob that a simulated fleet keeps. Its parts go from one host to another as objects (Slip): a CRC of bytes that
    never leave the process proves nothing. `blob_id` tells it from all others."""

    blob_id: bytes

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def piece(self, start: int, stop: int) -> bytes | memoryview:
        """These bytes of it."""


class Slip:
    """What stands for the message of a part of an Unwritten blob: as long, and read by `Envelope.from_bytes`."""

    __slots__ = ("_blob", "_envelope")

    def __init__(self, envelope: Envelope, blob: Unwritten) -> None:
        self._envelope, self._blob = envelope, blob

    def __len__(self) -> int:
        envelope = self._envelope
        return HEADER_BYTES + min(envelope.part_bytes, envelope.total - envelope.part * envelope.part_bytes)

    def startswith(self, prefix: bytes) -> bool:
        return MAGIC.startswith(prefix)

    def open(self) -> Envelope:
        """The part with its bytes."""
        start = self._envelope.part * self._envelope.part_bytes
        data = self._blob.piece(start, min(start + self._envelope.part_bytes, len(self._blob)))
        return msgspec.structs.replace(self._envelope, data=data)


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """One part of one blob. Every part but the last has `part_bytes` bytes; the blob has `total`.

    The `data` of an envelope that was read is a view of the message, not a copy.
    """

    kind: Kind
    codec: int
    federation: int
    round: int
    version: int
    part: int
    parts: int
    part_bytes: int
    total: int
    blob: bytes
    data: bytes | memoryview

    def to_bytes(self) -> bytes:
        head = _HEAD.pack(
            MAGIC, PROTOCOL, self.kind, self.codec, 0, self.federation, self.round, self.version,
            self.part, self.parts, self.part_bytes, self.total, self.blob, len(self.data),
        )  # fmt: skip
        return b"".join((head, _CRC.pack(crc32c(self.data, crc32c(head))), self.data))

    @classmethod
    def from_bytes(cls, raw: bytes | Slip) -> Envelope:
        """Parse and cross-check one part; ProtocolError says what is wrong with it."""
        if isinstance(raw, Slip):
            return raw.open()
        if len(raw) < HEADER_BYTES:
            raise ProtocolError(f"{len(raw)} bytes are not an envelope: dropped")
        (magic, protocol, kind, codec, zero, federation, round, version, part, parts, part_bytes, total, blob,
         length) = _HEAD.unpack_from(raw)  # fmt: skip
        if magic != MAGIC or zero != 0:
            raise ProtocolError("bytes without the envelope's magic: dropped")
        if protocol != PROTOCOL:
            raise ProtocolError(f"envelope of protocol {protocol}, this side speaks {PROTOCOL}: update the older side")
        if kind not in Kind._value2member_map_:
            raise ProtocolError(f"envelope of unknown kind {kind}: dropped")
        if part_bytes < MIN_PART_BYTES or total == 0 or parts != -(-total // part_bytes) or part >= parts:
            raise ProtocolError(f"part {part} of {parts} x {part_bytes} bytes does not add up to {total}: dropped")
        if length != len(raw) - HEADER_BYTES or length != min(part_bytes, total - part * part_bytes):
            raise ProtocolError(f"part {part} has {len(raw) - HEADER_BYTES} bytes, not as many as it says: dropped")
        view = memoryview(raw)
        data = view[HEADER_BYTES:]
        if _CRC.unpack_from(raw, _HEAD.size)[0] != crc32c(data, crc32c(view[: _HEAD.size])):
            raise ProtocolError(f"part {part} fails its CRC32C: dropped", "crc")
        return cls(Kind(kind), codec, federation, round, version, part, parts, part_bytes, total, blob, data)


def blob_id(blob: bytes) -> bytes:
    """Eight bytes that distinguish the parts of one blob from those of another."""
    middle = len(blob) // 2
    return _ID.pack(crc32c(blob[:middle]), crc32c(blob[middle:]))


def federation_hash(federation: str, run: str, plan_hash: str) -> int:
    """32 bits that tie an envelope to one federation, run and plan: an earlier run had the same rounds and versions,
    and brokers keep its messages."""
    digest = sha256(f"{federation}\n{run}\n{plan_hash}".encode()).digest()
    return int.from_bytes(digest[:4], "little")
